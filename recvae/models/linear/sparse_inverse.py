"""A sparse approximate inverse of a regularised Gram matrix, in factored form."""

from typing import Self

import numpy as np
import numpy.typing as npt
from numpy.linalg import LinAlgError
from scipy import sparse

from recvae.memory import rows_at_once
from recvae.types import FloatArray


class FactoredInverse:
    """P = VᵀV, which approximates (XᵀX + diag λ)⁻¹.

    Attributes
    ----------
    factor : csr_matrix, shape (n_items, n_items)
        V.
    diagonal : (n_items,) float32
        P_jj.
    """

    def __init__(self, factor: sparse.csr_matrix) -> None:
        self.factor = factor
        self.transposed = factor.T.tocsr()
        self.diagonal: FloatArray = np.asarray(factor.multiply(factor).sum(axis=0), dtype=np.float32).ravel()

    @classmethod
    def from_interactions(cls, user_items: sparse.csr_matrix, regularisation: FloatArray, per_item: int) -> Self:
        """Compute the approximate inverse for X = user_items; exact if `per_item` is the number of items.

        Row i of V is the ridge regression of item i on other items: minus their weights, and 1 for item i, all divided
        by the root of the variance that remains. For the exact inverse the regression is on all items before i,
        whatever their order. Here items are ordered by falling popularity, and item i is regressed only on those
        before it that predict it best on their own. This is the factorized sparse approximate inverse of Kolotilin &
        Yeremin (SIAM J. Matrix Anal. Appl. 1993). P is positive definite whatever is left out, and the whole XᵀX is
        never in memory.

        Parameters
        ----------
        user_items : csr_matrix, shape (n_users, n_items)
        regularisation : (n_items,) float32
            λ.
        per_item : int
            Entries of each row of V, including the diagonal.

        Raises
        ------
        LinAlgError
            If λ is too small for float32.
        """
        n_items = user_items.shape[1]
        items = user_items.T.tocsr()
        order = np.argsort(-np.diff(items.indptr), kind="stable").astype(np.int32)
        items, added = items[order], regularisation[order]
        diagonal = np.asarray(items.multiply(items).sum(axis=1), dtype=np.float32).ravel() + added
        indptr = np.concatenate([[0], np.cumsum(np.minimum(np.arange(n_items) + 1, per_item))])
        indices, values = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32)
        size = rows_at_once(4 * n_items)
        for start in range(0, n_items, size):
            gram = (items[start : start + size] @ items[: start + size].T).toarray()
            for i, products in enumerate(gram, start):
                row = slice(indptr[i], indptr[i + 1])
                chosen = _find_largest(products[:i] / diagonal[:i], row.stop - row.start - 1)
                weights = _solve_ridge(items[chosen], products[chosen], added[chosen])
                remaining = diagonal[i] - weights @ products[chosen]
                if not remaining > 0:
                    raise LinAlgError("no variance but rounding remains for an item")
                indices[row] = order[[*chosen, i]]
                values[row] = np.append(-weights, 1) / np.sqrt(remaining)
        factor = sparse.csr_matrix((values, indices, indptr), shape=(n_items, n_items))
        factor.sort_indices()
        return cls(factor)

    def multiply(self, user_items: sparse.csr_matrix) -> FloatArray:
        """Compute X·P, a dense (n_users, n_items) array."""
        product: FloatArray = ((user_items @ self.transposed) @ self.factor).toarray()
        return product

    def partial_correlations(self, queries: npt.NDArray[np.int64]) -> FloatArray:
        """Partial correlation of each query with every item, −P_ij / √(P_ii·P_jj), (n_queries, n_items)."""
        inverse = (self.transposed[queries] @ self.factor).toarray()
        correlations: FloatArray = -inverse / np.sqrt(self.diagonal[queries])[:, None] / np.sqrt(self.diagonal)
        return correlations


def _find_largest(values: FloatArray, n: int) -> npt.NDArray[np.intp]:
    """Positions of the n largest values, in no order."""
    return np.arange(len(values)) if n == len(values) else np.argpartition(-values, n)[:n]


def _solve_ridge(features: sparse.csr_matrix, products: FloatArray, regularisation: FloatArray) -> FloatArray:
    """Solve a ridge regression.

    Parameters
    ----------
    features : csr_matrix, shape (n_features, n_users)
    products : (n_features,) float32
        Each feature times the target.
    regularisation : (n_features,) float32

    Returns
    -------
    (n_features,) float32
        Weights.
    """
    import torch  # here, since a process that only ranks needs no torch and saves its memory

    gram = torch.from_numpy((features @ features.T).toarray())
    gram.diagonal().add_(torch.from_numpy(regularisation))
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        raise LinAlgError("not positive definite")
    weights: FloatArray = torch.cholesky_solve(torch.from_numpy(products)[:, None], factor).numpy()
    return weights[:, 0]
