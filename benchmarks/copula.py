"""Made-up users by a Gaussian copula: an item is in a history where a normal variable of its own passes a threshold.

The packages `copulas` and SDV fit column after column and are made for tens of them. This is the same model for
thousands of binary columns: thresholds by the items' popularity, tetrachoric correlations (Pearson 1900) of rank
`RANK`.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import eigh
from scipy.special import ndtri

from benchmarks.unusual import count_items
from recvae.memory import row_batches, rows_at_once

MOST_ITEMS = 4000
"""Correlated items, the most popular ones; the others are independent."""
RANK = 50
LARGEST, STEP = 0.96, 0.04
"""Of the correlations that are tried, and the size of steps on the way there."""
SHARED = 0.95
"""Largest share of an item's variance that is not its own."""

Matrix = npt.NDArray[np.float64]


def draw_by_copula(user_items: sparse.csr_matrix, n: int, generator: np.random.Generator) -> sparse.csr_matrix:
    """Fit a copula and draw n histories that are not empty."""
    counts = count_items(user_items)
    thresholds = -ndtri(counts / user_items.shape[0])
    items = np.argsort(-counts)[:MOST_ITEMS]
    items = items[(counts[items] > 0) & (counts[items] < user_items.shape[0])]
    factors = np.zeros((len(counts), RANK))
    factors[items] = _factorize(correlate(user_items[:, items], thresholds[items]))
    own = np.sqrt(1 - (factors**2).sum(axis=1))
    batches: list[sparse.csr_matrix] = []
    size = min(n, rows_at_once(8 * len(counts)))
    while sum(batch.shape[0] for batch in batches) < n:
        normal = generator.standard_normal((size, RANK)) @ factors.T
        normal += own * generator.standard_normal(normal.shape)
        drawn = sparse.csr_matrix(normal > thresholds, dtype=np.float32)
        batches.append(drawn[np.diff(drawn.indptr) > 0])
    return sparse.csr_matrix(sparse.vstack(batches, format="csr")[:n])


def correlate(user_items: sparse.csr_matrix, thresholds: Matrix) -> Matrix:
    """Tetrachoric correlation of each pair of items; what a pair has in common is smoothed by one user."""
    n_users, n_items = user_items.shape
    share = count_items(user_items) / n_users
    together = (user_items.T @ user_items).toarray().astype(np.float64)
    correlations = np.empty((n_items, n_items))
    for rows in row_batches(n_items, 8 * n_items):
        independent = np.outer(share[rows], share)
        lift = (together[rows] + 1) / (independent * n_users + 1)
        correlations[rows] = _find_correlation(thresholds[rows, None], thresholds, independent * (lift - 1))
    np.fill_diagonal(correlations, 1)
    return correlations


def _find_correlation(first: Matrix, second: Matrix, excess: Matrix) -> Matrix:
    """The correlation at which two normal variables exceed their thresholds together so much more often than alone.

    That excess is the integral of their density at the thresholds over the correlation from 0 on (Plackett 1954).
    """
    sign = np.sign(excess)
    left, found = np.abs(excess), np.zeros(excess.shape)
    squares, product = first**2 + second**2, 2 * sign * first * second
    for middle in np.arange(STEP / 2, LARGEST, STEP):
        free = 1 - middle**2
        gain = STEP * np.exp((middle * product - squares) / (2 * free)) / (2 * np.pi * np.sqrt(free))
        found += STEP * np.clip(left / np.maximum(gain, 1e-300), 0, 1)
        left = np.maximum(left - gain, 0)
    return sign * found


def _factorize(correlations: Matrix) -> Matrix:
    """The closest factors of rank `RANK`, (n_items, RANK), that leave each item some variance of its own."""
    n_items = len(correlations)
    values, vectors = eigh(correlations, subset_by_index=[max(n_items - RANK, 0), n_items - 1])
    factors = np.zeros((n_items, RANK))
    factors[:, : len(values)] = vectors * np.sqrt(np.maximum(values, 0))
    shared = (factors**2).sum(axis=1, keepdims=True)
    scaled: Matrix = factors * np.sqrt(np.minimum(1, SHARED / np.maximum(shared, 1e-12)))
    return scaled
