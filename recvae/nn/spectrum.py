"""The leading directions of a user-item matrix, from which a network's layers can start."""

from time import perf_counter

import torch
from scipy import sparse
from torch import Tensor

from recvae.data.csr import normalise_by_degrees
from recvae.machine.cores import THREADS_ARE_GIVEN
from recvae.nn.batches import Batch
from recvae.nn.item_layers import weighted_sum

ITERATIONS = 4
MAX_INTERACTIONS = 4_000_000
LARGE = 400_000_000
"""Rows times squared columns of a matrix from which on a decomposition may have more threads than one: a smaller one
takes a hundredth of a second longer with one, if no other process is busy.
"""


class Orthonormaliser:
    """Gives the columns of matrices an orthonormal basis, by one thread where that is faster.

    The threads of a QR decomposition wait for each other at every column: beside one busy process two take up to twenty
    times as long as one, and without it half as long. Large matrices, of which a subspace iteration has several of one
    size, show which it is.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def __call__(self, matrix: Tensor) -> Tensor:
        """Return Q of QR, of the matrix's shape, on its device."""
        most = torch.get_num_threads()
        if matrix.device.type != "cpu" or most == 1 or THREADS_ARE_GIVEN:
            return _find_basis(matrix)
        if len(matrix) * matrix.shape[1] ** 2 < LARGE:
            chosen = 1
        else:
            untried = [number for number in (most, 1) if number not in self._seconds]
            chosen = untried[0] if untried else min(self._seconds, key=self._seconds.__getitem__)
        torch.set_num_threads(chosen)
        try:
            started = perf_counter()
            basis = _find_basis(matrix)
            self._seconds[chosen] = perf_counter() - started
        finally:
            torch.set_num_threads(most)
        return basis


def _find_basis(matrix: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(matrix).Q
    return basis


def item_vectors(user_items: sparse.csr_matrix, k: int, generator: torch.Generator) -> Tensor:
    """The k leading right singular vectors of R̃ = D_U^−½ R D_I^−½, (n_items, k), on the generator's device.

    Subspace iteration from random vectors (Halko et al. 2011, algorithm 4.4), on as many evenly spaced users as have
    about four million interactions. Fewer than k columns where users or items are fewer.
    """
    interactions = normalise_by_degrees(_spread_users(user_items))
    device = generator.device
    by_user, by_item = Batch.from_csr(interactions, device), Batch.from_csr(interactions.T.tocsr(), device)
    vectors = torch.randn(interactions.shape[1], min(k, *interactions.shape), generator=generator, device=device)
    orthonormalise = Orthonormaliser()
    for _ in range(ITERATIONS):
        vectors = orthonormalise(_product(by_item, _product(by_user, vectors)))
    projected = _product(by_user, vectors)
    ascending: Tensor = torch.linalg.eigh(projected.T @ projected).eigenvectors
    return vectors @ ascending.flip(1)


@torch.no_grad()
def start_from_vectors(weight: Tensor, vectors: Tensor, scale: float) -> None:
    """Replace random columns of a weight, (n_items, size), by singular vectors with `scale` times their norm."""
    random = weight[:, : vectors.shape[1]]
    used = vectors[:, : random.shape[1]]
    random.copy_(used * (scale * random.norm() / used.norm()))


def _spread_users(user_items: sparse.csr_matrix) -> sparse.csr_matrix:
    """As many evenly spaced users as have about `MAX_INTERACTIONS`."""
    step = -(-user_items.nnz // MAX_INTERACTIONS)
    return user_items[::step] if step > 1 else user_items


def _product(batch: Batch, vectors: Tensor) -> Tensor:
    return weighted_sum(vectors, batch.items, batch.offsets, batch.values)
