"""`ItemIndex`: approximate search in the output layer of an autoencoder, for catalogues too large to score whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from recvae.errors import MissingDependencyError
from recvae.models.autoencoders.decoder import Decoder
from recvae.topn import top_n
from recvae.types import FloatArray, IntArray

K = 10
TARGET_RECALL = 0.995
"""Recall@10 that decides how many clusters are searched."""
ITEMS_PER_CLUSTER, ROUNDS = 50, 10
"""Sample of items that k-means learns each centre from, and its iterations."""
FIRST_PROBES = 8
SAMPLE_USERS, SAMPLE_HISTORY = 100, 50
"""Users that recall is measured on, and the most interactions of each where they are sampled."""

Found = tuple[IntArray, FloatArray]


@dataclass(frozen=True)
class ItemIndex:
    """Clusters of the output layer's item vectors: the clusters nearest to a user give candidates, scored exactly.

    The score of an item is the inner product of its weights and bias with the user's last hidden layer and 1, so the
    best items are those of largest inner product, which an inverted file finds (Sivic & Zisserman 2003; faiss).

    Attributes
    ----------
    model : Decoder
    clusters : int
    probes : int
        Clusters searched for each user: about the fewest that reach `TARGET_RECALL`.
    recall : float
        Mean share of the ten best items outside the history that the index finds, on the histories given to `build`.
    """

    model: Decoder
    clusters: int
    probes: int
    recall: float
    _file: Any

    @classmethod
    def build(cls, model: Decoder, histories: sparse.csr_matrix, seed: int = 0) -> "ItemIndex":
        """Cluster a model's items and find out how many clusters must be searched.

        Parameters
        ----------
        histories : csr_matrix, shape (n_users, n_items)
            Users on whom recall is measured; none may be empty.

        Raises
        ------
        MissingDependencyError
            If faiss is not installed.
        """
        faiss = import_faiss()
        weight, bias = model.output_layer()
        items = np.hstack([weight, bias[:, None]])
        clusters = max(1, int(2 * np.sqrt(len(items))))
        file = faiss.index_factory(items.shape[1], f"IVF{clusters},Flat", faiss.METRIC_INNER_PRODUCT)
        file.cp.niter = ROUNDS
        generator = np.random.default_rng(seed)
        sample = generator.permutation(len(items))[: ITEMS_PER_CLUSTER * clusters]
        file.train(items[sample])
        file.add(items)
        seen = [set(row.indices.tolist()) for row in histories]
        k = max(1, min(K, len(items) - max(map(len, seen))))
        exact = []
        for query, history in zip(_queries(model, histories), seen, strict=True):
            scores = query[:-1] @ weight.T + bias
            scores[list(history)] = -np.inf
            exact.append(top_n(scores[None], k)[0])
        index = cls(model, clusters, 0, 0.0, file)
        while index.recall < TARGET_RECALL and index.probes < clusters:
            file.nprobe = min(max(FIRST_PROBES, index.probes + index.probes // 2), clusters)
            found = index.search(histories, seen, [k] * len(seen))
            hits = [
                0 if lists is None else len(np.intersect1d(best, lists[0]))
                for best, lists in zip(exact, found, strict=True)
            ]
            index = cls(model, clusters, file.nprobe, float(np.mean(hits)) / k, file)
        return index

    def describe(self) -> dict[str, Any]:
        """Return the size and the measured recall of the index."""
        return {"clusters": self.clusters, "probes": self.probes, f"recall@{K}": self.recall}

    def search(self, histories: sparse.csr_matrix, hidden: Sequence[set[int]], n: Sequence[int]) -> list[Found | None]:
        """Find the best items of each user, with exact scores.

        Parameters
        ----------
        histories : csr_matrix, shape (n_users, n_items)
            None may be empty.
        hidden : sequence of sets of item indices
            Items that may not be listed, for each user.
        n : sequence of int
            Length of each user's list.

        Returns
        -------
        list of (ids, scores) or None
            None where the clusters searched hold too few items to list.
        """
        if not n:
            return []
        queries = _queries(self.model, histories)
        wanted = max(length + len(left_out) for length, left_out in zip(n, hidden, strict=True))
        _, candidates = self._file.search(queries, min(wanted, self.model.n_items_))
        weight, bias = self.model.output_layer()
        found: list[Found | None] = []
        for query, ids, left_out, length in zip(queries, candidates, hidden, n, strict=True):
            kept = np.sort(ids[(ids >= 0) & ~np.isin(ids, list(left_out))])
            if len(kept) < min(length, self.model.n_items_ - len(left_out)):
                found.append(None)
                continue
            scores = weight[kept] @ query[:-1] + bias[kept]
            columns, best = top_n(scores[None], length)
            found.append((np.append(kept, -1)[columns], best))  # top_n pads with column -1
        return found


def sample_histories(users: pa.Table | None, item_counts: npt.NDArray[np.float32]) -> list[Sequence[int]]:
    """Take histories of an artifact's users to measure recall on, or sample some where it has none."""
    known = [] if users is None else users["history"][:SAMPLE_USERS].to_pylist()
    histories = [history for history in known if history]
    if histories:
        return histories
    generator, items = np.random.default_rng(0), np.flatnonzero(item_counts)
    size = min(SAMPLE_HISTORY, -(-len(items) // 2))
    return [generator.choice(items, size, replace=False).tolist() for _ in range(SAMPLE_USERS)]


def _queries(model: Decoder, histories: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """Return the last hidden layer of each user and a 1, (n_users, size + 1), to be multiplied by weights and bias."""
    hidden = model.queries(histories)
    return np.hstack([hidden, np.ones((len(hidden), 1), dtype=np.float32)])


def import_faiss() -> Any:
    """Import faiss; `MissingDependencyError` if it is not installed."""
    try:
        return import_module("faiss")
    except ImportError:
        raise MissingDependencyError(
            "a catalogue this large needs faiss, which recvae's extra 'ann' brings; "
            "RECVAE_EXACT_ITEMS sets the size up to which every item is scored instead"
        ) from None
