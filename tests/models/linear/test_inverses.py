"""Inverses through items and through users, on any device, against NumPy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.errors import ParameterError
from recvae.models.linear import inverses
from recvae.models.linear.inverses import (
    ItemInverse,
    Problem,
    UserInverse,
    compute_gram,
    find_device_for,
    weight_users,
)

SETTINGS = {"l2": 3.0, "dropout": 0.4, "user_exponent": 0.5}


def interactions(n_users: int, n_items: int, seed: int = 0) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    x = (rng.random((n_users, n_items)) < 0.2) * rng.uniform(0.5, 2.0, (n_users, n_items))
    return sparse.csr_matrix(x.astype(np.float32))


@pytest.mark.parametrize("rows", [1000, 7])
def test_both_ways_are_the_same_inverse(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.memory.rows_at_once", lambda _: rows)
    monkeypatch.setattr(inverses, "ROWS_AT_A_TIME", rows)
    x = interactions(30, 70)
    problem = Problem(x, "cpu")
    through_users = problem.invert(SETTINGS)
    assert isinstance(through_users, UserInverse)
    weighted, added = problem.weigh(SETTINGS)
    dense = weighted.toarray().astype(np.float64)
    expected = np.linalg.inv(dense.T @ dense + np.diag(added.astype(np.float64)))
    through_items = ItemInverse(expected.astype(np.float32))
    assert_allclose(through_users.diagonal, through_items.diagonal, rtol=1e-4)
    assert_allclose(through_users.multiply(x), through_items.multiply(x), rtol=1e-3, atol=1e-5)
    assert_allclose(through_users.make_weights(), through_items.make_weights(), rtol=1e-3, atol=1e-5)


def test_little_regularisation_goes_through_items() -> None:
    """Float32 has not the digits for the detour: 1 minus nearly 1 is what remains of an item."""
    x = interactions(30, 70)
    assert isinstance(Problem(x, "cpu").invert({**SETTINGS, "dropout": 0.0, "l2": 1e-3}), ItemInverse)
    assert isinstance(Problem(x[:, :20], "cpu").invert(SETTINGS), ItemInverse)


def test_a_problem_is_solved_many_times() -> None:
    """Whatever was asked before, the answer is the same."""
    x = interactions(80, 20)
    problem = Problem(x, "cpu")
    for settings in (SETTINGS, {**SETTINGS, "l2": 9.0}, {**SETTINGS, "user_exponent": 0.0}, SETTINGS, SETTINGS):
        for last in (False, True):
            found = problem.invert(settings, last=last)
            assert_allclose(found.diagonal, Problem(x, "cpu").invert(settings).diagonal, rtol=1e-6)


def test_a_gram_matrix_of_dense_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, here on torch's own device without memory for the shapes, and on the processor for the sums."""
    monkeypatch.setattr(inverses, "ROWS_AT_A_TIME", 7)
    x = interactions(40, 25)
    assert compute_gram(x, torch.device("meta")).shape == (25, 25)
    expected = x.toarray().T @ x.toarray()
    assert_allclose(inverses.add_dense_blocks(x, torch.device("cpu")).numpy(), expected, rtol=1e-5)
    assert_allclose(compute_gram(x, torch.device("cpu")).numpy(), expected, rtol=1e-5)


def test_user_weights_keep_the_total() -> None:
    x = interactions(40, 25)
    x.data[x.indptr[3] : x.indptr[4]] = 0
    x.eliminate_zeros()
    weighted = weight_users(x, 0.7)
    total = np.asarray(x.sum(axis=1)).ravel()
    weights = np.divide(np.asarray(weighted.sum(axis=1)).ravel(), total, where=total > 0, out=np.zeros(40)) ** 2
    assert (weights @ total) == pytest.approx(total.sum(), rel=1e-5)
    assert weights[3] == 0
    other = total > 0
    ratio = weights[other] * total[other] ** 0.7
    assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert weight_users(x, 0.0) is x


def test_a_gpu_must_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverses, "find_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (12 * 1000**2, 10**9))
    assert find_device_for("auto", 1000).type == find_device_for("cuda", 1000).type == "cuda"
    assert find_device_for("auto", 1001).type == "cpu"
    with monkeypatch.context() as patch:  # torch keeps what an earlier fit has freed
        patch.setattr(torch.cuda, "memory_reserved", lambda device: 300_000)
        patch.setattr(torch.cuda, "memory_allocated", lambda device: 200_000)
        assert find_device_for("auto", 1001).type == "cuda"
    with pytest.raises(ParameterError, match=r"^device is 'cuda', where 1,001 items need about 0.0 GB and 0.0 GB are"):
        find_device_for("cuda", 1001)
