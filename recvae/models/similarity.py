"""Similar items and similar users, by the cosine of a model's vectors."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import check_csr
from recvae.errors import ItemIndexError, NotFittedError, ParameterError, UnsupportedError, shorten
from recvae.memory import row_batches
from recvae.models import hyperparameters as check
from recvae.topn import top_n
from recvae.types import FloatArray, IntArray, UserItems

Vectors = npt.NDArray[np.float32] | sparse.csr_matrix


class SimilaritySearch:
    """Base of `Recommender`: finds similar items and users, and checks the arguments of such calls.

    Attributes
    ----------
    item_counts_ : (n_items,) float32
        Interactions of each item in training.
    """

    item_counts_: npt.NDArray[np.float32]

    @property
    def n_items_(self) -> int:
        """Number of items the model was trained on; `NotFittedError` before that."""
        if not hasattr(self, "item_counts_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit first")
        return len(self.item_counts_)

    def similar_items(
        self,
        itemid: int | npt.ArrayLike,
        N: int = 10,  # noqa: N803 implicit's name
        recalculate_item: bool = False,
        item_users: UserItems | None = None,
        filter_items: npt.ArrayLike | None = None,
        items: npt.ArrayLike | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Find the N items most similar to one item or to many, by the cosine of their vectors.

        An item comes first in its own list. Items without interactions in training are never listed and have no similar
        items, since nothing is known of them.

        The parameters are those of `implicit`. `recalculate_item` and `item_users` are refused, since no model here
        computes an item's vector from its users after training.

        Returns
        -------
        (ids, scores) : int32 and float32, shape (N,) or (n_itemids, N)

        Raises
        ------
        UnsupportedError
            If the model has no item vectors, or `recalculate_item` is asked for.
        """
        if recalculate_item or item_users is not None:
            raise UnsupportedError(f"{type(self).__name__} cannot recalculate items")
        check_request(N, items, filter_items)
        queries = self._check_items(itemid, "itemid", unique=False)
        unknown = self.item_counts_ == 0
        left_out = np.full(self.n_items_, items is not None)
        left_out[self._check_items(items, "items")] = False
        left_out |= unknown
        left_out[self._check_items(filter_items, "filter_items")] = True
        ids = np.empty((len(queries), N), dtype=np.int32)
        best = np.empty((len(queries), N), dtype=np.float32)
        for batch in row_batches(len(queries), 4 * self.n_items_):
            scores = self._item_similarity(queries[batch])
            scores[:, left_out] = -np.inf
            scores[unknown[queries[batch]]] = -np.inf
            ids[batch], best[batch] = top_n(scores, N)
        return (ids[0], best[0]) if np.ndim(itemid) == 0 else (ids, best)

    def compare_items(self, items: npt.ArrayLike) -> FloatArray:
        """Compare some items with each other, by the cosine of their vectors.

        Parameters
        ----------
        items : (m,) int

        Returns
        -------
        (m, m) float32
            0 where an item has no vector.

        Raises
        ------
        UnsupportedError
            If the model has no item vectors.
        """
        rows = self._check_items(items, "items", unique=False)
        if type(self)._item_similarity is SimilaritySearch._item_similarity:  # without looking at all other items
            cosines = _compute_cosines(self._item_vectors()[rows], np.arange(len(rows)))
        else:
            cosines = self._item_similarity(rows)[:, rows]
        cosines[np.isneginf(cosines)] = 0
        return cosines

    def similar_users(
        self,
        userid: int | npt.ArrayLike,
        N: int = 10,  # noqa: N803 implicit's name
        filter_users: npt.ArrayLike | None = None,
        users: npt.ArrayLike | None = None,
        user_items: UserItems | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Find the N users most similar to one user or to many, by the cosine of their vectors.

        A user comes first in their own list.

        Parameters
        ----------
        userid : int or (n_queries,) int
            Rows of `user_items`, or of the training matrix for models that store their users.
        N : int
        filter_users, users : (m,) int, optional
            Users to leave out, or the only users to list.
        user_items : csr_matrix or csr_array, shape (n_users, n_items), optional
            The histories of all users; models that do not store users need it.

        Returns
        -------
        (ids, scores) : int32 and float32, shape (N,) or (n_queries, N)

        Raises
        ------
        UnsupportedError
            If the model has no user vectors, stores none and `user_items` is missing, or stores them and it is given.
        ParameterError
            If a user is not among the rows.
        """
        check_request(N, users, filter_users)
        self.n_items_  # noqa: B018 refuses before fit
        vectors = self._user_vectors(None if user_items is None else self._check_histories(user_items))
        queries = check_rows(userid, "userid", len(vectors))
        left_out = np.full(len(vectors), users is not None)
        left_out[check_rows(users, "users", len(vectors))] = False
        left_out[check_rows(filter_users, "filter_users", len(vectors))] = True
        ids = np.empty((len(queries), N), dtype=np.int32)
        best = np.empty((len(queries), N), dtype=np.float32)
        for batch in row_batches(len(queries), 4 * len(vectors)):
            scores = _compute_cosines(vectors, queries[batch])
            scores[:, left_out] = -np.inf
            ids[batch], best[batch] = top_n(scores, N)
        return (ids[0], best[0]) if np.ndim(userid) == 0 else (ids, best)

    def _user_vectors(self, user_items: sparse.csr_matrix | None) -> npt.NDArray[np.float32]:
        raise UnsupportedError(f"{type(self).__name__} has no user vectors to compare users by")

    def _item_vectors(self) -> Vectors:
        raise UnsupportedError(f"{type(self).__name__} has no item vectors to compare items by")

    def _item_similarity(self, queries: npt.NDArray[np.int64]) -> FloatArray:
        """Cosine of each query's vector with all items', (n_queries, n_items); -inf for items without a vector."""
        return _compute_cosines(self._item_vectors(), queries)

    def _check_histories(self, user_items: UserItems) -> sparse.csr_matrix:
        histories = check_csr(user_items, "user_items")
        if histories.shape[1] != self.n_items_:
            raise ParameterError(
                f"user_items has {histories.shape[1]:,} columns but the model was trained on {self.n_items_:,} items"
            )
        return histories

    def _check_items(self, items: npt.ArrayLike | None, name: str, unique: bool = True) -> npt.NDArray[np.int64]:
        indices = check_indices([] if items is None else items, name)
        outside = indices[(indices < 0) | (indices >= self.n_items_)]
        if len(outside):
            raise ItemIndexError(f"{name} holds {outside[0]}; expected 0 to {self.n_items_ - 1:,}")
        return np.unique(indices) if unique else indices


def check_request(n: int, items: npt.ArrayLike | None, filter_items: npt.ArrayLike | None) -> None:
    """Check the length of a list and the items to list or to leave out."""
    check.whole("N", n)
    if items is not None and filter_items is not None:
        raise ParameterError("items and filter_items cannot be given together")


def check_indices(given: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    """Check whole numbers, one or several, (n,); masks and fractions would be read as numbers that nobody meant."""
    try:
        indices = np.atleast_1d(np.asarray(given))
        whole = (
            not indices.size or indices.dtype.kind in "iu" or (indices.dtype.kind == "f" and not (indices % 1).any())
        )
    except ValueError:  # lists of different lengths
        indices, whole = np.empty(0), False
    if not whole or indices.ndim > 1:
        raise ParameterError(f"{name} is {shorten(given)}; expected a whole number or a row of them")
    return indices.astype(np.int64)


def check_rows(indices: npt.ArrayLike | None, name: str, n_rows: int) -> npt.NDArray[np.int64]:
    """Check row numbers from 0 to `n_rows` - 1."""
    rows = check_indices([] if indices is None else indices, name)
    if len(rows) and not (rows.min() >= 0 and rows.max() < n_rows):
        raise ParameterError(f"{name} holds {rows.min()} to {rows.max()}; expected 0 to {n_rows - 1:,}")
    return rows


def divide_by_lengths(
    products: npt.NDArray[Any], lengths: npt.NDArray[Any], queries: npt.NDArray[np.int64]
) -> FloatArray:
    """Turn inner products into cosines, (n_queries, n_vectors) float32; -inf where one is zero or a product is NaN.

    A vector is always most similar to itself: all other cosines are kept below 1, which rounding or an equal vector
    could reach.

    Parameters
    ----------
    products : (n_queries, n_vectors)
    lengths : (n_vectors,)
    queries : (n_queries,) int
        Which vector is multiplied in each row.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine: FloatArray = (products / lengths[queries, None] / lengths).astype(np.float32)
    np.minimum(cosine, np.nextafter(np.float32(1), np.float32(0)), out=cosine)
    itself = np.arange(len(queries)), queries
    cosine[itself] = np.where(np.isfinite(cosine[itself]), np.float32(1), -np.inf)
    cosine[~np.isfinite(cosine)] = -np.inf
    return cosine


def _compute_cosines(vectors: Vectors, queries: npt.NDArray[np.int64]) -> FloatArray:
    """Compute the cosine of each query's vector with all vectors, (n_queries, n_vectors); -inf where one is zero."""
    if sparse.issparse(vectors):
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        return divide_by_lengths((vectors[queries] @ vectors.T).toarray(), lengths, queries)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return divide_by_lengths(vectors[queries] @ vectors.T, lengths, queries)
