"""Loss and gradients of each autoencoder against a dense float64 reference, and what a step must not allocate."""

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
from recvae.nn.parallelism import Parallelism
from tests.contracts import one_thread as one_thread

BATCH, N_ITEMS = 10, 13
DEPTHS: list[tuple[int, ...]] = [(), (8,), (8, 6)]
CHUNKS = [1, 3, 4, BATCH, 1000]


def interactions(weighted: bool, n_users: int = BATCH, n_items: int = N_ITEMS) -> sparse.csr_matrix:
    """Random histories; the first, one in the middle and the last two are empty."""
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
