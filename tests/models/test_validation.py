"""Users held out of a training matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from recvae.models.als import ALS
from recvae.models.item_knn import CosineKNN
from recvae.models.validation import FEWEST_USERS, hold_out_users


def matrix(lengths: list[int], seed: int = 0) -> sparse.csr_matrix:
    """Users with that many interactions among 30 items, each with a weight of its own."""
    rng = np.random.default_rng(seed)
    x = np.zeros((len(lengths), 30), dtype=np.float32)
    for row, length in zip(x, lengths, strict=True):
        row[rng.choice(30, length, replace=False)] = rng.uniform(0.5, 2.0, length)
    return sparse.csr_matrix(x)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 30), min_size=60, max_size=150), st.integers(0, 2**32 - 1))
def test_a_fifth_of_the_users_and_of_their_interactions(lengths: list[int], seed: int) -> None:
    user_items = matrix(lengths)
    eligible = sum(length >= 5 for length in lengths)
    found = hold_out_users(user_items, seed)
    if eligible < FEWEST_USERS:
        assert found is None
        return
    assert found is not None
    train, (fold_in, held_out) = found
    assert fold_in.shape == held_out.shape == (eligible // 5, 30)
    assert train.shape == (len(lengths) - eligible // 5, 30)
    n_held_out = np.diff(held_out.indptr)
    lost = np.diff(fold_in.indptr) + n_held_out
    assert lost.min() >= 5
    assert_array_equal(n_held_out, lost // 5)
    assert fold_in.multiply(held_out).nnz == 0
    # Every user's interactions are still there, with their weights, once.
    together = np.vstack([train.toarray(), (fold_in + held_out).toarray()])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, user_items.toarray().tolist()))


def test_the_seed_decides() -> None:
    user_items = matrix([12] * 100)

    def drawn(seed: int) -> list[list[float]]:
        found = hold_out_users(user_items, seed)
        assert found is not None
        rows: list[list[float]] = found[1][1].toarray().tolist()
        return rows

    assert drawn(1) == drawn(1) != drawn(2)


def test_there_are_at_most_a_thousand() -> None:
    found = hold_out_users(sparse.csr_matrix(np.ones((6000, 5), dtype=np.float32)))
    assert found is not None
    assert found[0].shape[0] == 5000
    assert found[1][0].shape[0] == found[1][1].nnz == 1000


@pytest.mark.parametrize("lengths", [[5] * 49, [4] * 1000])
def test_nobody_is_held_out_of_a_small_matrix(lengths: list[int]) -> None:
    assert hold_out_users(matrix(lengths)) is None


def test_nothing_is_chosen_where_the_first_users_have_nothing_to_find() -> None:
    train, fold_in = matrix([8] * 60), matrix([5] * 1010)
    held_out = sparse.csr_matrix((np.ones(5, np.float32), (np.arange(1005, 1010), np.full(5, 3))), shape=(1010, 30))
    neighbours = CosineKNN().fit(train, show_progress=False, validation=(fold_in, held_out))
    assert neighbours.settings_ == {"K": 20}
    als = ALS(factors=3).fit(train, show_progress=False, validation=(fold_in, held_out))
    assert als.regularization_ == als._rule(train)
