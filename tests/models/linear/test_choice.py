"""Coordinate search over settings, and the lists that it is guided by."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from recvae.models.linear import choice
from recvae.models.linear.choice import choose, keep_comparable, measure_lists


@given(st.lists(st.floats(allow_infinity=False), min_size=24, max_size=24))
def test_no_change_of_one_setting_is_better(qualities: list[float]) -> None:
    table = np.reshape(qualities, (2, 3, 4))
    asked: list[tuple[int, ...]] = []

    def measure(values: dict[str, Any]) -> float:
        asked.append(tuple(values.values()))
        return float(table[asked[-1]])

    candidates = {"a": range(2), "b": range(3), "c": range(4)}
    best = tuple(choose(candidates, measure).values())
    known = np.where(np.isnan(table), -np.inf, table)
    assert known[best] >= known[0, 0, 0]
    assert known[best] == max(
        known[best[0], best[1]].max(), known[best[0], :, best[2]].max(), known[:, *best[1:]].max()
    )
    assert len(asked) == len(set(asked))


def test_equal_qualities_change_nothing() -> None:
    assert choose({"a": (3, 1, 2), "b": ("x", "y")}, lambda values: 0.5) == {"a": 3, "b": "x"}


def test_nothing_is_measured_without_a_choice() -> None:
    assert choose({"a": [3], "b": ["x"]}, lambda values: 1 / 0) == {"a": 3, "b": "x"}


def test_users_who_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    fold_in = sparse.csr_matrix(np.array([[1, 0], [0, 0], [1, 1], [1, 0], [0, 1]], dtype=np.float32))
    held_out = sparse.csr_matrix(np.array([[0, 1], [1, 1], [0, 0], [0, 1], [1, 0]], dtype=np.float32))
    found = keep_comparable(fold_in, held_out)
    assert found is not None
    assert_array_equal(found[0].toarray(), fold_in[[0, 3, 4]].toarray())
    assert_array_equal(found[1].toarray(), held_out[[0, 3, 4]].toarray())
    monkeypatch.setattr(choice, "MOST_USERS", 2)
    found = keep_comparable(fold_in, held_out)
    assert found is not None
    assert found[0].shape == (2, 2)
    assert keep_comparable(fold_in[1:3], held_out[1:3]) is None


def test_lists_are_measured_without_what_is_known() -> None:
    fold_in = sparse.csr_matrix(np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32))
    held_out = sparse.csr_matrix(np.array([[0, 0, 1], [1, 0, 0]], dtype=np.float32))

    def score(batch: slice) -> np.ndarray:
        return np.tile(np.array([[3.0, 2.0, 1.0]], dtype=np.float32), (2, 1))[batch]

    assert measure_lists(score, (fold_in, held_out), "recall@1") == 0.5
