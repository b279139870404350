"""CSR matrices on disk as plain `.npy` arrays: written as a stream, read as memory maps.

The pages of a map lie in the file system's cache, not in the process's own memory, and the system drops them when
memory is short. A matrix `NAME` is `NAME.indptr.npy` and `NAME.indices.npy`, int32 (int64 from 2³¹ interactions on).
Its values are all 1, and the matrices of a directory share the beginning of one file, `ones.npy`; or they are weights,
`NAME.weights.npy`.
"""

import io
import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap, write_array_header_1_0
from scipy import sparse

from recvae.data.csr import iter_chunks

ONES, WEIGHTS = "ones.npy", "*.weights.npy"
_HEADER = 128  # bytes before the values, in every .npy file of a one-dimensional array
_KINDS = tuple(np.dtype(kind) for kind in ("<i4", "<i8", "<f4"))

Ints = npt.NDArray[Any]


def write_matrix(directory: Path, name: str, matrix: sparse.csr_matrix) -> None:
    """Write the indices of a canonical CSR matrix, and its values where one is not 1."""
    kind = _index_type(matrix.nnz)
    np.save(_file(directory, name, "indptr"), matrix.indptr.astype(kind, copy=False), allow_pickle=False)
    np.save(_file(directory, name, "indices"), matrix.indices.astype(kind, copy=False), allow_pickle=False)
    if is_weighted(matrix):
        np.save(_file(directory, name, "weights"), matrix.data.astype(np.float32, copy=False), allow_pickle=False)


def is_weighted(matrix: sparse.csr_matrix) -> bool:
    """Check whether a matrix has a value other than 1."""
    return any((chunk != 1).any() for chunk in iter_chunks(matrix.data))


def write_matrices(directory: Path, matrices: Mapping[str, sparse.csr_matrix]) -> None:
    """Write matrices by name, and the values that they share."""
    for name, matrix in matrices.items():
        write_matrix(directory, name, matrix)
    write_ones(directory, max(matrix.nnz for matrix in matrices.values()))


def write_stream(
    directory: Path, name: str, n_rows: int, n_interactions: int, chunks: Iterable[tuple[Ints, Ints]]
) -> None:
    """Write a matrix from a stream of its interactions: the same bytes as `write_matrix`.

    Parameters
    ----------
    chunks : iterable of (rows, columns)
        Row and column of each interaction, ordered by row, then column.

    Raises
    ------
    ValueError
        If there are more or fewer than `n_interactions`.
    """
    kind = _index_type(n_interactions)
    lengths = np.zeros(n_rows, dtype=np.int64)
    indices = open_memmap(_file(directory, name, "indices"), mode="w+", dtype=kind, shape=(n_interactions,))
    done = 0
    for rows, columns in chunks:
        indices[done : done + len(columns)] = columns
        lengths += np.bincount(rows, minlength=n_rows)
        done += len(columns)
    indices.flush()
    if done != n_interactions:
        raise ValueError(f"{name} has {done:,} interactions; expected {n_interactions:,}")
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(kind)
    np.save(_file(directory, name, "indptr"), indptr, allow_pickle=False)


def write_ones(directory: Path, n_interactions: int) -> None:
    """Write the values that matrices of at most `n_interactions` interactions share."""
    ones = open_memmap(directory / ONES, mode="w+", dtype=np.float32, shape=(max(n_interactions, 1),))
    for chunk in iter_chunks(ones):
        chunk[:] = 1
    ones.flush()


def matrix_files(name: str) -> list[str]:
    """List the names of the files that every matrix has."""
    return [f"{name}.indptr.npy", f"{name}.indices.npy"]


def read_matrix(directory: Path, name: str, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Map a matrix into memory, copy-on-write, after checking that its indices lie inside `shape`.

    Raises
    ------
    ValueError, OSError
        If a file is missing or no array, or the arrays are no such matrix.
    """
    indptr, indices = (read_array(_file(directory, name, array)) for array in ("indptr", "indices"))
    weighted = _file(directory, name, "weights").exists()
    ones = read_array(_file(directory, name, "weights") if weighted else directory / ONES)
    kind = _index_type(len(indices))
    fits = indptr.dtype == indices.dtype == kind and ones.dtype == np.dtype(np.float32) and len(ones) >= len(indices)
    if not fits:
        raise ValueError(f"{name} holds {indptr.dtype}, {indices.dtype} and {len(ones):,} {ones.dtype}")
    if weighted and not all(((chunk > 0) & np.isfinite(chunk)).all() for chunk in iter_chunks(ones)):
        raise ValueError(f"{name} holds weights that are not above 0")
    matrix = sparse.csr_matrix((ones[: len(indices)], indices, indptr), shape=shape)
    matrix.check_format(full_check=True)
    return matrix


@contextmanager
def scattered_reads(matrix: sparse.csr_matrix) -> Iterator[None]:
    """Tell the system, for the time of a block, that rows of a mapped matrix are read in random order.

    By default the kernel reads ahead: it fetches the pages around each page asked for. With rows in random order, and
    a matrix larger than memory, those pages are dropped before they are needed. MADV_RANDOM switches that off.
    """
    mapping: Any = matrix.indices
    # scipy and numpy wrap the map in views; the outermost object that is no array is the mmap itself.
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
    """Map a one-dimensional array into memory, copy-on-write.

    The header of a `.npy` file is a Python literal, which numpy parses as Python. A file is not trusted that far: its
    header is compared, byte for byte, with the headers that arrays of these types and this length have.

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


def _file(directory: Path, name: str, array: str) -> Path:
    return directory / f"{name}.{array}.npy"


def _index_type(n_interactions: int) -> np.dtype[Any]:
    """Choose the type that scipy uses for the indices of so many interactions; it would copy any other."""
    return np.dtype(np.int32 if n_interactions < 2**31 else np.int64)
