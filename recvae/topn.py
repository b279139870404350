"""Masking of seen items and selection of the N best; evaluation and serving both rank through `top_n`.

Equal scores must rank by column, so that results are the same everywhere, which rules out a bare partial sort: of
items that tie at a list's end it takes any. So a bound is found first that at least N values of the row reach. All
values that reach it, ties included, are collected, and only these few are sorted.
"""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.types import FloatArray, IntArray, Scores

if TYPE_CHECKING:
    import torch

BLOCKS = 512
"""Blocks, at least, into which the columns of an array are divided to find a bound by their maxima."""
TIES = 4
"""Values that reach the bound, as a multiple of those asked for, from which on ties are counted first."""
BLOCK, SHORTLIST = 64, 4
"""Columns of a tensor's blocks; rows of fewer than `SHORTLIST` · n blocks are searched whole."""


def mask_seen(scores: Scores, seen: sparse.csr_matrix) -> None:
    """Set the scores of every row's seen items to -inf, in place.

    Parameters
    ----------
    scores : (n_users, n_items) float32, array or tensor
    seen : csr_matrix, shape (n_users, n_items)
    """
    scores[np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr)), seen.indices] = -np.inf


def top_n(scores: Scores, n: int) -> tuple[IntArray, FloatArray]:
    """The n best columns of each row, best first; equal scores rank by column, so results are the same everywhere.

    Parameters
    ----------
    scores : (n_users, n_items) float32, array or tensor
        A tensor is searched on its device, and only the lists are copied to the host. -inf marks columns that may not
        be listed.
    n : int

    Returns
    -------
    (ids, scores) : (n_users, n) int32 and float32
        Rows with fewer than n columns that may be listed are padded with id -1 and score -inf.
    """
    n_users, n_items = scores.shape
    k = min(n, n_items)
    top_ids = np.full((n_users, n), -1, dtype=np.int32)
    top_scores = np.full((n_users, n), -np.inf, dtype=np.float32)
    if n_users and k:
        search = _search_array if isinstance(scores, np.ndarray) else _search_tensor
        top_ids[:, :k], top_scores[:, :k] = search(cast(Any, scores), k)
    top_ids[np.isneginf(top_scores)] = -1
    return top_ids, top_scores


def _search_array(scores: FloatArray, k: int) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """The k best columns of each row and their values."""
    rows, columns = _find_reaching(scores, _find_bound(scores, k), k)
    values = scores[rows, columns]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    best = np.searchsorted(rows, np.arange(len(scores)))[:, None] + np.arange(k)  # each row's first k
    return columns[best], values[best]


def _find_bound(scores: FloatArray, k: int) -> FloatArray:
    """(n_rows,) a value that at least k columns of each row reach, and few more.

    On short rows it is the k-th largest value. On long ones columns are divided into blocks, and it is the k-th largest
    of the blocks' maxima: k blocks have a maximum that reaches it, so k columns do. Finding it takes one pass over the
    row and a partition of the few maxima, instead of a partition of the whole row, which is many times slower.
    """
    n_rows, n_columns = scores.shape
    n_blocks = max(BLOCKS, 8 * k)
    depth = n_columns // n_blocks
    searched = scores
    if depth > 1:
        # Block b has the columns b, b + n_blocks, …: maxima over an axis that is not the last are vectorised. Columns
        # left over at the end are in no block, which leaves the bound true.
        searched = scores[:, : depth * n_blocks].reshape(n_rows, depth, n_blocks).max(axis=1)
    bound: FloatArray = np.partition(searched, -k, axis=1)[:, -k]
    return bound


def _find_reaching(scores: FloatArray, bound: FloatArray, k: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the values that reach their row's bound, in the order in which they lie in memory.

    Where these are many, as of scores that are mostly 0, only as many of those that equal the bound as a list has room
    for beside the larger ones, the first of the row.
    """
    limits = bound[:, None]
    reaches = scores >= limits
    if np.count_nonzero(reaches) > TIES * k * len(scores):
        equal, reaches = scores == limits, scores > limits
        room = k - np.count_nonzero(reaches, axis=1)
        reaches |= equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room[:, None])
    if reaches.flags.c_contiguous:
        rows, columns = np.divmod(np.flatnonzero(reaches), scores.shape[1])
    else:
        columns, rows = np.divmod(np.flatnonzero(reaches.T), len(scores))
    return rows, columns


def _search_tensor(scores: "torch.Tensor", k: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The k best columns of each row and their values; of rows with equal values the host sorts the best ones."""
    searched = scores.contiguous()
    best, ids = (t.cpu().numpy() for t in _largest(searched, min(k + 1, searched.shape[1])))
    # One value more than asked for shows whether the last one of the list equals one outside.
    tied = ((best[:, 1:] == best[:, :-1]) & np.isfinite(best[:, 1:])).any(axis=1)
    for row in np.flatnonzero(tied):
        values = searched[row].cpu().numpy()
        ids[row, :k] = _sort_exactly(values, best[row, k - 1], k)
        best[row, :k] = values[ids[row, :k]]
    return ids[:, :k], best[:, :k]


def _largest(scores: "torch.Tensor", k: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """The k largest values of each row and their columns, among equal ones any.

    On long rows only the k blocks of columns with the largest maxima are searched: each has a value, its maximum, that
    no value of the other blocks exceeds.
    """
    import torch  # here, because a process that only serves does without it

    n_rows, n_columns = scores.shape
    whole = n_columns - n_columns % BLOCK  # what is left over joins the candidates
    if whole < SHORTLIST * k * BLOCK:
        values, columns = torch.topk(scores, k, dim=1)
        return values, columns
    blocks = scores[:, :whole].view(n_rows, -1, BLOCK)
    _, chosen = torch.topk(blocks.amax(dim=2), k, dim=1)
    columns = (chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=scores.device)).view(n_rows, -1)
    rest = torch.arange(whole, n_columns, device=scores.device).expand(n_rows, -1)
    columns = torch.cat([columns, rest], dim=1)
    values, places = torch.topk(scores.gather(1, columns), k, dim=1)
    return values, columns.gather(1, places)


def _sort_exactly(row: FloatArray, smallest: Any, k: int) -> npt.NDArray[np.intp]:
    """The k best columns of a row, of which the k-th has the value `smallest`."""
    candidates = np.flatnonzero(row >= smallest)
    return candidates[np.lexsort((candidates, -row[candidates]))][:k]
