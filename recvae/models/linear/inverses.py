"""Exact inverses of a regularised Gram matrix, P = (X̃ᵀX̃ + diag λ)⁻¹, through items or through users."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.linalg import LinAlgError
from scipy import sparse

from recvae.data.csr import raise_degrees
from recvae.errors import ParameterError
from recvae.memory import row_batches
from recvae.nn.device import find_device, free_device_bytes
from recvae.types import FloatArray

if TYPE_CHECKING:
    import torch

ROWS_AT_A_TIME = 1024
LEAST_SHARE = 1e-3
"""Of the diagonal of X̃ᵀX̃ + diag λ, λ must be that much for the detour through users to keep float32's digits."""


class Inverse(Protocol):
    """P, in whatever form."""

    @property
    def diagonal(self) -> FloatArray:
        """P_jj, (n_items,)."""

    def multiply(self, user_items: sparse.csr_matrix) -> FloatArray:
        """Compute X·P, a dense (n_users, n_items) array."""


class ItemInverse:
    """P as one array.

    Attributes
    ----------
    matrix : (n_items, n_items) float32
    """

    def __init__(self, matrix: FloatArray) -> None:
        self.matrix = matrix

    @property
    def diagonal(self) -> FloatArray:
        return self.matrix.diagonal()

    def multiply(self, user_items: sparse.csr_matrix) -> FloatArray:
        product: FloatArray = user_items @ self.matrix
        return product

    def make_weights(self) -> FloatArray:
        """Compute −P_ij / P_jj off the diagonal, in the memory of P, which is lost."""
        self.matrix /= -self.diagonal
        np.fill_diagonal(self.matrix, 0)
        return self.matrix


class UserInverse:
    """P by a matrix of users × users: with A = X̃·S and S = diag λ^−½, P = S·(I − Aᵀ(I + AAᵀ)⁻¹A)·S (Woodbury).

    Cheaper where users are fewer than items: nothing but weights that are asked for has n_items × n_items entries.

    Parameters
    ----------
    weighted : csr_matrix, shape (n_users, n_items)
        X̃.
    regularisation : (n_items,) float32
        λ.
    """

    def __init__(self, weighted: sparse.csr_matrix, regularisation: FloatArray) -> None:
        self._scale = (1 / np.sqrt(regularisation)).astype(np.float32)
        self._users = sparse.csr_matrix(weighted @ sparse.diags_array(self._scale), dtype=np.float32)
        self._items = self._users.T.tocsr()
        import torch  # here, since a process that only ranks needs no torch and saves its memory

        self._kernel = _invert(torch.from_numpy(multiply_by_transposed(self._users)), np.float32(1))

    @cached_property
    def _kept(self) -> FloatArray:
        """Diagonal of I − Aᵀ(I + AAᵀ)⁻¹A."""
        kept = np.ones(len(self._scale), dtype=np.float32)
        for batch in row_batches(len(kept), 4 * len(self._kernel)):
            items = self._items[batch]
            kept[batch] -= np.asarray(items.multiply(items @ self._kernel).sum(axis=1)).ravel()
        return kept

    @cached_property
    def diagonal(self) -> FloatArray:
        """P_jj, (n_items,)."""
        diagonal: FloatArray = np.square(self._scale) * self._kept
        return diagonal

    def multiply(self, user_items: sparse.csr_matrix) -> FloatArray:
        scaled = user_items @ sparse.diags_array(self._scale)
        product: FloatArray = np.asarray((scaled @ self._items).toarray() @ self._kernel) @ self._users
        np.subtract(scaled.toarray(), product, out=product)
        product *= self._scale
        return product

    def make_weights(self) -> FloatArray:
        """Compute −P_ij / P_jj off the diagonal, blocks of rows at a time."""
        n_items = len(self._scale)
        weights = np.empty((n_items, n_items), dtype=np.float32)
        for batch in row_batches(n_items, 4 * (n_items + len(self._kernel))):
            weights[batch] = (self._items[batch] @ self._kernel) @ self._users
        kept = 1 - weights.diagonal()
        weights *= self._scale[:, None]
        weights /= self._scale * kept
        np.fill_diagonal(weights, 0)
        return weights


def count_bytes(n_users: int, n_items: int) -> int:
    """Memory that it takes to compute weights: P and what it is made of, or P and a matrix of users × users."""
    return 4 * (n_items**2 + min(n_users, n_items) ** 2)


def find_device_for(name: str, n_items: int) -> "torch.device":
    """The device of that name; "auto" is the GPU where there is one that can hold three n_items × n_items matrices.

    Raises
    ------
    ParameterError
        If this machine has no such device, or it has too little memory.
    """
    import torch

    device, needed = find_device(name), 3 * 4 * n_items**2
    free = free_device_bytes(device)
    if free is not None and needed > free:
        if name == "auto":
            return torch.device("cpu")
        raise ParameterError(
            f"device is {name!r}, where {n_items:,} items need about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            "free; expected cpu, or fewer items (min_item_users)"
        )
    return device


class Problem:
    """The regularised Gram matrices of one user-item matrix, which share what they can.

    Parameters
    ----------
    user_items : csr_matrix, shape (n_users, n_items)
    device : str
        On a GPU the matrices of items × items are made and inverted there.
    """

    def __init__(self, user_items: sparse.csr_matrix, device: str) -> None:
        self._user_items, self._device = user_items, find_device_for(device, user_items.shape[1])
        self._exponent: float | None = None
        self._gram: torch.Tensor | None = None

    def weigh(self, settings: Mapping[str, float]) -> tuple[sparse.csr_matrix, FloatArray]:
        """Compute X̃ and λ from `l2`, `dropout` and `user_exponent`."""
        if self._exponent != settings["user_exponent"]:
            self._exponent, self._gram = settings["user_exponent"], None
            self._weighted = weight_users(self._user_items, self._exponent)
            self._squares = np.asarray(self._weighted.multiply(self._weighted).sum(axis=0), dtype=np.float32).ravel()
        dropped = settings["dropout"] / (1 - settings["dropout"])
        return self._weighted, np.float32(settings["l2"]) + np.float32(dropped) * self._squares

    def invert(self, settings: Mapping[str, float], *, last: bool = False) -> ItemInverse | UserInverse:
        """Compute P.

        Parameters
        ----------
        settings : mapping
            `l2`, `dropout` and `user_exponent`.
        last : bool
            Nothing more will be inverted, so that P may take the memory of the Gram matrix.

        Raises
        ------
        LinAlgError
            If `l2` is too small for float32.
        """
        weighted, regularisation = self.weigh(settings)
        n_users, n_items = weighted.shape
        shares = regularisation / (self._squares + regularisation)
        if n_users < n_items and self._device.type == "cpu" and shares.min() > LEAST_SHARE:
            return UserInverse(weighted, regularisation)
        if self._gram is None:
            self._gram = compute_gram(weighted, self._device)
        gram, self._gram = self._gram, None if last else self._gram
        return ItemInverse(_invert(gram if last else gram.clone(), regularisation))


def weight_users(user_items: sparse.csr_matrix, exponent: float) -> sparse.csr_matrix:
    """Multiply each user's row by √w_u, where w_u = c·d_u^−exponent and d_u is the row's sum.

    c keeps Σ w_u·d_u what Σ d_u is, so that the regularisation need not change with the exponent.
    """
    if exponent == 0:
        return user_items
    degrees = np.asarray(user_items.sum(axis=1), dtype=np.float64).ravel()
    weights = raise_degrees(degrees, -exponent)
    weights *= degrees.sum() / (weights @ degrees)
    return sparse.csr_matrix(sparse.diags_array(np.sqrt(weights)) @ user_items, dtype=np.float32)


def compute_gram(user_items: sparse.csr_matrix, device: "torch.device") -> "torch.Tensor":
    """Compute XᵀX on a device, (n_items, n_items) float32; a processor gains by leaving zeros out, a GPU does not."""
    import torch

    if device.type == "cpu":
        return torch.from_numpy(multiply_by_transposed(user_items.T.tocsr()))
    return add_dense_blocks(user_items, device)


def add_dense_blocks(user_items: sparse.csr_matrix, device: "torch.device") -> "torch.Tensor":
    """Compute XᵀX by dense products of blocks of rows, which become dense on the device."""
    import torch

    n_items = user_items.shape[1]
    gram = torch.zeros((n_items, n_items), device=device)
    for start in range(0, user_items.shape[0], ROWS_AT_A_TIME):
        block = user_items[start : start + ROWS_AT_A_TIME]
        rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        places = (torch.from_numpy(array.astype(np.int64)).to(device) for array in (rows, block.indices))
        dense = torch.zeros(block.shape, device=device)
        dense.index_put_(tuple(places), torch.from_numpy(block.data).to(device))
        gram.addmm_(dense.T, dense)
    return gram


def multiply_by_transposed(x: sparse.csr_matrix) -> FloatArray:
    """Compute XXᵀ as a dense matrix, a block of rows at a time.

    The sparse product of the whole would need as much memory again, since XXᵀ is nearly dense.
    """
    n_rows = x.shape[0]
    product = np.empty((n_rows, n_rows), dtype=np.float32)
    transposed = x.T.tocsr()
    for start in range(0, n_rows, ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        (x[rows] @ transposed).toarray(out=product[rows])
    return product


def _invert(matrix: "torch.Tensor", added: FloatArray | np.float32) -> FloatArray:
    """Invert a symmetric matrix to whose diagonal something is added, in the memory of two; `LinAlgError` if float32
    does not find it positive definite.
    """
    import torch

    matrix.diagonal().add_(torch.as_tensor(added, device=matrix.device))
    on_cpu = matrix.device.type == "cpu"  # LAPACK works in place
    factor, failed = torch.linalg.cholesky_ex(
        matrix, out=(matrix, torch.empty((), dtype=torch.int32)) if on_cpu else None
    )
    if failed:
        raise LinAlgError("not positive definite")
    inverse: FloatArray = torch.cholesky_inverse(factor, out=factor if on_cpu else None).cpu().numpy()
    return inverse
