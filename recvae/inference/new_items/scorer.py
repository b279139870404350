"""`NewItemScorer`: scores of items that the model does not know, from its scores of those that it knows."""

from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.inference.new_items.features import ItemFeatures, Titles
from recvae.inference.rules.metadata import Metadata
from recvae.types import FloatArray

RIDGE = 100.0
"""λ, in items: a feature that so many items have is believed half."""
MOST_ITEMS = 20_000
"""Most items that scores are taken from: more make little difference to what is learned of features, but take time."""
SAMPLE = 2000
"""Items whose scores are measured for their mean and deviation."""


class NewItemScorer:
    """Ridge regression of each user's scores on the features of the items, for any model.

    A user's scores s of the known items, with features F, give the weights θ = (FᵀF + λI)⁻¹Fᵀs, F and s without their
    means, and a new item of features f has the score f·θ. For a model whose scores are products of a user's and an
    item's vector this is a ridge regression from features to item vectors, for EASE one to the columns of its weights.

    Regression draws predictions to the mean, so that no new item would ever reach the top of a list. Therefore f·θ is
    stretched, and moved to the mean of the scores of what the user does not have yet, until predictions of the known
    items deviate from their mean as these scores do upwards from theirs.

    Parameters
    ----------
    features : ItemFeatures
    matrix : csr_matrix, shape (k, n)
        Features of the items that scores are taken from.
    items : (k,) int
        Their indices.
    n_items : int
        Items of the catalogue.

    Attributes
    ----------
    sample : (at most SAMPLE,) int
        Items whose scores are measured.
    places : (n_items,) int32
        Place of each item in the sample, or -1.
    """

    def __init__(
        self, features: ItemFeatures, matrix: sparse.csr_matrix, items: npt.NDArray[np.int64], n_items: int
    ) -> None:
        self.features, self.items = features, items
        n_known = max(len(items), 1)
        self.sample = items[:: -(-n_known // SAMPLE)]
        self.places = np.full(n_items, -1, dtype=np.int32)
        self.places[self.sample] = np.arange(len(self.sample))
        ones = sparse.csr_matrix(np.ones((len(items), 1), dtype=np.float32))  # sums the scores
        found = sparse.coo_matrix(sparse.hstack([matrix, ones]))
        self._sums = sparse.csr_matrix((found.data, (found.col, items[found.row])), shape=(features.n + 1, n_items))
        means = np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel() / n_known
        self._means = means.astype(np.float32)
        covariance = (matrix.T @ matrix).toarray() - len(items) * np.outer(means, means)
        inverse = np.linalg.inv(covariance + RIDGE * np.eye(features.n))
        squares, axes = np.linalg.eigh(inverse @ covariance @ inverse / n_known)
        deviations = axes * np.sqrt(np.maximum(squares, 0))
        self._solution = np.hstack([inverse, deviations]).astype(np.float32)

    @classmethod
    def learn(cls, metadata: Metadata, titles: Titles, item_counts: npt.NDArray[np.float32]) -> Self:
        """Learn from the items of a catalogue that have interactions.

        Parameters
        ----------
        metadata : Metadata
        titles : sequence of str or None
        item_counts : (n_items,) float32
            Interactions of each item in training.
        """
        items = np.flatnonzero(item_counts > 0)
        if len(items) > MOST_ITEMS:
            items = np.sort(np.random.default_rng(0).choice(items, MOST_ITEMS, replace=False))
        titles = [titles[item] for item in items.tolist()]
        features = ItemFeatures.choose(metadata, titles, items)
        return cls(features, features.encode(metadata, titles, items), items, len(item_counts))

    def score(self, scores: FloatArray, histories: sparse.csr_matrix, new: sparse.csr_matrix) -> FloatArray:
        """Score new items for users.

        Parameters
        ----------
        scores : (n_users, n_items) float32
            The model's; -inf, where a model leaves items out, counts as the mean.
        histories : csr_matrix, shape (n_users, n_items)
        new : csr_matrix, shape (m, n)
            Features of the new items.

        Returns
        -------
        (n_users, m) float32
        """
        scores = _fill_gaps(scores)
        measured = measure_unseen(scores[:, self.sample], self.places, histories)
        return self.predict(self.multiply(scores), *measured, new)

    def multiply(self, scores: FloatArray) -> FloatArray:
        """Multiply scores of all items, without their mean, and features: Fᵀs, (n_users, n)."""
        sums = (self._sums @ scores.T).T
        products: FloatArray = sums[:, :-1] - sums[:, -1:] * self._means
        return products

    def predict(
        self, products: FloatArray, means: FloatArray, deviations: FloatArray, new: sparse.csr_matrix
    ) -> FloatArray:
        """Predict scores of new items, (n_users, m).

        Parameters
        ----------
        products : (n_users, n) float32
            See `multiply`.
        means, deviations : (n_users, 1) float32
            Of the scores of what a user does not have; see `measure_unseen`.
        new : csr_matrix, shape (m, n)
        """
        # Not by BLAS, whose threads would wait for each other longer than this takes.
        weights, predicted = np.hsplit(np.einsum("ui,ij->uj", products, self._solution), 2)
        predicted = np.sqrt(np.square(predicted).sum(axis=1, keepdims=True))
        weights = weights * np.divide(deviations, predicted, out=np.zeros_like(deviations), where=predicted > 0)
        found: FloatArray = means + (new @ weights.T).T - (weights * self._means).sum(axis=1, keepdims=True)
        return found


def measure_unseen(
    scores: FloatArray, places: npt.NDArray[np.int32], histories: sparse.csr_matrix
) -> tuple[FloatArray, FloatArray]:
    """Measure the mean and the upward deviation of each user's scores of items outside the history.

    Parameters
    ----------
    scores : (n_users, k) float32
    places : (n_items,) int32
        Column of each item in them, or -1.
    histories : csr_matrix, shape (n_users, n_items)

    Returns
    -------
    (means, deviations) : (n_users, 1) float32 each
        A deviation is that of a symmetric distribution whose upper half the scores above the mean are.
    """
    rows = np.repeat(np.arange(len(scores)), np.diff(histories.indptr))
    columns = places[histories.indices]
    rows, columns = rows[columns >= 0], columns[columns >= 0]
    n_seen = np.bincount(rows, minlength=len(scores))
    n_unseen = np.maximum(scores.shape[1] - n_seen, 1).astype(np.float32)[:, None]
    unseen = scores.copy()
    unseen[rows, columns] = 0
    means = unseen.sum(axis=1, keepdims=True) / n_unseen
    unseen[rows, columns] = means[rows, 0]
    upwards = np.maximum(unseen - means, 0)
    return means, np.sqrt(2 * np.square(upwards).sum(axis=1, keepdims=True) / n_unseen)


def _fill_gaps(scores: FloatArray) -> FloatArray:
    """Put the mean of a row in place of what is not finite in it."""
    if np.isfinite(scores.sum()):
        return scores
    known = np.isfinite(scores)
    means = np.where(known, scores, 0).sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    filled: FloatArray = np.where(known, scores, means).astype(np.float32)
    return filled
