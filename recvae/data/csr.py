"""User-item matrices in CSR form: checked and made canonical on the way in, and normalised by degrees."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ArtifactError, ParameterError

_CHUNK = 1 << 20


def check_csr(matrix: Any, name: str, like: sparse.csr_matrix | None = None) -> sparse.csr_matrix:
    """Check a caller's matrix and convert it to a canonical float32 `csr_matrix`; copied only where it must be.

    Canonical: indices sorted within each row, each at most once, no stored zeros.

    Raises
    ------
    ParameterError
        If it is not sparse, has indices outside its shape, holds negative or non-finite values, or has other columns
        than `like`.
    """
    csr = sparse.csr_matrix(_check_sparse(matrix, name), dtype=np.float32)
    if not all(np.isfinite(chunk).all() and (chunk >= 0).all() for chunk in iter_chunks(csr.data)):
        raise ParameterError(
            f"{name} holds negative, infinite or NaN values; expected 1 for an interaction, or a weight"
        )
    if not csr.has_canonical_format or not csr.data.all():
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    if like is not None and csr.shape[1] != like.shape[1]:
        raise ParameterError(f"{name} has {csr.shape[1]:,} columns but user_items has {like.shape[1]:,}")
    return csr


def list_entries(matrix: Any, name: str) -> sparse.coo_matrix:
    """List the values of a caller's matrix other than 0, each position once: row by row, in the matrix's own order.

    Raises
    ------
    ParameterError
        If it is not sparse, or has indices outside its shape.
    """
    csr = _check_sparse(matrix, name).tocsr()
    summed = csr.copy()
    summed.sum_duplicates()
    # What repeats nothing keeps its order, by which splits draw.
    entries = sparse.coo_matrix(summed if summed.nnz < csr.nnz else csr)
    entries.eliminate_zeros()
    return entries


def round_weights(weights: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Round weights above 0 to float32; less than it holds becomes the least that it does, since 0 is no weight."""
    return np.maximum(np.asarray(weights, dtype=np.float32), np.finfo(np.float32).tiny)


def _check_sparse(matrix: Any, name: str) -> Any:
    """Check that a matrix is sparse, with indices inside its shape; one row of a `csr_array` becomes a matrix of it."""
    if not sparse.issparse(matrix):
        raise ParameterError(f"{name} is a {type(matrix).__name__}; expected a scipy CSR matrix")
    _check_indices(matrix, name)
    rows: Any = matrix
    return rows.reshape(1, -1) if rows.ndim == 1 else rows


def _check_indices(matrix: Any, name: str) -> None:
    """Raise `ParameterError` if a CSR or CSC matrix has indices outside its shape, or rows outside its arrays.

    scipy does not look for them in a matrix made of arrays, and its compiled loops, as ours, read and write without
    bounds: an index too large ends the process.
    """
    if matrix.format not in ("csr", "csc"):
        return
    size = matrix.shape[0] if matrix.format == "csc" else matrix.shape[-1]
    bounds = [(chunk.min(), chunk.max()) for chunk in iter_chunks(matrix.indices)]
    if bounds:
        least, largest = min(low for low, _ in bounds), max(high for _, high in bounds)
        if least < 0 or largest >= size:
            raise ParameterError(f"{name} has indices from {least:,} to {largest:,}; expected 0 to {size - 1:,}")
    if matrix.ndim == 2:
        starts, length = matrix.indptr, min(len(matrix.indices), len(matrix.data))
        expected = matrix.shape[matrix.format == "csc"] + 1
        if len(starts) != expected or starts[0] or starts[-1] > length or (starts[1:] < starts[:-1]).any():
            raise ParameterError(
                f"{name} has an indptr that does not fit; expected {expected:,} numbers that rise from 0 to at most "
                f"{length:,}, the length of its indices"
            )


def iter_chunks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Iterate over an array in chunks, so that temporary arrays stay small where the array is a memory map."""
    for start in range(0, len(array), _CHUNK):
        yield array[start : start + _CHUNK]


def fingerprint(matrix: sparse.csr_matrix) -> str:
    """SHA-256 of a canonical CSR matrix: its shape, positions and values."""
    digest = hashlib.sha256(repr(matrix.shape).encode())
    for array, kind in ((matrix.indptr, np.int64), (matrix.indices, np.int32), (matrix.data, np.float32)):
        for chunk in iter_chunks(array):
            digest.update(chunk.astype(kind).data)
    return digest.hexdigest()


def csr_arrays(matrix: sparse.csr_matrix) -> dict[str, npt.NDArray[Any]]:
    """Name the three arrays of a CSR matrix as scipy does."""
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}


def build_csr(arrays: Mapping[str, npt.NDArray[Any]], name: str, n_columns: int) -> sparse.csr_matrix:
    """Build the matrix of `csr_arrays` that come from a file, which is not trusted.

    Raises
    ------
    ArtifactError
        If the arrays are no CSR matrix with `n_columns` columns.
    """
    shape = (len(arrays["indptr"]) - 1, n_columns)
    try:
        matrix = sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
        # scipy looks at rows and indices only if the last number of indptr is positive, and its loops trust them.
        _check_indices(matrix, name)
    except ValueError as error:  # a `ParameterError` is one
        raise ArtifactError(f"{name} is no {shape} CSR matrix: {error}") from None
    return matrix


def normalise_by_degrees(user_items: sparse.csr_matrix) -> sparse.csr_matrix:
    """Compute D_U^−½ R D_I^−½, float32: divide each entry by the square roots of its user's and its item's sums."""
    users, items = (
        sparse.diags_array(raise_degrees(np.asarray(user_items.sum(axis=axis), dtype=np.float32).ravel(), -0.5))
        for axis in (1, 0)
    )
    return sparse.csr_matrix(users @ user_items @ items, dtype=np.float32)


def raise_degrees(degrees: npt.NDArray[Any], exponent: float) -> npt.NDArray[Any]:
    """Raise degrees to a power, in their own type; 0 where the degree is 0."""
    powers = np.zeros_like(degrees)
    np.power(degrees, degrees.dtype.type(exponent), out=powers, where=degrees > 0)
    return powers
