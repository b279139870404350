"""Histories drawn without replacement, and those that one would draw who knows the items' popularity only."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.memory import row_batches
from recvae.types import FloatArray

Lengths = npt.NDArray[np.int64]


def draw_items(logits: FloatArray, lengths: Lengths, generator: np.random.Generator) -> sparse.csr_matrix:
    """Draw items without replacement, each history by the softmax of its row.

    Parameters
    ----------
    logits : (n_users, n_items)
        Overwritten. An item of infinity is drawn first, one of minus infinity last.
    lengths : (n_users,)
        Items of each history, at most n_items.
    generator : Generator

    Returns
    -------
    csr_matrix, float32, shape (n_users, n_items)
    """
    # The largest of logits + Gumbel noise are a sample without replacement (Vieira 2014).
    logits -= np.log(generator.standard_exponential(logits.shape, dtype=np.float32) + np.finfo(np.float32).tiny)
    return take_best(logits, lengths)


def draw_by_popularity(user_items: sparse.csr_matrix, counts: npt.NDArray[Any], seed: int = 0) -> sparse.csr_matrix:
    """Draw a history as long as each given one, of items by their popularity.

    Parameters
    ----------
    user_items : csr_matrix, shape (n_users, n_items)
    counts : (n_items,)
        Interactions of each item.
    seed : int
    """
    return sparse.csr_matrix(sparse.vstack(list(_draw_batches(np.diff(user_items.indptr), counts, seed)), format="csr"))


def _draw_batches(lengths: npt.NDArray[np.int32], counts: npt.NDArray[Any], seed: int) -> Iterator[sparse.csr_matrix]:
    generator = np.random.default_rng(seed)
    with np.errstate(divide="ignore"):
        logits = np.log(counts, dtype=np.float32)
    for rows in row_batches(len(lengths), 4 * len(counts)):
        some = lengths[rows].astype(np.int64)
        yield draw_items(np.tile(logits, (len(some), 1)), some, generator)


def take_best(keys: FloatArray, lengths: Lengths) -> sparse.csr_matrix:
    """A row of ones for each row of keys, at as many of its largest entries as asked for."""
    n_items = keys.shape[1]
    items = [
        np.sort(np.argpartition(row, n_items - length)[n_items - length :])
        for row, length in zip(keys, lengths, strict=True)
    ]
    indptr = np.append(0, np.cumsum(lengths))
    return sparse.csr_matrix((np.ones(indptr[-1], np.float32), np.concatenate(items), indptr), shape=keys.shape)
