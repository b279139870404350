"""Each likelihood against its dense float64 formula."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.testing import assert_allclose
from scipy import sparse
from torch import Tensor

from recvae.models.autoencoders.multvae import MultVAE
from recvae.nn.batches import Batch
from recvae.nn.layers import Workspace
from recvae.nn.likelihood import LIKELIHOODS, _padded_width, output_nll, sampled_nll, user_nll
from recvae.nn.sampling import NegativeSampler
from tests.contracts import checkerboard
from tests.contracts import one_thread as one_thread

N_USERS, N_ITEMS, SIZE = 7, 11, 3
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)


def interactions() -> sparse.csr_matrix:
    generator = np.random.default_rng(0)
    dense = (generator.random((N_USERS, N_ITEMS)) < 0.3) * generator.integers(1, 4, (N_USERS, N_ITEMS))
    dense[2], dense[:, [3, 7]] = 0, 0
    return sparse.csr_matrix(dense, dtype=np.float64)


def dense_nll(logits: Tensor, x: Tensor, likelihood: str) -> Tensor:
    """(n_users,) by the formulas on dense tensors."""
    if likelihood == "multinomial":
        return -(x * logits.log_softmax(dim=1)).sum(dim=1)
    if likelihood == "gaussian":
        return 0.5 * (x - logits).square().sum(dim=1)
    return -(x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=1)


def random_inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden layer, weight and bias."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, dtype=dtype, generator=generator, requires_grad=True)
        for shape in [(N_USERS, SIZE), (N_ITEMS, SIZE), (N_ITEMS,)]
    )
    return hidden, weight, bias


@each_likelihood
@pytest.mark.parametrize("users_at_once", [1, 3, 100])
def test_loss_and_gradients_equal_the_dense_ones(
    likelihood: str, users_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recvae.memory.BATCH_BYTES", users_at_once * N_ITEMS * 8)
    monkeypatch.setattr("recvae.nn.likelihood.MIN_CHUNK", 1)
    inputs = random_inputs(torch.float64)
    hidden, weight, bias = inputs
    expected = dense_nll(hidden @ weight.T + bias, torch.from_numpy(interactions().toarray()), likelihood).mean()
    found = output_nll(hidden, weight, bias, Batch.from_csr(interactions()), likelihood)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@each_likelihood
@pytest.mark.parametrize("users_at_once", [3, 100])
def test_items_that_nobody_has_add_nothing_where_rows_are_padded(
    likelihood: str, users_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recvae.memory.BATCH_BYTES", users_at_once * N_ITEMS * 8)
    monkeypatch.setattr("recvae.nn.likelihood.MIN_CHUNK", 1)
    inputs, batch, workspace = random_inputs(torch.float64), Batch.from_csr(interactions()), Workspace()
    expected = output_nll(*inputs, batch, likelihood)
    gradients = torch.autograd.grad(expected, inputs)
    monkeypatch.setattr("recvae.nn.likelihood._padded_width", lambda *_: N_ITEMS + 5)
    for _ in range(2):  # with fresh memory, and with memory that was written to
        found = output_nll(*inputs, batch, likelihood, workspace)
        torch.testing.assert_close(found, expected)
        for a, b in zip(torch.autograd.grad(found, inputs), gradients, strict=True):
            torch.testing.assert_close(a, b)


def test_rows_are_padded_on_a_gpu_where_products_are_of_few_bytes() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [_padded_width(n, gpu, torch.bfloat16) for n in (8, 9, 16, 20_108)] == [8, 16, 16, 20_112]
    assert _padded_width(9, gpu, torch.float32) == _padded_width(9, cpu, torch.bfloat16) == 9


@each_likelihood
def test_products_in_bfloat16_are_close(likelihood: str) -> None:
    inputs = random_inputs(torch.float32)
    batch = Batch.from_csr(interactions().astype(np.float32))
    exact = torch.autograd.grad(output_nll(*inputs, batch, likelihood), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = output_nll(*inputs, batch, likelihood)
    assert loss.dtype == torch.float32
    for a, b in zip(torch.autograd.grad(loss, inputs), exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02 * b.abs().max().item())


def test_a_workspace_is_used_again_and_its_gradient_is_not_copied() -> None:
    hidden, weight, bias = (tensor.detach().requires_grad_() for tensor in random_inputs(torch.float64))
    workspace = Workspace()
    for _ in range(2):
        weight.grad = None
        output_nll(hidden, weight, bias, Batch.from_csr(interactions()), workspace=workspace).backward()  # type: ignore[no-untyped-call]
        held = workspace.take("output gradient", weight.shape, weight)
        assert weight.grad is not None
        assert weight.grad.data_ptr() == held.data_ptr()
    expected = torch.autograd.grad(output_nll(hidden, weight, bias, Batch.from_csr(interactions())), weight)
    torch.testing.assert_close(weight.grad, *expected)


@pytest.mark.parametrize("users_at_once", [1, 3, 4, N_USERS, 1000])
def test_nll_gradients_equal_finite_differences(users_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.memory.BATCH_BYTES", users_at_once * N_ITEMS * 8)
    monkeypatch.setattr("recvae.nn.likelihood.MIN_CHUNK", 1)
    batch, inputs = Batch.from_csr(interactions()), random_inputs(torch.float64)
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
    batch, inputs = Batch.from_csr(interactions()), random_inputs(torch.float64)
    once = torch.autograd.grad(output_nll(*inputs, batch), inputs)
    scaled = torch.autograd.grad(-2.5 * output_nll(*inputs, batch), inputs)
    for gradient, other in zip(once, scaled, strict=True):
        assert_allclose(other.numpy(), -2.5 * gradient.numpy(), rtol=1e-12)


def test_nll_gives_its_gradients_once() -> None:
    loss = output_nll(*random_inputs(torch.float64), Batch.from_csr(interactions()))
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="gives its gradients once"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_nll_of_enormous_logits_is_finite() -> None:
    hidden, weight, bias = random_inputs(torch.float64)
    batch = Batch.from_csr(interactions())
    loss = output_nll(hidden * 1e4, weight, bias, batch)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, (hidden, weight, bias)))


@pytest.mark.parametrize("n_users", [1, 4])
def test_nll_of_rows_without_interactions_is_nothing(n_users: int) -> None:
    hidden, weight, bias = random_inputs(torch.float64)
    inputs = hidden.detach()[:n_users].requires_grad_(), weight, bias
    loss = output_nll(*inputs, Batch.from_csr(sparse.csr_matrix(np.zeros((n_users, N_ITEMS)))))
    assert loss.item() == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, inputs))


def sampled_reference(inputs: tuple[Tensor, ...], negatives: Tensor, log_expected: Tensor) -> Tensor:
    """The mean loss, user by user and item by item."""
    hidden, weight, bias = inputs
    losses, positive = [], interactions().sum(axis=0).A1 > 0
    for h, x in zip(hidden, torch.from_numpy(interactions().toarray()), strict=True):
        logits = weight @ h + bias
        terms = [logits[i] for i in range(N_ITEMS) if positive[i]]
        terms += [logits[j] - e for j, e in zip(negatives.tolist(), log_expected, strict=True) if not positive[j]]
        losses.append(x.sum() * torch.stack(terms).logsumexp(0) - (x * logits).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("fineness", "size"), [(32, 9), (2, 16)])
def test_sampled_loss_and_gradients_equal_the_formula(
    fineness: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = random_inputs(torch.float64)
    negatives = torch.tensor([3, 0, 10, 3, 7, 7, 7, 1])
    log_expected = torch.linspace(-1, 1, len(negatives), dtype=torch.float64)
    monkeypatch.setattr("recvae.nn.likelihood.FINENESS", fineness)
    sizes: list[int] = []

    def counted(hidden: Tensor, weight: Tensor, *rest: Any, **options: Any) -> Tensor:
        sizes.append(len(weight))
        return output_nll(hidden, weight, *rest, **options)

    monkeypatch.setattr("recvae.nn.likelihood.output_nll", counted)
    batch = Batch.from_csr(interactions())
    found = sampled_nll(*inputs, batch, batch.items, (negatives, log_expected))
    expected = sampled_reference(inputs, negatives, log_expected)
    assert sizes == [size]
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a.to_dense(), b)


def test_every_item_drawn_once_is_the_softmax_over_all() -> None:
    inputs = random_inputs(torch.float64)
    everything = torch.arange(N_ITEMS), torch.zeros(N_ITEMS, dtype=torch.float64)
    batch = Batch.from_csr(interactions())
    found = sampled_nll(*inputs, batch, batch.items, everything)
    torch.testing.assert_close(found, output_nll(*inputs, Batch.from_csr(interactions())))


@pytest.mark.parametrize("weights", [torch.ones(N_ITEMS), torch.arange(1.0, N_ITEMS + 1)])
def test_many_sampled_items_estimate_the_softmax_over_all(weights: Tensor) -> None:
    inputs = random_inputs(torch.float64)
    drawn = NegativeSampler(200_000, weights).draw(torch.Generator().manual_seed(0))
    batch = Batch.from_csr(interactions())
    found = sampled_nll(*inputs, batch, batch.items, drawn)
    torch.testing.assert_close(found, output_nll(*inputs, Batch.from_csr(interactions())), rtol=2e-3, atol=0)


@each_likelihood
def test_each_user_has_a_likelihood_of_its_own(likelihood: str) -> None:
    logits = torch.randn((N_USERS, N_ITEMS), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = dense_nll(logits, torch.from_numpy(interactions().toarray()), likelihood)
    torch.testing.assert_close(user_nll(logits.clone(), Batch.from_csr(interactions()), likelihood), expected)


@each_likelihood
@pytest.mark.usefixtures("one_thread")
def test_every_likelihood_learns_to_rank(likelihood: str) -> None:
    board = checkerboard()
    model = MultVAE(
        hidden=16, latent=8, epochs=30, batch_size=8, total_anneal_steps=0, learning_rate=1e-2, likelihood=likelihood
    ).fit(board, show_progress=False)
    users = np.arange(board.shape[0])
    ids, _ = model.recommend(users, board, N=1)
    assert np.mean(ids[:, 0] % 2 == users % 2) > 0.95
