"""The leading directions of a user-item matrix, from which a network's layers can start."""

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recvae.nn import weighted_sum
from recvae.rows import Rows

ITERATIONS = 4
MAX_PLAYS = 4_000_000


def item_vectors(user_items: sparse.csr_matrix, k: int, generator: torch.Generator) -> Tensor:
    """The k leading right singular vectors of R̃ = D_U^−½ R D_I^−½, (n_items, k), on the generator's device.

    Found by subspace iteration from random vectors (Halko et al. 2011, algorithm 4.4), on as many evenly spaced users
    as have about four million plays. Fewer than k columns where users or items are fewer.
    """
    plays = _some(user_items)
    users, items = (sparse.diags_array(_inverse_roots(plays, axis)) for axis in (1, 0))
    normalised = sparse.csr_matrix(users @ plays @ items, dtype=np.float32)
    device = generator.device
    by_user, by_item = Rows.of(normalised, device), Rows.of(normalised.T.tocsr(), device)
    vectors = torch.randn(plays.shape[1], min(k, *plays.shape), generator=generator, device=device)
    for _ in range(ITERATIONS):
        vectors = torch.linalg.qr(_product(by_item, _product(by_user, vectors))).Q
    projected = _product(by_user, vectors)
    ascending: Tensor = torch.linalg.eigh(projected.T @ projected).eigenvectors
    return vectors @ ascending.flip(1)


def _some(user_items: sparse.csr_matrix) -> sparse.csr_matrix:
    step = -(-user_items.nnz // MAX_PLAYS)
    return user_items[::step] if step > 1 else user_items


def _inverse_roots(plays: sparse.csr_matrix, axis: int) -> npt.NDArray[np.float32]:
    """One over the root of each row's or column's sum; 0 where that is 0."""
    sums = np.asarray(plays.sum(axis=axis), dtype=np.float32).ravel()
    return np.divide(1, np.sqrt(sums), out=np.zeros_like(sums), where=sums > 0)


def _product(rows: Rows, vectors: Tensor) -> Tensor:
    return weighted_sum(vectors, rows.items, rows.offsets, rows.values)
