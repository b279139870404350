"""Matrices of callers: fingerprints, and indices that would lead outside their arrays."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from recvae.data.csr import build_csr, check_csr, fingerprint
from recvae.errors import ArtifactError, ParameterError
from recvae.models.als import ALS
from recvae.models.base import Recommender
from recvae.models.item_knn import CosineKNN
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity


def test_fingerprint_tells_matrices_apart() -> None:
    dense = np.zeros((3, 4), dtype=np.float32)
    dense[0, 1] = dense[2, 3] = 1
    matrix = sparse.csr_matrix(dense)
    wide = sparse.csr_matrix((matrix.data, matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)), (3, 4))
    assert fingerprint(wide) == fingerprint(matrix)
    moved, weighted, taller = dense.copy(), dense.copy(), np.vstack([dense, np.zeros((1, 4), np.float32)])
    moved[0, [1, 2]] = 0, 1
    weighted[0, 1] = 2
    wider = np.hstack([dense, np.zeros((3, 1), np.float32)])
    others = [fingerprint(sparse.csr_matrix(other)) for other in (moved, weighted, taller, wider)]
    assert len({fingerprint(matrix), *others}) == 5


def with_index(kind: Any, index: int) -> Any:
    """A matrix of two users and three items whose index array was tampered with after it was made."""
    matrix = kind(np.array([[1, 0, 1], [0, 1, 0]], dtype=np.float32))
    matrix.indices[1] = index
    return matrix


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("index", [3, 50_000_000, -1, -3])
def test_indices_outside_the_shape_are_refused(kind: Any, index: int) -> None:
    least, largest = sorted((0, 1, index))[0], max(1, index)
    with pytest.raises(ParameterError, match=f"user_items has indices from {least} to {largest:,}; expected 0 to 2"):
        check_csr(with_index(kind, index), "user_items")


def test_indices_outside_the_shape_of_other_formats() -> None:
    with pytest.raises(ParameterError, match="user_items has indices from 0 to 7; expected 0 to 1"):
        check_csr(with_index(sparse.csc_matrix, 7), "user_items")
    row = sparse.csr_array(np.array([1, 0, 1], dtype=np.float32))
    row.indices[1] = 9
    with pytest.raises(ParameterError, match="user_items has indices from 0 to 9; expected 0 to 2"):
        check_csr(row, "user_items")
    assert check_csr(sparse.coo_matrix(np.eye(3)), "user_items").nnz == 3


@pytest.mark.parametrize("indptr", [[0, 3, 2], [0, 2, 9], [1, 2, 3], [0, 2]])
def test_rows_outside_the_arrays_are_refused(indptr: list[int]) -> None:
    matrix = sparse.csr_matrix(np.array([[1, 0, 1], [0, 1, 0]], dtype=np.float32))
    matrix.indptr = np.array(indptr, dtype=np.int32)
    with pytest.raises(ParameterError, match="user_items has an indptr that does not fit; expected 3 numbers"):
        check_csr(matrix, "user_items")


@pytest.mark.parametrize("model", [Popularity(), EASE(), CosineKNN(), ALS(factors=2, iterations=1)])
def test_no_model_reads_outside_its_catalogue(model: Recommender) -> None:
    model.fit(sparse.csr_matrix(np.array([[1, 0, 1], [0, 1, 1]], dtype=np.float32)), show_progress=False)
    for index in (50_000_000, -3):
        with pytest.raises(ParameterError, match="user_items has indices"):
            model.recommend([0, 1], with_index(sparse.csr_matrix, index), N=2)
        with pytest.raises(ParameterError, match="user_items has indices"):
            model.score(with_index(sparse.csr_matrix, index))


@pytest.mark.parametrize("indptr", [[0, 2, 0], [0, 3, -1], [0, 1, 0], [2, 2, 2]])
def test_rows_that_end_before_they_begin(indptr: list[int]) -> None:
    """scipy's own check looks at none of them where the last row ends at 0 or before."""
    arrays = {"data": np.ones(3, np.float32), "indices": np.arange(3, dtype=np.int32), "indptr": np.array(indptr)}
    with pytest.raises(ArtifactError, match=r"^similarity is no \(2, 4\) CSR matrix: "):
        build_csr(arrays, "similarity", 4)
