"""Held-out likelihood against a computation of one interaction after the other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.models.generative.held_out_likelihood import N_FOLDS, hold_out_folds, predict_held_out
from recvae.types import FloatArray

N_ITEMS = 12
WEIGHTS = np.random.default_rng(0).normal(size=(N_ITEMS, N_ITEMS)).astype(np.float32)
LOG_POPULARITY = np.log(np.arange(1, N_ITEMS + 1) / np.arange(1, N_ITEMS + 1).sum()).astype(np.float32)


def histories() -> sparse.csr_matrix:
    dense = np.random.default_rng(1).random((9, N_ITEMS)) < 0.5
    dense[0], dense[1], dense[2, 1:] = False, True, False
    dense[2, 0] = True
    return sparse.csr_matrix(dense, dtype=np.float32)


def score(user_items: sparse.csr_matrix) -> FloatArray:
    logits: FloatArray = user_items @ WEIGHTS
    return logits


def test_each_fold_is_left_out_once() -> None:
    user_items = histories()
    rest, row = hold_out_folds(user_items)
    dense, users = rest.toarray().astype(bool), user_items.nonzero()[0]
    assert rest.shape == (9 * N_FOLDS, N_ITEMS)
    assert not dense[row, user_items.indices].any()
    for user in range(9):
        own = dense[user * N_FOLDS : (user + 1) * N_FOLDS]
        assert (own.sum(axis=0) == (N_FOLDS - 1) * user_items[user].toarray()[0]).all()
    assert (row // N_FOLDS == users).all()


@pytest.mark.parametrize("size", [1, 1000])
def test_probabilities_are_those_of_the_items_that_remain(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.models.generative.held_out_likelihood.rows_at_once", lambda *_: size)
    user_items = histories()
    found = predict_held_out(score, user_items, LOG_POPULARITY)
    rest, row = hold_out_folds(user_items)
    logits, dense = score(rest).astype(np.float64), rest.toarray() > 0
    for place, (of, item) in enumerate(zip(row, user_items.indices, strict=True)):
        unseen = ~dense[of]
        for given, expected in ((logits[of], found.model), (LOG_POPULARITY.astype(np.float64), found.popularity)):
            by_hand = given[item] - np.log(np.exp(given[unseen]).sum())
            assert_allclose(expected[place], by_hand, atol=2e-4)


def test_of_one_interaction_nothing_is_left_to_predict_it_from() -> None:
    rest, row = hold_out_folds(histories()[2])
    assert rest[row[0]].nnz == 0
