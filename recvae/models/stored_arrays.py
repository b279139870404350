"""Checks of arrays that come from artifacts, which are not trusted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recvae.data.csr import build_csr, iter_chunks
from recvae.errors import ArtifactError


def take_array(arrays: Mapping[str, npt.NDArray[Any]], name: str, *shape: int | None, dtype: str = "float32") -> Any:
    """Take an array of a type and shape, in which None is any length, whose numbers are all finite.

    Raises
    ------
    ArtifactError
        If it is missing or another.
    """
    array = arrays.get(name)
    fits = array is not None and len(array.shape) == len(shape) and array.dtype == dtype
    if array is None or not fits or any(n not in (None, length) for n, length in zip(shape, array.shape, strict=True)):
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise ArtifactError(f"{name} is {found}; expected {dtype} {tuple('any' if n is None else n for n in shape)}")
    _check_finite(array, name)
    return array


def take_csr(arrays: Mapping[str, npt.NDArray[Any]], name: str, n_rows: int | None, n_columns: int) -> Any:
    """Take the three arrays of a float32 CSR matrix whose numbers are all finite; `n_rows` None is any number.

    Raises
    ------
    ArtifactError
        If an array is missing, or they are no such matrix.
    """
    for part in ("data", "indices", "indptr"):
        if part not in arrays or arrays[part].ndim != 1:
            raise ArtifactError(f"{name}: {part} is missing or no list of numbers")
    for part in ("indices", "indptr"):
        if arrays[part].dtype.kind != "i":
            raise ArtifactError(f"{name}: {part} is {arrays[part].dtype}; expected whole numbers")
    take_array(arrays, "data", None)
    matrix = build_csr(arrays, name, n_columns)
    if n_rows not in (None, matrix.shape[0]):
        raise ArtifactError(f"{name} has {matrix.shape[0]:,} rows; expected {n_rows:,}")
    return matrix


def _check_finite(array: npt.NDArray[Any], name: str) -> None:
    if not all(np.isfinite(chunk).all() for chunk in iter_chunks(array.reshape(-1))):
        raise ArtifactError(f"{name} holds numbers that are not finite")
