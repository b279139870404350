"""Reasons for scores: what an item's score loses when an item of the history is left out."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import check_csr
from recvae.errors import ParameterError
from recvae.models.similarity import SimilaritySearch, check_request, check_rows
from recvae.topn import top_n
from recvae.types import FloatArray, IntArray, UserItems

INTERACTIONS_A_STEP = 4096
"""Interactions that are scored between two yields: a few milliseconds of work."""

Explanation = tuple[IntArray, FloatArray]
ExplanationSteps = Generator[None, None, Explanation]


class Explainer(SimilaritySearch):
    """Base of `Recommender`: explains the scores of items."""

    @abstractmethod
    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        """Score every item for each history.

        An empty history, for which `score` gives the popularity prior instead, comes only from `explain`.

        Returns
        -------
        (n_users, n_items) float32
            A new array, which the caller may change.
        """

    @abstractmethod
    def score_items(self, user_items: UserItems, items: npt.ArrayLike) -> FloatArray:
        """(n_users, m) scores of some items for each history."""

    def explain(
        self,
        userid: int | UserItems,
        user_items: UserItems | int | npt.ArrayLike,
        itemid: int | npt.ArrayLike | None = None,
        N: int = 5,  # noqa: N803 implicit's name
    ) -> tuple[IntArray, FloatArray]:
        """Find the items of a history whose removal lowers an item's score most.

        Parameters
        ----------
        userid : int
            Row of `user_items`, which does not matter where that has one row.
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
            Histories, of which one is explained.
        itemid : int or (n_itemids,) int
            The items whose scores are to be explained.
        N : int

        Returns
        -------
        (ids, contributions) : int32 and float32, shape (N,) or (n_itemids, N)
            The loss of score without each item, largest first; padded with -1 and -inf.
        """
        history, items, length = explained_arguments(userid, user_items, itemid, N)
        ids, most = finish(self.explain_in_steps(history, items, length))
        return (ids[0], most[0]) if np.ndim(items) == 0 else (ids, most)

    def explain_in_steps(self, user_items: UserItems, itemid: npt.ArrayLike, n: int = 5) -> ExplanationSteps:
        """`explain` as a generator, which yields every few milliseconds; its result has a row for each item."""
        check_request(n, None, None)
        history = self._check_histories(user_items)
        if history.shape[0] != 1:
            raise ParameterError(f"user_items has {history.shape[0]} rows; expected the one history to explain")
        items = self._check_items(itemid, "itemid", unique=False)

        # One interaction leaves an empty history, whose popularity prior is on another scale: there the model is asked.
        def score(rows: sparse.csr_matrix) -> FloatArray:
            return self._score_histories(rows)[:, items] if history.nnz == 1 else self.score_items(rows, items)

        return (yield from explain_in_steps(history, score, n))


def explain_in_steps(
    history: sparse.csr_matrix, score: Callable[[sparse.csr_matrix], FloatArray], n: int
) -> ExplanationSteps:
    """Find the items of a history whose removal lowers scores most; yield after each few milliseconds of work.

    The cost grows with the square of the history, so that a caller who serves others wants to do something in between.

    Parameters
    ----------
    history : csr_matrix, shape (1, n_items)
    score : callable
        Scores of the explained items for histories, shape (n_users, n_itemids).
    n : int

    Returns
    -------
    (ids, contributions) : int32 and float32, shape (n_itemids, n)
        The loss of score without each item, largest first; padded with -1 and -inf.
    """
    whole = score(history)
    lost = np.empty((history.nnz, whole.shape[1]), dtype=np.float32)
    size = max(1, INTERACTIONS_A_STEP // max(1, history.nnz))
    for start in range(0, history.nnz, size):
        places = np.arange(start, min(start + size, history.nnz))
        lost[places] = whole - score(_leave_out(history, places))
        yield
    order, most = top_n(lost.T, n)
    return np.append(history.indices, np.int32(-1))[order], most  # place -1 is padding


def explained_arguments(userid: Any, user_items: Any, itemid: Any, n: int) -> tuple[Any, Any, int]:
    """Return the one history, the items and the length that `Recommender.explain` was called with.

    The order (user_items, itemid, N) of version 0.1 is taken too, with a warning.

    Raises
    ------
    ParameterError
        If the history or the items are missing, or the user is none of the rows.
    """
    if sparse.issparse(userid):
        warnings.warn(
            "explain(user_items, itemid) is now explain(userid, user_items, itemid), as in implicit; the former order "
            "ends with the next version",
            DeprecationWarning,
            stacklevel=3,
        )
        return userid, user_items, n if itemid is None else itemid
    if itemid is None or not sparse.issparse(user_items):
        raise ParameterError(
            f"user_items is a {type(user_items).__name__} and itemid is {itemid!r}; "
            "expected a scipy CSR matrix and items"
        )
    histories = check_csr(user_items, "user_items")
    if histories.shape[0] > 1:
        histories = histories[check_rows(userid, "userid", histories.shape[0])]
    return histories, itemid, n


def finish(steps: ExplanationSteps) -> Explanation:
    """Run all steps and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Explanation = stop.value
            return result


def _leave_out(history: sparse.csr_matrix, places: npt.NDArray[np.int64]) -> sparse.csr_matrix:
    """Return the history once for each place, without the interaction at that place."""
    others = np.arange(history.nnz) != places[:, None]
    kept, values = (np.tile(array, (len(places), 1))[others] for array in (history.indices, history.data))
    indptr = np.arange(len(places) + 1) * (history.nnz - 1)
    return sparse.csr_matrix((values, kept, indptr), shape=(len(places), history.shape[1]))
