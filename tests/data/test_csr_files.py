"""Matrices on disk: the same bytes from a matrix and from a stream, and the same matrix back."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recvae.data.csr import check_csr
from recvae.data.csr_files import (
    matrix_files,
    read_array,
    read_matrix,
    scattered_reads,
    write_matrix,
    write_ones,
    write_stream,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 7), st.integers(0, 99))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, n_rows: int, n_columns: int, n_parts: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("matrices")
    dense = np.random.default_rng(seed).random((n_rows, n_columns)) < 0.4
    matrix = sparse.csr_matrix(dense.astype(np.float32))
    write_ones(folder, matrix.nnz)
    write_matrix(folder, "whole", matrix)
    rows, columns = dense.nonzero()
    parts = zip(np.array_split(rows, n_parts), np.array_split(columns, n_parts), strict=True)
    write_stream(folder, "streamed", n_rows, matrix.nnz, parts)
    for one, other in zip(matrix_files("whole"), matrix_files("streamed"), strict=True):
        assert (folder / one).read_bytes() == (folder / other).read_bytes()
    found = read_matrix(folder, "streamed", (n_rows, n_columns))
    assert found.dtype == np.float32
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), dense)


@pytest.mark.parametrize("n_interactions", [2, 4])
def test_a_stream_of_another_length_is_refused(tmp_path: Path, n_interactions: int) -> None:
    with pytest.raises(ValueError, match=r"broadcast|has 3 interactions; expected 4"):
        write_stream(tmp_path, "train", 2, n_interactions, [(np.array([0, 0, 1]), np.array([0, 1, 1]))])


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32])
@pytest.mark.parametrize("size", [0, 1, 5, 123_456])
def test_arrays_as_numpy_writes_them(tmp_path: Path, kind: Any, size: int) -> None:
    array = np.arange(size).astype(kind)
    np.save(tmp_path / "array.npy", array)
    found = read_array(tmp_path / "array.npy")
    assert found.dtype == kind
    np.testing.assert_array_equal(found, array)


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    others: list[Any] = [np.zeros((2, 2), np.int32), np.zeros(3), np.zeros(3, ">i4"), np.zeros(3, bool), np.int32(3)]
    for array in others:
        np.save(path, array)
        with pytest.raises(ValueError, match=r"array\.npy is no one-dimensional \.npy array of int32, int64, float32"):
            read_array(path)
    with pytest.raises(OSError, match="No such file"):
        read_array(tmp_path / "none.npy")


def advised_at_random(file: Path) -> bool:
    """Check that the system knows that this process reads a mapped file in random order."""
    found = re.search(rf"{re.escape(str(file))}\n.*?VmFlags:([^\n]*)", Path("/proc/self/smaps").read_text(), re.DOTALL)
    assert found is not None
    return "rr" in found[1].split()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what it was advised")
def test_pages_around_scattered_rows_are_not_fetched(tmp_path: Path) -> None:
    matrix = sparse.csr_matrix(np.ones((3, 4), dtype=np.float32))
    write_ones(tmp_path, matrix.nnz)
    write_matrix(tmp_path, "train", matrix)
    file, found = tmp_path / "train.indices.npy", check_csr(read_matrix(tmp_path, "train", (3, 4)), "train")
    with scattered_reads(found):
        assert advised_at_random(file)
    assert not advised_at_random(file)
    with scattered_reads(matrix):
        pass
