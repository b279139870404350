"""Draws without replacement: as long as asked for, by the softmax, and by popularity."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from recvae.models.generative.draws import draw_by_popularity, draw_items


def test_items_are_drawn_by_the_softmax_and_each_once() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    logits = np.tile(np.log(shares, dtype=np.float32), (20_000, 1))
    lengths = np.array([1, 2] * 10_000)
    drawn = draw_items(logits, lengths, np.random.default_rng(0))
    assert_array_equal(np.diff(drawn.indptr), lengths)
    assert drawn[::2].toarray().mean(axis=0) == pytest.approx(shares, abs=0.02)
    # Of two items the last one is missing with probability .5·.3/.5 + .3·.5/.7 of the pairs (0, 1) and (1, 0).
    assert 1 - drawn[1::2].toarray()[:, 2].mean() == pytest.approx(0.3 + 0.15 / 0.7, abs=0.02)


def test_popularity_draws_have_the_lengths_and_leave_unknown_items_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.memory.rows_at_once", lambda *_: 7)
    real = sparse.csr_matrix(np.tri(40, 60, dtype=np.float32))
    counts = np.append(np.full(50, 2.0), np.zeros(10))
    counts[3] = 200
    drawn = draw_by_popularity(real, counts)
    assert_array_equal(np.diff(drawn.indptr), np.diff(real.indptr))
    found = np.bincount(drawn.indices, minlength=60)
    assert found.argmax() == 3
    assert found[50:].sum() == 0
    assert_array_equal(drawn.toarray(), draw_by_popularity(real, counts).toarray())
