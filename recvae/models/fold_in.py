"""Folding a user into a matrix factorization: least squares against the factors of the items."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from scipy.linalg import lapack

from recvae.machine.blas import ONE_BLAS_THREAD
from recvae.memory import row_batches
from recvae.types import FloatArray


def whiten(item_factors: npt.NDArray[np.float32], regularization: float) -> npt.NDArray[np.float32]:
    """Turn item factors Y into Z = Y·M^-½, where M = YᵀY + λI is every user's system before anything is known.

    Parameters
    ----------
    item_factors : (n_items, factors) float32
    regularization : float

    Returns
    -------
    (n_items, factors) float32
        Directions that neither an item nor λ gives a length are 0.
    """
    n_items, n_factors = item_factors.shape
    gram = np.zeros((n_factors, n_factors))
    with ONE_BLAS_THREAD:
        for batch in row_batches(n_items, 8 * n_factors):
            rows = item_factors[batch].astype(np.float64)
            gram += rows.T @ rows
        values, vectors = linalg.eigh(gram)
        values = np.maximum(values, 0) + regularization
        kept = values > np.finfo(np.float32).eps * values.max(initial=0)
        scale = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1)), 0)
        whitened: npt.NDArray[np.float32] = item_factors @ (vectors * scale).astype(np.float32)
    return whitened


def fold_in(whitened: npt.NDArray[np.float32], histories: sparse.csr_matrix, alpha: float) -> FloatArray:
    """Solve each user's least squares exactly, as equation 4 of Hu, Koren & Volinsky, in the coordinates of `whiten`.

    With confidences c and the rows Z of the user's items it is (I + ZᵀDZ)w = Zᵀc, D = diag(c - 1): a system of as many
    equations as factors. With fewer items than factors w = Zᵀ(I + D·ZZᵀ)⁻¹c, as many equations as items.

    Parameters
    ----------
    whitened : (n_items, factors) float32
    histories : csr_matrix, shape (n_users, n_items)
    alpha : float
        Confidence of an interaction of weight 1.

    Returns
    -------
    (n_users, factors) float32
        A user's scores are its product with the whitened factors.
    """
    users = np.empty((histories.shape[0], whitened.shape[1]), dtype=np.float32)
    for row, (start, end) in enumerate(zip(histories.indptr[:-1], histories.indptr[1:], strict=True)):
        confidence = alpha * histories.data[start:end].astype(np.float64)
        near = whitened[histories.indices[start:end]]  # (n, factors)
        if len(near) < near.shape[1]:
            users[row] = near.T @ _solve_for_items(near @ near.T, confidence).astype(np.float32)
        else:
            largest = max(1.0, confidence.max())  # so that float32 holds the sums of any weights
            weighted = near * ((confidence - 1) / largest).astype(np.float32)[:, None]
            system = (weighted.T @ near).astype(np.float64)
            system.flat[:: len(system) + 1] += 1 / largest
            right = near.T @ (confidence / largest).astype(np.float32)
            users[row] = np.linalg.solve(system, right.astype(np.float64))
    return users


def _solve_for_items(gram: npt.NDArray[Any], confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Solve (I + D·ZZᵀ)t = c, D = diag(c - 1), (n,); by Cholesky, in half the time, where D is positive.

    Then the system is symmetric in t/√D: (I + √D·ZZᵀ·√D)(t/√D) = c/√D.
    """
    excess, gram = confidence - 1, gram.astype(np.float64)
    if len(excess) and excess.min() > 0:
        root = np.sqrt(excess)
        system = gram * root[:, None] * root
        system.flat[:: len(system) + 1] += 1
        _, solution, failed = lapack.dposv(system, confidence / root, lower=1)
        if not failed:
            scaled: npt.NDArray[np.float64] = solution * root
            return scaled
    system = gram * excess[:, None]
    system.flat[:: len(system) + 1] += 1
    solved: npt.NDArray[np.float64] = np.linalg.solve(system, confidence)
    return solved
