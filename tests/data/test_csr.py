import numpy as np
from scipy import sparse

from recvae.data.csr import fingerprint


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
