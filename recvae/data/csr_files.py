"""Binary CSR matrices on disk as plain `.npy` arrays: written as a stream, read as memory maps.

What is read lies in the file system's cache, not in the process's own memory, and goes when others need the room. A
matrix `NAME` is `NAME.indptr.npy` and `NAME.indices.npy`, int32 (int64 from 2³¹ interactions on); its values, all 1,
are the beginning of the one `ones.npy` of a directory.
"""

import io
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap, write_array_header_1_0
from scipy import sparse

from recvae.data.csr import iter_chunks

ONES = "ones.npy"
_HEADER = 128  # bytes before the values
_KINDS = tuple(np.dtype(kind) for kind in ("<i4", "<i8", "<f4"))

Ints = npt.NDArray[Any]


def write_matrix(directory: Path, name: str, matrix: sparse.csr_matrix) -> None:
    """Write a canonical CSR matrix's places; its values are not looked at."""
    kind = _index_type(matrix.nnz)
    np.save(_file(directory, name, "indptr"), matrix.indptr.astype(kind, copy=False), allow_pickle=False)
    np.save(_file(directory, name, "indices"), matrix.indices.astype(kind, copy=False), allow_pickle=False)


def write_stream(
    directory: Path, name: str, n_rows: int, n_interactions: int, places: Iterable[tuple[Ints, Ints]]
) -> None:
    """Write a matrix of the same bytes from the rows and columns of its interactions, by row and column, in parts.

    Raises
    ------
    ValueError
        If there are more or fewer than `n_interactions`.
    """
    kind = _index_type(n_interactions)
    lengths = np.zeros(n_rows, dtype=np.int64)
    indices = open_memmap(_file(directory, name, "indices"), mode="w+", dtype=kind, shape=(n_interactions,))
    done = 0
    for rows, columns in places:
        indices[done : done + len(columns)] = columns
        lengths += np.bincount(rows, minlength=n_rows)
        done += len(columns)
    indices.flush()
    if done != n_interactions:
        raise ValueError(f"{name} has {done:,} interactions; expected {n_interactions:,}")
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(kind)
    np.save(_file(directory, name, "indptr"), indptr, allow_pickle=False)


def write_ones(directory: Path, n_interactions: int) -> None:
    """Write the values for matrices of at most so many interactions."""
    ones = open_memmap(directory / ONES, mode="w+", dtype=np.float32, shape=(max(n_interactions, 1),))
    for part in iter_chunks(ones):
        part[:] = 1
    ones.flush()


def matrix_files(name: str) -> list[str]:
    """Names of a matrix's files."""
    return [f"{name}.indptr.npy", f"{name}.indices.npy"]


def read_matrix(directory: Path, name: str, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Map a matrix, copy-on-write, after checking that its places lie inside `shape`.

    Raises
    ------
    ValueError, OSError
        If a file is missing or no array, or the arrays are no such matrix.
    """
    indptr, indices = (read_array(_file(directory, name, part)) for part in ("indptr", "indices"))
    ones = read_array(directory / ONES)
    kind = _index_type(len(indices))
    fits = indptr.dtype == indices.dtype == kind and ones.dtype == np.dtype(np.float32) and len(ones) >= len(indices)
    if not fits:
        raise ValueError(f"{name} holds {indptr.dtype}, {indices.dtype} and {len(ones):,} {ones.dtype}")
    matrix = sparse.csr_matrix((ones[: len(indices)], indices, indptr), shape=shape)
    matrix.check_format(full_check=True)
    return matrix


@contextmanager
def scattered_reads(matrix: sparse.csr_matrix) -> Iterator[None]:
    """While rows of a mapped matrix are read in any order: fetch the pages asked for, without those around them.

    Of a matrix larger than memory, pages fetched in advance would be gone again before their rows' turn.
    """
    mapping: Any = matrix.indices
    while isinstance(mapping, np.ndarray):
        mapping = mapping.base
    advise = mapping.madvise if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_RANDOM") else None
    if advise:
        advise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        if advise:
            advise(mmap.MADV_NORMAL)


def read_array(path: Path) -> npt.NDArray[Any]:
    """Map a one-dimensional array, copy-on-write.

    The header is compared with the one that such an array has, not parsed: numpy reads it as Python.

    Raises
    ------
    ValueError, OSError
        If the file is missing or holds something else.
    """
    with path.open("rb") as file:
        found = file.read(_HEADER)
    for kind in _KINDS:
        size = (path.stat().st_size - _HEADER) // kind.itemsize
        if found == _header(kind, size) and path.stat().st_size == _HEADER + size * kind.itemsize:
            return np.memmap(path, kind, mode="c", offset=_HEADER, shape=(size,))
    raise ValueError(f"{path.name} is no one-dimensional .npy array of {', '.join(kind.name for kind in _KINDS)}")


def _header(kind: np.dtype[Any], size: int) -> bytes:
    written = io.BytesIO()
    write_array_header_1_0(written, {"descr": kind.str, "fortran_order": False, "shape": (size,)})
    return written.getvalue()


def _file(directory: Path, name: str, part: str) -> Path:
    return directory / f"{name}.{part}.npy"


def _index_type(n_interactions: int) -> np.dtype[Any]:
    """What scipy indexes so many interactions with; another type would be copied on reading."""
    return np.dtype(np.int32 if n_interactions < 2**31 else np.int64)
