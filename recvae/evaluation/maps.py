"""Maps in two dimensions: items, or users, that a model takes for alike lie close together."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recvae.evaluation.figures import COLOURS

MOST_ITEMS, FEWEST_POINTS = 400, 20
PERPLEXITY = 15
WIDTH, HEIGHT, MARGIN = 900, 600, 10
SMALLEST, LARGEST = 2.5, 9.0
"""Radii of the points with the fewest and with the most interactions."""


def choose_popular(counts: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """The most popular items, most popular first; at most `MOST_ITEMS`, and none without interactions."""
    shown = np.argsort(-counts, kind="stable")[:MOST_ITEMS]
    return shown[counts[shown] > 0]


def place_points(
    vectors: npt.NDArray[np.floating[Any]], counts: npt.NDArray[Any], titles: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Place points by t-SNE (van der Maaten & Hinton 2008), or by PCA where scikit-learn is missing.

    Parameters
    ----------
    vectors : (n, size)
        Compared by their cosine.
    counts : (n,)
        Interactions of each point.
    titles : sequence of str
        One for each point.
    seed : int

    Returns
    -------
    dict
        `method`, and `points`: x and y from 0 to 1, count and title of each. Empty where there are too few points for a
        map.
    """
    if len(vectors) < FEWEST_POINTS:
        return {}
    rows = np.array(vectors, np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    method, places = _place(rows, seed)
    places = (places - places.min(axis=0)) / np.maximum(np.ptp(places, axis=0), 1e-12)
    points = [
        [round(float(x), 3), round(float(y), 3), int(count), str(title)]
        for (x, y), count, title in zip(places, counts, titles, strict=True)
    ]
    return {"method": method, "points": points}


def render_map(placed: Mapping[str, Any], label: str) -> str:
    """Render a map as an `<svg>` element; a title appears under the mouse."""
    largest = max(count for _, _, count, _ in placed["points"])
    circles = "".join(
        f'<circle cx="{_scale(x, WIDTH)}" cy="{_scale(1 - y, HEIGHT)}" '
        f'r="{max(SMALLEST, LARGEST * (count / largest) ** 0.5):.1f}">'
        f"<title>{html.escape(title)} ({count:,} interactions)</title></circle>"
        for x, y, count, title in placed["points"]
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="{html.escape(label)}" '
        f'fill="{COLOURS[0]}" fill-opacity="0.55" stroke="#fff" stroke-width="0.5">{circles}</svg>'
    )


def _place(rows: npt.NDArray[np.float64], seed: int) -> tuple[str, npt.NDArray[np.float64]]:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        centred = rows - rows.mean(axis=0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        return "PCA", u[:, :2] * s[:2]
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    return "t-SNE", TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)


def _scale(share: float, length: int) -> str:
    return f"{MARGIN + share * (length - 2 * MARGIN):.1f}"
