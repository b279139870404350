from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from scipy import sparse

from recvae.topn import mask_seen, top_n
from recvae.types import Scores

NONE = -np.inf

Kind = Callable[[npt.NDArray[np.float32]], Scores]
each_kind = pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda scores: np.array(scores, order="F")])


def literal_top_n(row: npt.NDArray[np.float32], n: int) -> tuple[list[int], list[float]]:
    order = [item for item in np.lexsort((np.arange(len(row)), -row)) if row[item] > -np.inf][:n]
    padding = n - len(order)
    return [int(item) for item in order] + [-1] * padding, [float(row[item]) for item in order] + [NONE] * padding


@pytest.mark.parametrize(
    ("row", "n", "ids", "scores"),
    [
        ([1, 3, 2], 2, [1, 2], [3, 2]),
        ([1, 3, 2], 3, [1, 2, 0], [3, 2, 1]),
        ([1, 3, 2], 5, [1, 2, 0, -1, -1], [3, 2, 1, NONE, NONE]),
        ([2, 2, 2], 2, [0, 1], [2, 2]),
        ([5, 1, 7, 7, 1, 7], 2, [2, 3], [7, 7]),
        ([5, 1, 7, 7, 1, 7], 5, [2, 3, 5, 0, 1], [7, 7, 7, 5, 1]),
        ([NONE, 1, NONE], 2, [1, -1], [1, NONE]),
        ([NONE, NONE], 2, [-1, -1], [NONE, NONE]),
        ([0.0, -0.0, 0.0], 2, [0, 1], [0, 0]),
        ([-3, -1, -2], 1, [1], [-1]),
        ([4], 0, [], []),
        ([], 2, [-1, -1], [NONE, NONE]),
    ],
)
@each_kind
def test_by_hand(kind: Kind, row: list[float], n: int, ids: list[int], scores: list[float]) -> None:
    found_ids, found_scores = top_n(kind(np.array([row], dtype=np.float32)), n)
    assert found_ids.dtype == np.int32
    assert found_scores.dtype == np.float32
    assert_array_equal(found_ids, np.array([ids], dtype=np.int32).reshape(1, n))
    assert_array_equal(found_scores, np.array([scores], dtype=np.float32).reshape(1, n))


@each_kind
def test_no_rows(kind: Kind) -> None:
    ids, scores = top_n(kind(np.empty((0, 4), dtype=np.float32)), 3)
    assert ids.shape == scores.shape == (0, 3)


@given(
    scores=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 12)),
        elements=st.sampled_from([NONE, -1.5, 0.0, 1.0, 1.0000001, 3.0]),
    ),
    n=st.integers(1, 15),
)
@each_kind
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equals_a_stable_sort(kind: Kind, scores: npt.NDArray[np.float32], n: int) -> None:
    before = scores.copy()
    ids, best = top_n(kind(scores), n)
    for row, found_ids, found_scores in zip(scores, ids, best, strict=True):
        expected_ids, expected_scores = literal_top_n(row, n)
        assert found_ids.tolist() == expected_ids
        assert found_scores.tolist() == expected_scores
    assert_array_equal(scores, before)


@each_kind
@pytest.mark.parametrize("n", [1, 20, 100])
def test_wide_rows_of_many_ties(n: int, kind: Kind) -> None:
    rng = np.random.default_rng(n)
    scores = rng.integers(0, 40, size=(30, 3000)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = NONE
    ids, best = top_n(kind(scores), n)
    for row, found_ids, found_scores in zip(scores, ids, best, strict=True):
        assert (found_ids.tolist(), found_scores.tolist()) == literal_top_n(row, n)


@each_kind
def test_mask_seen_marks_each_rows_own_items(kind: Kind) -> None:
    scores = kind(np.arange(12, dtype=np.float32).reshape(3, 4))
    mask_seen(scores, sparse.csr_matrix(([1, 1, 1], ([0, 0, 2], [1, 3, 0])), shape=(3, 4)))
    assert_array_equal(np.asarray(scores), [[0, NONE, 2, NONE], [4, 5, 6, 7], [NONE, 9, 10, 11]])


@each_kind
@pytest.mark.parametrize("levels", [3, 50, 10**6])
@pytest.mark.parametrize("n_columns", [5_000, 5_056, 5_120])
def test_long_rows(n_columns: int, levels: int, kind: Kind) -> None:
    generator = np.random.default_rng(levels)
    scores = generator.integers(levels, size=(20, n_columns)).astype(np.float32)
    scores[generator.random(scores.shape) < 0.3] = -np.inf
    scores[0], scores[1, 7:] = -np.inf, -np.inf
    ids, best = top_n(kind(scores), 10)
    order = np.lexsort((np.broadcast_to(np.arange(n_columns), scores.shape), -scores), axis=1)[:, :10]
    expected = np.take_along_axis(scores, order, axis=1)
    assert_array_equal(best, expected)
    assert_array_equal(ids, np.where(np.isfinite(expected), order, -1))
