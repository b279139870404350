"""Likelihood of each interaction of a history given the others: folds of the history, each predicted from the rest."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.memory import rows_at_once
from recvae.topn import mask_seen
from recvae.types import FloatArray

N_FOLDS = 5
"""Folds that a history is cut into; one of fewer interactions has a fold for each of them."""
FEWEST_USERS = 7
"""Users that are scored at a time, at least, each with a row for each fold."""

Score = Callable[[sparse.csr_matrix], FloatArray]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOutLikelihood:
    """Logarithms of the probabilities of all interactions of some histories, in the order of the matrix.

    Both are of the next item, which is none of those that the fold was predicted from.

    Attributes
    ----------
    model : (n_interactions,) float64
        By the model, which has seen the rest of the history.
    popularity : (n_interactions,) float64
        By the item's share of the training interactions.
    """

    model: Vector
    popularity: Vector


def predict_held_out(score: Score, user_items: sparse.csr_matrix, log_popularity: FloatArray) -> HeldOutLikelihood:
    """Predict each interaction from the other folds of its history.

    Parameters
    ----------
    score : callable
        From histories, (n_users, n_items), to logits of a softmax over all items, which may be overwritten.
    user_items : csr_matrix, shape (n_users, n_items)
    log_popularity : (n_items,)
        Logarithm of each item's share of the interactions.
    """
    model, popularity = np.empty(user_items.nnz), np.empty(user_items.nnz)
    share = np.exp(log_popularity, dtype=np.float64)
    size = rows_at_once(4 * N_FOLDS * user_items.shape[1], FEWEST_USERS)
    for start in range(0, user_items.shape[0], size):
        first, last = user_items.indptr[[start, min(start + size, user_items.shape[0])]]
        histories = user_items[start : start + size]
        rest, row = hold_out_folds(histories)
        model[first:last] = _log_softmax(score(rest), rest, row, histories.indices)
        left = 1 - np.add.reduceat(np.append(share[rest.indices], 0), rest.indptr[:-1]) * (np.diff(rest.indptr) > 0)
        # Where a history holds all items but one, rounding may leave nothing for that one.
        log_left = np.log(np.maximum(left, share.min()))
        popularity[first:last] = log_popularity[histories.indices] - log_left[row]
    return HeldOutLikelihood(model, popularity)


def hold_out_folds(user_items: sparse.csr_matrix) -> tuple[sparse.csr_matrix, npt.NDArray[np.int64]]:
    """Leave each fold out of its history.

    A history's interactions, in the order of the items, are dealt out to the folds in turn, so that what is predicted
    does not depend on chance or on other users.

    Returns
    -------
    (rest, row)
        csr_matrix, shape (n_users · N_FOLDS, n_items), each history `N_FOLDS` times, without one fold each time; and
        (n_interactions,) the row of `rest` that lacks the interaction.
    """
    n_users = user_items.shape[0]
    users = np.repeat(np.arange(n_users), np.diff(user_items.indptr))
    row = users * N_FOLDS + (np.arange(user_items.nnz) - user_items.indptr[users]) % N_FOLDS
    repeated = user_items[np.repeat(np.arange(n_users), N_FOLDS)]
    rows = np.repeat(np.arange(n_users * N_FOLDS), np.diff(repeated.indptr))
    fold = (np.arange(repeated.nnz) - repeated.indptr[rows]) % N_FOLDS
    kept = fold != rows % N_FOLDS
    indptr = np.append(0, np.cumsum(np.bincount(rows[kept], minlength=repeated.shape[0])))
    return sparse.csr_matrix((repeated.data[kept], repeated.indices[kept], indptr), shape=repeated.shape), row


def _log_softmax(
    logits: FloatArray, seen: sparse.csr_matrix, row: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
) -> Vector:
    """Log probability of one item of a row for each pair, where the row's seen items have none; logits are lost."""
    own = logits[row, items].astype(np.float64)
    mask_seen(logits, seen)
    largest = logits.max(axis=1)
    largest[~np.isfinite(largest)] = 0  # of a history of all items, of which no fold is left to be predicted
    logits -= largest[:, None]
    np.exp(logits, out=logits)
    with np.errstate(divide="ignore"):
        normaliser = largest + np.log(logits.sum(axis=1, dtype=np.float64))
    log_probability: Vector = own - normaliser[row]
    return log_probability
