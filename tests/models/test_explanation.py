"""Explanations in steps: the same as at once, and no step longer than a few milliseconds of work."""

import numpy as np
import pytest

from recvae.models import explanation
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from tests.contracts import random_interactions


@pytest.mark.parametrize("interactions_a_step", [1, 30, 10**6])
def test_steps_change_nothing(monkeypatch: pytest.MonkeyPatch, interactions_a_step: int) -> None:
    interactions = random_interactions()
    model = EASE().fit(interactions, show_progress=False)
    history = interactions[:1]
    expected = model.explain(0, history, [0, 3], N=4)
    monkeypatch.setattr(explanation, "INTERACTIONS_A_STEP", interactions_a_step)
    steps = model.explain_in_steps(history, [0, 3], 4)
    n_steps = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            ids, lost = stop.value
            break
        n_steps += 1
    assert n_steps == -(-history.nnz // max(1, interactions_a_step // history.nnz))
    assert ids.tolist() == expected[0].tolist()
    np.testing.assert_allclose(lost, expected[1], rtol=1e-5)


def test_an_empty_history_has_no_reasons() -> None:
    interactions = random_interactions()
    model = Popularity().fit(interactions, show_progress=False)
    empty = interactions[:1].copy()
    empty.data[:] = 0
    empty.eliminate_zeros()
    assert model.explain(0, empty, [1])[0].tolist() == [[-1] * 5]
