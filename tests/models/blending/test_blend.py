"""Blend: the search for its weights."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.data.splitting import Holdout
from recvae.models.base import Recommender, State
from recvae.models.blending.blend import Blend
from recvae.models.fit_context import FitContext
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from recvae.types import FloatArray
from tests.test_tuning import split


class Noise(Recommender):
    """Scores that know nothing of the user."""

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        del user_items, context

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        return np.random.default_rng(0).standard_normal(user_items.shape, dtype=np.float32)

    def _state(self) -> State:
        return {}

    def _restore(self, state: State) -> None:
        del state


def test_what_does_not_help_gets_no_weight() -> None:
    data = split()
    assert isinstance(data.validation, Holdout)
    model = Blend([EASE(l2=30), Noise()], metric="ndcg@10")
    model.fit(data.train, show_progress=False, validation=data.validation)
    assert_allclose(model.weights_, [1, 0], atol=0.15)


def test_the_search_holds_little_more_than_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    interactions, held_out = (sparse.csr_matrix(rng.random((400, 5000)) < 0.01, dtype=np.float32) for _ in range(2))
    models = [Noise(), Popularity(), Noise(), Popularity(), Noise(), Popularity()]
    for model in models:
        model.fit(interactions, show_progress=False)
    blend = Blend(models)
    one = 4 * 400 * 5000
    monkeypatch.setattr("recvae.models.blending.blend.FACTORS", (0.5,))
    tracemalloc.start()
    blend.fit(interactions, show_progress=False, validation=(interactions, held_out))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(models) * one < peak < (len(models) + 3) * one
