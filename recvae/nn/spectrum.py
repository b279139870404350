"""The leading directions of a user-item matrix, from which a network's layers can start."""

import torch
from scipy import sparse
from torch import Tensor

from recvae.data.csr import normalise_by_degrees
from recvae.nn.batches import Batch
from recvae.nn.item_layers import weighted_sum

ITERATIONS = 4
MAX_INTERACTIONS = 4_000_000


def item_vectors(user_items: sparse.csr_matrix, k: int, generator: torch.Generator) -> Tensor:
    """The k leading right singular vectors of R̃ = D_U^−½ R D_I^−½, (n_items, k), on the generator's device.

    Subspace iteration from random vectors (Halko et al. 2011, algorithm 4.4), on as many evenly spaced users as have
    about four million interactions. Fewer than k columns where users or items are fewer.
    """
    interactions = normalise_by_degrees(_spread_users(user_items))
    device = generator.device
    by_user, by_item = Batch.from_csr(interactions, device), Batch.from_csr(interactions.T.tocsr(), device)
    vectors = torch.randn(interactions.shape[1], min(k, *interactions.shape), generator=generator, device=device)
    for _ in range(ITERATIONS):
        vectors = torch.linalg.qr(_product(by_item, _product(by_user, vectors))).Q
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
