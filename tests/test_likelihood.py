"""Each likelihood against its dense float64 formula; the kernel's own tests for the multinomial are in test_nn.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import sparse
from torch import Tensor

from recvae.likelihood import LIKELIHOODS, output_nll, user_nll
from recvae.models.multvae import MultVAE
from recvae.nn import Rows
from tests.contracts import checkerboard
from tests.contracts import one_thread as one_thread

N_USERS, N_ITEMS, SIZE = 7, 11, 3
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)


def plays() -> sparse.csr_matrix:
    generator = np.random.default_rng(0)
    dense = (generator.random((N_USERS, N_ITEMS)) < 0.3) * generator.integers(1, 4, (N_USERS, N_ITEMS))
    dense[2] = 0
    return sparse.csr_matrix(dense, dtype=np.float64)


def dense_nll(logits: Tensor, x: Tensor, likelihood: str) -> Tensor:
    """(n_users,) straight from the formulas."""
    if likelihood == "multinomial":
        return -(x * logits.log_softmax(dim=1)).sum(dim=1)
    if likelihood == "gaussian":
        return 0.5 * (x - logits).square().sum(dim=1)
    return -(x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=1)


@each_likelihood
@pytest.mark.parametrize("users_at_once", [1, 3, 100])
def test_loss_and_gradients_equal_the_dense_ones(
    likelihood: str, users_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recvae.likelihood.CHUNK_BYTES", users_at_once * N_ITEMS * 8)
    generator = torch.Generator().manual_seed(0)
    shapes = [(N_USERS, SIZE), (N_ITEMS, SIZE), (N_ITEMS,)]
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator, requires_grad=True) for s in shapes]
    hidden, weight, bias = inputs
    expected = dense_nll(hidden @ weight.T + bias, torch.from_numpy(plays().toarray()), likelihood).sum()
    found = output_nll(hidden, weight, bias, Rows.of(plays()), likelihood)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@each_likelihood
def test_each_user_has_a_likelihood_of_its_own(likelihood: str) -> None:
    logits = torch.randn((N_USERS, N_ITEMS), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = dense_nll(logits, torch.from_numpy(plays().toarray()), likelihood)
    torch.testing.assert_close(user_nll(logits.clone(), Rows.of(plays()), likelihood), expected)


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
