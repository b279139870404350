"""Filters on the graph of items: its leading frequencies, and functions of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import normalise_by_degrees, raise_degrees
from recvae.errors import TrainingError
from recvae.machine.blas import ONE_BLAS_THREAD
from recvae.memory import row_batches
from recvae.types import FloatArray

ITERATIONS, EXTRA_VECTORS = 7, 64
SMALLEST_EIGENVALUE = 1e-6
"""Of R̃ᵀR̃, whose largest is 1: float32 has no directions for smaller ones."""


@dataclass(frozen=True)
class Spectrum:
    """The leading eigenvectors of P̃ = R̃ᵀR̃, where R̃ = D_U^−½ R D_I^−½.

    Attributes
    ----------
    interactions : csr_matrix, shape (n_users, n_items)
        R̃.
    item_degrees : (n_items,) float32
        D_I: each item's sum of interactions.
    eigenvalues : (factors,) float32
        The largest first.
    vectors : (n_items, factors) float32
    """

    interactions: sparse.csr_matrix
    item_degrees: FloatArray
    eigenvalues: FloatArray
    vectors: FloatArray

    @classmethod
    def from_interactions(cls, user_items: sparse.csr_matrix, factors: int, seed: int) -> Self:
        """Compute at most `factors` eigenvectors by subspace iteration (Halko et al. 2011, algorithm 4.4).

        Some vectors more than asked for and seven iterations give lists as good as ARPACK's vectors do, in less than
        half the time on ML-1M; all directions of a small matrix are exact.
        """
        import torch  # here, since a process that only ranks needs no torch

        from recvae.nn.spectrum import Orthonormaliser

        interactions = normalise_by_degrees(user_items)
        by_item = interactions.T.tocsr()
        longer, shorter = (
            (interactions, by_item) if interactions.shape[0] > interactions.shape[1] else (by_item, interactions)
        )
        n = longer.shape[1]
        basis = np.random.default_rng(seed).standard_normal((n, min(n, factors + EXTRA_VECTORS))).astype(np.float32)
        orthonormalise = Orthonormaliser()
        for _ in range(ITERATIONS):
            # NumPy's QR takes two to three times as long, and its threads spin where they wait for each other.
            basis = orthonormalise(torch.from_numpy(shorter @ (longer @ basis))).numpy()
        images = longer @ basis
        gram = images.T @ images
        with ONE_BLAS_THREAD:
            ascending, rotation = np.linalg.eigh(gram)
        kept = np.flatnonzero(ascending > SMALLEST_EIGENVALUE)[::-1][:factors]
        if not len(kept):  # the largest is 1, unless sums overflow
            raise TrainingError("the weights of user_items sum to more than float32 holds; expected smaller ones")
        eigenvalues, rotation = ascending[kept], rotation[:, kept]
        vectors = basis @ rotation if longer is interactions else (images @ rotation) / np.sqrt(eigenvalues)
        degrees = np.asarray(user_items.sum(axis=0), dtype=np.float32).ravel()
        return cls(interactions, degrees, eigenvalues, np.ascontiguousarray(vectors))

    def make_filter(self, *, factors: int, weight: float, flatness: float, item_exponent: float) -> "SpectralFilter":
        """Build the filter of `GraphFilter`'s settings."""
        eigenvalues = self.eigenvalues[:factors].astype(np.float64)
        responses = respond(eigenvalues, flatness)
        slope = float(responses[-1] / eigenvalues[-1])
        gains = (responses - slope * eigenvalues + weight).astype(np.float32)
        vectors = self.vectors[:, : len(gains)]
        exponents = item_exponent, item_exponent
        return SpectralFilter(self.interactions, self.item_degrees, vectors, gains, slope, exponents)


@dataclass(frozen=True)
class SpectralFilter:
    """Scores of a history r: slope · r·D^−a·P̃·D^a + r·D^−b·V·diag(gains)·Vᵀ·D^b.

    Attributes
    ----------
    interactions : csr_matrix, shape (n_users, n_items)
        R̃, of which P̃ = R̃ᵀR̃.
    item_degrees : (n_items,) float32
        D.
    vectors : (n_items, factors) float32
        V.
    gains : (factors,) float32
    slope : float
    exponents : (a, b)
    """

    interactions: sparse.csr_matrix
    item_degrees: FloatArray
    vectors: FloatArray
    gains: FloatArray
    slope: float
    exponents: tuple[float, float]

    def multiply_by_graph(self, user_items: sparse.csr_matrix) -> FloatArray:
        """Compute r·D^−a·P̃ for each row r."""
        product = np.empty(user_items.shape, dtype=np.float32)
        scaled = _scale_columns(user_items, raise_degrees(self.item_degrees, -self.exponents[0]))
        # r·R̃ᵀ is nearly dense, so that a row of it takes a float32 and an index for each training user.
        for batch in row_batches(len(product), 8 * self.interactions.shape[0]):
            product[batch] = ((scaled[batch] @ self.interactions.T) @ self.interactions).toarray()
        return product

    def project(self, user_items: sparse.csr_matrix) -> FloatArray:
        """Compute r·D^−b·V for each row r."""
        scaled = _scale_columns(user_items, raise_degrees(self.item_degrees, -self.exponents[1]))
        projected: FloatArray = scaled @ self.vectors
        return projected

    def combine(self, products: FloatArray, projections: FloatArray) -> FloatArray:
        """Compute scores from `multiply_by_graph` and `project`."""
        scores = ((projections * self.gains) @ self.vectors.T).astype(np.float32, copy=False)
        scores *= raise_degrees(self.item_degrees, self.exponents[1])
        scores += products * (np.float32(self.slope) * raise_degrees(self.item_degrees, self.exponents[0]))
        return scores

    def score(self, user_items: sparse.csr_matrix) -> FloatArray:
        """Compute the scores of every item for each row, (n_users, n_items)."""
        return self.combine(self.multiply_by_graph(user_items), self.project(user_items))

    def make_rows(self) -> Iterator[tuple[slice, FloatArray]]:
        """Compute the filter as one array of items by items, a block of rows at a time; a = b.

        Yields
        ------
        (rows, block) : slice, and (n_rows, n_items) float32
        """
        by_item = self.interactions.T.tocsr()
        before, after = (raise_degrees(self.item_degrees, sign * self.exponents[0]) for sign in (-1, 1))
        weighted = self.vectors * self.gains
        for rows in row_batches(len(before), 4 * len(before)):
            block = (weighted[rows] @ self.vectors.T).astype(np.float32, copy=False)
            block += np.float32(self.slope) * (by_item[rows] @ self.interactions).toarray()
            block *= before[rows, None]
            block *= after
            yield rows, block

    def make_matrix(self) -> FloatArray:
        """Compute the filter as one (n_items, n_items) array, by which histories are multiplied."""
        n_items = len(self.item_degrees)
        matrix = np.empty((n_items, n_items), dtype=np.float32)
        for rows, block in self.make_rows():
            matrix[rows] = block
        return matrix

    def make_sparse_matrix(self, per_item: int) -> sparse.csr_matrix:
        """Compute the filter, and of each row keep the `per_item` largest entries, whatever their sign."""
        n_items = len(self.item_degrees)
        per_item = min(per_item, n_items)
        indices = np.empty((n_items, per_item), dtype=np.int32)
        values = np.empty((n_items, per_item), dtype=np.float32)
        for rows, block in self.make_rows():
            indices[rows] = np.sort(np.argpartition(-np.abs(block), per_item - 1, axis=1)[:, :per_item], axis=1)
            values[rows] = np.take_along_axis(block, indices[rows].astype(np.int64), axis=1)
        indptr = np.arange(0, n_items * per_item + 1, per_item)
        return sparse.csr_matrix((values.ravel(), indices.ravel(), indptr), shape=(n_items, n_items))


def respond(eigenvalues: npt.NDArray[np.float64], flatness: float) -> npt.NDArray[np.float64]:
    """The plateau function of ChebyCF, from 0 at 0 over ½ at ½ to 1 at 1; the straight line if `flatness` is 1."""
    distance = np.clip(2 * eigenvalues - 1, -1, 1)
    responses: npt.NDArray[np.float64] = 0.5 + 0.5 * np.sign(distance) * np.abs(distance) ** flatness
    return responses


def _scale_columns(user_items: sparse.csr_matrix, factors: FloatArray) -> sparse.csr_matrix:
    scaled = user_items.copy()
    scaled.data = user_items.data * factors[user_items.indices]
    return scaled
