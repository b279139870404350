"""`NewItemScorer` against the ridge regression of the textbook, and its stretch."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.inference.ids import IdIndex
from recvae.inference.new_items import scorer as module
from recvae.inference.new_items.new_items import find_new_items
from recvae.inference.new_items.scorer import RIDGE, NewItemScorer
from recvae.inference.rules.metadata import Metadata
from recvae.types import FloatArray

N_ITEMS, N_NEW = 2000, 40
NOTHING = sparse.csr_matrix((5, N_ITEMS + N_NEW))
"""Histories of nobody."""


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    rng = np.random.default_rng(0)
    n = N_ITEMS + N_NEW
    genres = [[f"g{i}" for i in rng.choice(6, 2, replace=False)] for _ in range(n)]
    return Metadata(pa.table({"item_id": np.arange(n), "genre": genres, "year": rng.integers(1950, 2000, n)}))


@pytest.fixture(scope="module")
def scorer(metadata: Metadata) -> NewItemScorer:
    counts = np.repeat([5, 0], [N_ITEMS, N_NEW]).astype(np.float32)
    return NewItemScorer.learn(metadata, [None] * len(metadata), counts)


def encode(scorer: NewItemScorer, metadata: Metadata, first: int = 0) -> sparse.csr_matrix:
    """Features of the items from one on."""
    items = np.arange(first, len(metadata))
    return scorer.features.encode(metadata, [None] * len(items), items)


def make_scores(scorer: NewItemScorer, metadata: Metadata, noise: float) -> FloatArray:
    """Scores of all items by the tastes of five users, with noise."""
    rng = np.random.default_rng(1)
    features = encode(scorer, metadata)
    tastes = features @ rng.normal(size=(scorer.features.n, 5))
    return (tastes.T + noise * rng.normal(size=tastes.T.shape)).astype(np.float32) - 7


def test_scores_are_a_stretched_ridge_regression(scorer: NewItemScorer, metadata: Metadata) -> None:
    scores = make_scores(scorer, metadata, noise=1)
    features = encode(scorer, metadata).toarray().astype(float)
    known, new = features[:N_ITEMS], features[N_ITEMS:]
    centred, given = known - known.mean(axis=0), scores[:, :N_ITEMS].astype(float)
    weights = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(scorer.features.n), centred.T @ given.T)
    histories = sparse.csr_matrix(np.random.default_rng(2).random((5, len(metadata))) < 0.1)
    expected = []
    for user, row in enumerate(given):
        unseen = row[~histories[[user], :N_ITEMS].toarray()[0]]
        upwards = np.sqrt(2 * np.mean(np.maximum(unseen - unseen.mean(), 0) ** 2))
        predicted = (new - known.mean(axis=0)) @ weights[:, user]
        expected.append(unseen.mean() + predicted * upwards / (centred @ weights[:, user]).std())
    found = scorer.score(scores, histories, encode(scorer, metadata, N_ITEMS))
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_new_items_are_ranked_by_the_tastes_that_made_the_scores(scorer: NewItemScorer, metadata: Metadata) -> None:
    scores = make_scores(scorer, metadata, noise=0.3)
    found = scorer.score(scores, NOTHING, encode(scorer, metadata, N_ITEMS))
    for user in range(5):
        assert np.corrcoef(found[user], scores[user, N_ITEMS:])[0, 1] > 0.8
    assert_allclose(found.std(axis=1), scores[:, :N_ITEMS].std(axis=1), rtol=0.4)


def test_what_a_model_leaves_out_counts_as_the_mean(scorer: NewItemScorer, metadata: Metadata) -> None:
    new = encode(scorer, metadata, N_ITEMS)
    scores = make_scores(scorer, metadata, noise=1)[:1]
    gaps = scores.copy()
    gaps[:, :5] = -np.inf
    filled = gaps.copy()
    filled[:, :5] = gaps[:, 5:].mean()
    assert_allclose(scorer.score(gaps, NOTHING[:1], new), scorer.score(filled, NOTHING[:1], new), rtol=1e-5)
    assert np.isfinite(scorer.score(np.full((1, len(metadata)), -np.inf, np.float32), NOTHING[:1], new)).all()


def test_equal_scores_give_new_items_the_same(scorer: NewItemScorer, metadata: Metadata) -> None:
    new = encode(scorer, metadata, N_ITEMS)
    assert_allclose(scorer.score(np.full((2, len(metadata)), 3, np.float32), NOTHING[:2], new), 3, atol=1e-4)


def test_where_nothing_is_known_nothing_is_learned(metadata: Metadata) -> None:
    scorer = NewItemScorer.learn(metadata, [None] * len(metadata), np.zeros(len(metadata), np.float32))
    assert scorer.features.n == 0
    assert find_new_items({-1: {"genre": "g0"}}, IdIndex(metadata.table["item_id"]), metadata, scorer) is None


def test_large_catalogues_are_sampled(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ITEMS", 100)
    sampled = NewItemScorer.learn(metadata, [None] * len(metadata), np.ones(len(metadata), np.float32))
    assert len(np.unique(sampled.items)) == 100
