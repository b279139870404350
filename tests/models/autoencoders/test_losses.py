from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from numpy.testing import assert_allclose
from scipy import sparse
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.network import PlainEncoder
from recvae.models.autoencoders.recvae import RecVAE
from recvae.models.autoencoders.variational import kl_to_standard_normal
from recvae.nn.batches import Batch
from recvae.nn.initialisation import draw_glorot_, draw_uniform_
from recvae.nn.item_layers import ItemInput
from recvae.nn.layers import Linear
from recvae.nn.likelihood import output_nll
from recvae.nn.parallelism import Parallelism
from recvae.nn.sampling import draw_noise, drop_out, sample_normal
from tests.contracts import one_thread as one_thread

BATCH, N_ITEMS = 10, 13
DEPTHS: list[tuple[int, ...]] = [(), (8,), (8, 6)]
CHUNKS = [1, 3, 4, BATCH, 1000]


def interactions(weighted: bool, n_users: int = BATCH, n_items: int = N_ITEMS) -> sparse.csr_matrix:
    """Random batch; the first, one in the middle and the last two are empty."""
    rng = np.random.default_rng(7)
    dense = (rng.random((n_users, n_items)) < 0.4) * (rng.uniform(0.2, 5, (n_users, n_items)) if weighted else 1.0)
    dense[[0, n_users // 2, -2, -1]] = 0
    return sparse.csr_matrix(dense.astype(np.float32))


def double_batch(user_items: sparse.csr_matrix) -> Batch:
    batch = Batch.from_csr(user_items)
    return replace(batch, values=batch.values.double())


def on_dense(batch: Batch, values: Tensor, n_items: int = N_ITEMS) -> Tensor:
    dense = torch.zeros(len(batch), n_items, dtype=torch.float64)
    for user in range(len(batch)):
        for place in range(int(batch.offsets[user]), int(batch.offsets[user + 1])):
            dense[user, batch.items[place]] = values[place]
    return dense


def input_of(x: Tensor, kept: Tensor) -> Tensor:
    norm = x.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, x / norm, 0.0) * kept


def through(h: Tensor, layers: Iterable[Any], before: bool) -> Tensor:
    for layer in layers:
        h = F.linear(torch.tanh(h) if before else h, layer.weight, layer.bias)
        h = h if before else torch.tanh(h)
    return h


def normalised(h: Tensor, norm: Any) -> Tensor:
    centred = h - h.mean(dim=1, keepdim=True)
    scale: Tensor = (centred.square().mean(dim=1, keepdim=True) + 0.1).sqrt()
    scaled: Tensor = centred / scale * norm.weight + norm.bias
    return scaled


def code_of(module: Any, x: Tensor, kept: Tensor) -> Tensor:
    encoder: Any = module.encoder
    first = input_of(x, kept) @ encoder.input.weight + encoder.input.bias
    if isinstance(encoder, PlainEncoder):
        return through(first, encoder.layers, before=True)
    outputs = [normalised(first * first.sigmoid(), encoder.norms[0])]
    for layer, norm in zip(encoder.hidden, list(encoder.norms)[1:], strict=True):
        h = F.linear(outputs[-1], layer.weight, layer.bias) + torch.stack(outputs).sum(dim=0)
        outputs.append(normalised(h * h.sigmoid(), norm))
    return F.linear(outputs[-1], encoder.code.weight, encoder.code.bias)


def nll_of(module: Any, z: Tensor, x: Tensor) -> Tensor:
    h = through(z, module.decoder, before=False)
    logits = F.linear(h, module.output.weight, module.output.bias)
    return -(x * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def random_module(model: MultVAE | MultDAE | RecVAE) -> Any:
    """Weights of a size at which every term of the loss counts, biases included."""
    module = model._build(N_ITEMS, torch.Generator().manual_seed(1)).double()
    model.module_ = module
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.6, generator=generator)
    return module


def kept_of(batch: Batch, p: float, generator: torch.Generator) -> Tensor:
    if p == 0:
        return torch.ones(len(batch), N_ITEMS, dtype=torch.float64)
    drawn = torch.rand(len(batch.items), dtype=torch.float64, generator=generator)
    kept = (drawn >= p).double() / (1 - p)
    return on_dense(batch, kept)


def assert_same_gradients(module: nn.Module, loss: Tensor, reference: Tensor) -> None:
    assert loss.item() == pytest.approx(reference.item(), rel=1e-12)
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert parameters
    given = torch.autograd.grad(loss, list(parameters.values()))
    expected = torch.autograd.grad(reference, list(parameters.values()))
    for name, mine, right in zip(parameters, given, expected, strict=True):
        assert right.abs().max() > 1e-6, name
        assert_allclose(mine.numpy(), right.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.fixture(params=CHUNKS)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Users whose float64 logits fit into the output layer's buffer."""
    monkeypatch.setattr("recvae.memory.BATCH_BYTES", request.param * N_ITEMS * 8)
    users: int = request.param
    return users


PLAIN = {"encoder": "plain", "anneal_cap": 0.7, "total_anneal_steps": 100}
DENSE = {"encoder": "dense", "gamma": 0.05}


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize(
    ("hidden", "options"), [*((depth, PLAIN) for depth in DEPTHS), ((6,), DENSE), ((6, 6, 6), DENSE), ((6,) * 5, DENSE)]
)
def test_multvae_loss_and_gradients_equal_a_dense_reference(
    hidden: tuple[int, ...], options: dict[str, Any], p: float, weighted: bool
) -> None:
    model = MultVAE(hidden=hidden, latent=5, dropout=p, **options)
    module, user_items = random_module(model), interactions(weighted)
    batch, x = double_batch(user_items), torch.from_numpy(user_items.toarray()).double()

    loss, parts = model._loss(batch, slice(None), 30, 0, torch.Generator().manual_seed(5))

    generator = torch.Generator().manual_seed(5)
    kept = kept_of(batch, p, generator)
    mu, logvar = code_of(module, x, kept).chunk(2, dim=1)
    z = mu + torch.randn(BATCH, 5, dtype=torch.float64, generator=generator) * logvar.exp().sqrt()
    q = torch.distributions.Normal(mu, logvar.exp().sqrt())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    beta = torch.full((BATCH,), 0.3, dtype=torch.float64) if options is PLAIN else 0.05 * x.sum(dim=1)
    nll = nll_of(module, z, x)
    expected = {"nll": nll.item(), "kl": kl.mean().item(), "beta": beta.mean().item()}
    assert parts == pytest.approx(expected, rel=1e-12)
    assert_same_gradients(module, loss, nll + (beta * kl).mean())


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("hidden", DEPTHS)
def test_multdae_loss_and_gradients_equal_a_dense_reference(hidden: tuple[int, ...], p: float, weighted: bool) -> None:
    model = MultDAE(hidden=hidden, latent=5, dropout=p, l2=0.03)
    module, user_items = random_module(model), interactions(weighted)
    batch, x = double_batch(user_items), torch.from_numpy(user_items.toarray()).double()

    loss, parts = model._loss(batch, slice(None), 30, 0, torch.Generator().manual_seed(5))

    kept = kept_of(batch, p, torch.Generator().manual_seed(5))
    nll = nll_of(module, torch.tanh(code_of(module, x, kept)), x)
    encoder: Any = module.encoder
    weights: list[Any] = [encoder.input, *encoder.layers, *module.decoder, module.output]
    l2 = 0.03 * torch.stack([(layer.weight**2).sum() for layer in weights]).sum()
    assert parts == pytest.approx({"nll": nll.item(), "l2": l2.item()}, rel=1e-12)
    assert_same_gradients(module, loss, nll + l2)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("number", [0, 2, 3])
def test_recvae_loss_and_gradients_equal_a_dense_reference(number: int, weighted: bool) -> None:
    """Passes 0 to 2 are the encoder's, pass 3 is the decoder's."""
    model = RecVAE(hidden=(6, 6, 6), latent=5, dropout=0.4, gamma=0.05, prior_weights=(0.2, 0.5, 0.3))
    module, user_items = random_module(model), interactions(weighted)
    batch, x = double_batch(user_items), torch.from_numpy(user_items.toarray()).double()

    loss, parts = model._loss(batch, slice(None), 30, number, torch.Generator().manual_seed(5))

    generator = torch.Generator().manual_seed(5)
    kept = kept_of(batch, 0.4 if number < 3 else 0.0, generator)
    mu, logvar = code_of(module, x, kept).chunk(2, dim=1)
    q: Any = torch.distributions.Normal(mu, logvar.exp().sqrt())
    z = mu + torch.randn(BATCH, 5, dtype=torch.float64, generator=generator) * q.scale
    nll = nll_of(module, z, x)
    trained = {name.split(".")[0] for name, parameter in module.named_parameters() if parameter.requires_grad}
    if number == 3:
        assert trained == {"output"}
        assert parts == pytest.approx({"nll": nll.item()}, rel=1e-12)
        assert_same_gradients(module, loss, nll)
        return
    assert trained == {"encoder"}
    before = SimpleNamespace(encoder=module.old_encoder)
    old_mu, old_logvar = code_of(before, x, torch.ones_like(x)).chunk(2, dim=1)
    components: list[Any] = [
        torch.distributions.Normal(0.0, 1.0),
        torch.distributions.Normal(old_mu, old_logvar.exp().sqrt()),
        torch.distributions.Normal(0.0, float(np.exp(5.0))),
    ]
    prior = torch.stack([w * p.log_prob(z).exp() for w, p in zip((0.2, 0.5, 0.3), components, strict=True)]).sum(dim=0)
    kl = (q.log_prob(z) - prior.log()).sum(dim=1)
    beta = 0.05 * x.sum(dim=1)
    expected = {"nll": nll.item(), "kl": kl.mean().item(), "beta": beta.mean().item()}
    assert parts == pytest.approx(expected, rel=1e-9)
    assert_same_gradients(module, loss, nll + (beta * kl).mean())


def test_recvaes_prior_takes_a_copy_of_the_encoder_before_the_decoders_pass() -> None:
    model = RecVAE(hidden=(6, 6), latent=5, encoder_passes=2)
    module = random_module(model)
    new, old = module.encoder.state_dict(), module.old_encoder.state_dict()
    for number, same in ((0, False), (1, False), (2, True)):
        model.begin_pass(number)
        assert all(torch.equal(old[name], new[name]) is same for name in new)


@pytest.mark.parametrize(
    "model",
    [
        *(make(hidden=hidden, latent=5) for make in (MultVAE, MultDAE) for hidden in DEPTHS),
        MultVAE(hidden=(6, 6), latent=5, encoder="dense"),
    ],
    ids=str,
)
def test_scores_are_the_dense_networks_logits_without_noise(model: MultVAE | MultDAE) -> None:
    module, user_items = random_module(model), interactions(weighted=True)
    x = torch.from_numpy(user_items.toarray()).double()
    code = code_of(module, x, torch.ones_like(x))
    z = code[:, :5] if isinstance(model, MultVAE) else torch.tanh(code)
    expected = F.linear(through(z, module.decoder, before=False), module.output.weight, module.output.bias)
    assert_allclose(model._logits(double_batch(user_items)).detach().numpy(), expected.detach().numpy(), rtol=1e-10)


def random_output(batch: int = BATCH, size: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(batch, size), (N_ITEMS, size), (N_ITEMS,)]
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    return hidden, weight, bias


@pytest.mark.usefixtures("chunk")
def test_nll_gradients_equal_finite_differences() -> None:
    batch, inputs = double_batch(interactions(weighted=True)), random_output()
    gradients = torch.autograd.grad(output_nll(*inputs, batch), inputs)
    step = 1e-5
    with torch.no_grad():
        for tensor, gradient in zip(inputs, gradients, strict=True):
            flat = tensor.view(-1)
            for place in range(flat.numel()):
                value = flat[place].item()
                flat[place] = value + step
                above = output_nll(*inputs, batch)
                flat[place] = value - step
                below = output_nll(*inputs, batch)
                flat[place] = value
                slope = (above - below).item() / (2 * step)
                assert gradient.view(-1)[place].item() == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_nll_gradients_follow_the_factor_of_the_loss() -> None:
    batch, inputs = double_batch(interactions(weighted=False)), random_output()
    once = torch.autograd.grad(output_nll(*inputs, batch), inputs)
    scaled = torch.autograd.grad(-2.5 * output_nll(*inputs, batch), inputs)
    for gradient, other in zip(once, scaled, strict=True):
        assert_allclose(other.numpy(), -2.5 * gradient.numpy(), rtol=1e-12)


def test_nll_gives_its_gradients_once() -> None:
    loss = output_nll(*random_output(), double_batch(interactions(weighted=False)))
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="gives its gradients once"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_nll_of_enormous_logits_is_finite() -> None:
    hidden, weight, bias = random_output()
    batch = double_batch(interactions(weighted=False))
    loss = output_nll(hidden * 1e4, weight, bias, batch)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, (hidden, weight, bias)))


@pytest.mark.parametrize("n_users", [1, 4])
def test_nll_of_rows_without_interactions_is_nothing(n_users: int) -> None:
    inputs = random_output(batch=n_users)
    loss = output_nll(*inputs, double_batch(sparse.csr_matrix(np.zeros((n_users, N_ITEMS), dtype=np.float32))))
    assert loss.item() == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, inputs))


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the number of elements of every tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.seen.add(tensor.numel())
        return result


@pytest.mark.parametrize("make", [MultVAE, MultDAE])
def test_no_tensor_as_large_as_batch_times_items(
    make: Callable[..., MultVAE | MultDAE], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_users, n_items, at_once = 50, 400, 7
    monkeypatch.setattr("recvae.memory.BATCH_BYTES", at_once * n_items * 4)
    monkeypatch.setattr("recvae.nn.likelihood.MIN_CHUNK", 1)
    model = make(hidden=(6,), latent=4)
    module = model.module_ = model._build(n_items, torch.Generator().manual_seed(1))
    batch = Batch.from_csr(interactions(weighted=False, n_users=n_users, n_items=n_items))
    saved: set[int] = set()

    def save(tensor: Tensor) -> Tensor:
        saved.add(tensor.numel())
        return tensor

    with _Sizes() as sizes, torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss, _ = model._loss(batch, slice(None), 0, 0, torch.Generator().manual_seed(1))
        loss.backward()  # type: ignore[no-untyped-call]
    largest_parameter = max(parameter.numel() for parameter in module.parameters())
    assert max(saved) <= max(largest_parameter, len(batch.items))
    assert at_once * n_items in sizes.seen
    assert n_users % at_once * n_items in sizes.seen
    assert max(sizes.seen) < n_users * n_items


def test_kl_by_hand() -> None:
    mu = torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.0, 0.0]])
    logvar = torch.tensor([[0.0, 0.0], [0.0, 0.0], [np.log(4.0), np.log(0.25)]])
    expected = [0.0, 2.5, 0.5 * (4 - 1 - np.log(4)) + 0.5 * (0.25 - 1 + np.log(4))]
    assert_allclose(kl_to_standard_normal(mu, logvar).numpy(), expected, rtol=1e-6)


def values_of(dense: list[list[float]]) -> Batch:
    return Batch.from_csr(sparse.csr_matrix(np.array(dense, dtype=np.float32)))


def test_dropout_keeps_the_mean_and_uses_its_generator_only() -> None:
    batch = values_of([[3.0] * 200_000])
    before = torch.get_rng_state()
    dropped = drop_out(batch, 0.3, torch.Generator().manual_seed(4)).values
    assert torch.equal(torch.get_rng_state(), before)
    assert dropped.mean().item() == pytest.approx(3.0, abs=0.02)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert_allclose(dropped[dropped != 0].numpy(), 3.0 / 0.7, rtol=1e-6)
    assert torch.equal(drop_out(batch, 0.3, torch.Generator().manual_seed(4)).values, dropped)
    assert not torch.equal(drop_out(batch, 0.3, torch.Generator().manual_seed(5)).values, dropped)
    assert (batch.values == 3.0).all()


def test_noise_has_the_posteriors_mean_and_variance() -> None:
    mu, logvar = torch.full((20_000, 2), 3.0), torch.full((20_000, 2), 1.0)
    noise = draw_noise(values_of([[1.0]] * 20_000), 2, torch.Generator().manual_seed(4))
    z = sample_normal(mu, logvar, noise)
    assert z.mean().item() == pytest.approx(3.0, abs=0.03)
    assert z.var().item() == pytest.approx(np.e, rel=0.03)


@pytest.mark.parametrize("size", [2, 3, 20])
@pytest.mark.parametrize(
    "model",
    [
        MultVAE(hidden=(8,), latent=5, total_anneal_steps=7),
        MultDAE(latent=5, l2=0.01),
        RecVAE(hidden=(6, 6), latent=5),
    ],
    ids=str,
)
def test_losses_of_the_processes_add_up_to_one_alone(model: MultVAE | MultDAE | RecVAE, size: int) -> None:
    random_module(model)
    batch = double_batch(interactions(weighted=True))

    def loss_of(process: Parallelism) -> float:
        generator = torch.Generator().manual_seed(5)
        loss, _ = model.training_loss(batch, process.own_users(len(batch)), 3, 0, generator)
        return loss.item() * process.weight(len(batch))

    assert sum(loss_of(Parallelism(rank, size)) for rank in range(size)) == pytest.approx(loss_of(Parallelism()))


def test_no_dropout_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    batch = values_of([[1.0, 2.0]])
    assert torch.equal(drop_out(batch, 0.0, generator).values, batch.values)
    assert torch.equal(generator.get_state(), before)


def test_sparse_linear_is_a_matrix_product() -> None:
    layer = ItemInput(N_ITEMS, 4)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(2))
    user_items = interactions(weighted=True)
    batch = Batch.from_csr(user_items)
    expected = user_items.toarray() @ layer.weight.detach().numpy() + layer.bias.detach().numpy()
    assert_allclose(layer(batch).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_glorot_weights_are_uniform_and_biases_truncated_normal() -> None:
    before = torch.get_rng_state()
    layer = Linear(300, 500)
    draw_glorot_(layer, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    bound = (6 / 800) ** 0.5
    assert 0.99 * bound < layer.weight.abs().max().item() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert layer.bias.abs().max().item() <= 0.002
    assert layer.bias.std().item() == pytest.approx(0.00088, rel=0.1)


def test_uniform_weights_and_biases_are_within_the_fan_in() -> None:
    before = torch.get_rng_state()
    layer = Linear(400, 500)
    draw_uniform_(layer, 400, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    for parameter in (layer.weight, layer.bias):
        assert 0.98 * 0.05 < parameter.abs().max().item() <= 0.05
        assert parameter.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.1)


def matrices(model: MultVAE | MultDAE) -> dict[str, tuple[int, ...]]:
    module = model._build(20, torch.Generator())
    return {name: tuple(p.shape) for name, p in module.named_parameters() if p.ndim == 2}


def test_layer_sizes_follow_the_paper() -> None:
    shapes = matrices(MultVAE(hidden=(9, 7), latent=4))
    assert shapes == {
        "encoder.input.weight": (20, 9),
        "encoder.layers.0.weight": (7, 9),
        "encoder.layers.1.weight": (8, 7),
        "decoder.0.weight": (7, 4),
        "decoder.1.weight": (9, 7),
        "output.weight": (20, 9),
    }
    assert matrices(MultVAE(hidden=(9, 9), latent=4, encoder="dense")) == {
        "encoder.input.weight": (20, 9),
        "encoder.hidden.0.weight": (9, 9),
        "encoder.code.weight": (8, 9),
        "output.weight": (20, 4),
    }
    assert matrices(MultDAE(latent=4)) == {"encoder.input.weight": (20, 4), "output.weight": (20, 4)}
