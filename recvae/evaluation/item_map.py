"""A map of items in two dimensions: items that a model takes for alike lie close together."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recvae.evaluation.figures import COLOURS

MOST_ITEMS, FEWEST_ITEMS = 400, 20
PERPLEXITY = 15
WIDTH, HEIGHT, MARGIN = 900, 600, 10
SMALLEST, LARGEST = 2.5, 9.0
"""Radii of the rarest and of the most popular item."""


def map_items(
    vectors: npt.NDArray[np.floating[Any]], counts: npt.NDArray[np.floating[Any]], titles: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Place the most popular items by t-SNE (van der Maaten & Hinton 2008), or by PCA where scikit-learn is missing.

    Parameters
    ----------
    vectors : (n_items, size)
        Compared by their cosine.
    counts : (n_items,)
        Interactions of each item.
    titles : sequence of str
        One for each item.
    seed : int

    Returns
    -------
    dict
        `method`, and `items`: x and y from 0 to 1, count and title of each, from the most popular down. Empty where
        there are too few items for a map.
    """
    shown = np.argsort(-counts, kind="stable")[:MOST_ITEMS]
    shown = shown[counts[shown] > 0]
    if len(shown) < FEWEST_ITEMS:
        return {}
    rows = np.asarray(vectors, np.float64)[shown]
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    method, places = _place(rows, seed)
    places = (places - places.min(axis=0)) / np.maximum(np.ptp(places, axis=0), 1e-12)
    items = [
        [round(float(x), 3), round(float(y), 3), int(counts[item]), str(titles[item])]
        for (x, y), item in zip(places, shown, strict=True)
    ]
    return {"method": method, "items": items}


def render_item_map(item_map: Mapping[str, Any]) -> str:
    """Render a map as an `<svg>` element; a title appears under the mouse."""
    largest = max(count for _, _, count, _ in item_map["items"])
    circles = "".join(
        f'<circle cx="{_scale(x, WIDTH)}" cy="{_scale(1 - y, HEIGHT)}" '
        f'r="{max(SMALLEST, LARGEST * (count / largest) ** 0.5):.1f}">'
        f"<title>{html.escape(title)} ({count:,} interactions)</title></circle>"
        for x, y, count, title in item_map["items"]
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="Map of items" '
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
