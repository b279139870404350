"""Maps: alike is near, whatever the library; hostile titles stay text."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from recvae.evaluation.maps import MOST_ITEMS, choose_popular, place_points, render_map
from tests.contracts import one_thread as one_thread

pytestmark = pytest.mark.usefixtures("one_thread")

N_ITEMS, N_KINDS = 60, 3
COUNTS = np.arange(N_ITEMS, 0, -1).astype(np.float32)
TITLES = [f"kind {item % N_KINDS} <b>" for item in range(N_ITEMS)]


def vectors() -> np.ndarray:
    """Three directions with noise, and lengths that say nothing."""
    generator = np.random.default_rng(0)
    directions = np.eye(N_KINDS, 8)[np.arange(N_ITEMS) % N_KINDS] + 0.1 * generator.normal(size=(N_ITEMS, 8))
    return directions * generator.uniform(0.5, 5, (N_ITEMS, 1))


@pytest.mark.parametrize("method", ["t-SNE", "PCA"])
def test_items_of_a_kind_lie_together(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "PCA":
        monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    placed = place_points(vectors(), COUNTS, TITLES)
    assert placed["method"] == method
    places = np.array([[x, y] for x, y, *_ in placed["points"]])
    kinds = np.array([title for *_, title in placed["points"]])
    assert places.min() == 0
    assert places.max() == 1
    distances = ((places[:, None] - places) ** 2).sum(axis=2) + 9 * np.eye(N_ITEMS)
    assert np.mean(kinds[distances.argmin(axis=1)] == kinds) > 0.95


def test_the_most_popular_items_come_first_and_unknown_ones_never() -> None:
    counts = np.concatenate([np.arange(500), np.zeros(2)])
    chosen = choose_popular(counts)
    assert len(chosen) == MOST_ITEMS
    assert all(first > second for first, second in pairwise(counts[chosen]))
    assert choose_popular(counts[-4:]).tolist() == [1, 0]


def test_too_few_points_make_no_map() -> None:
    assert place_points(vectors()[:10], COUNTS[:10], TITLES[:10]) == {}


def test_titles_are_text() -> None:
    svg = render_map(place_points(vectors(), COUNTS, TITLES), "Map <i>")
    assert svg.count("<circle") == N_ITEMS
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "<title>kind 0 &lt;b&gt; (60 interactions)</title>" in svg
    assert 'r="9.0"' in svg
