"""An approximate index over a decoder's output layer, for catalogues too large to score whole."""

from collections.abc import Sequence
from typing import Any

from scipy import sparse

from recvae.models.base import Recommender
from recvae.topn import FloatArray, IntArray


class ItemIndex:
    recall: float = 1.0

    @classmethod
    def of(cls, model: Recommender, exact_items: int) -> "ItemIndex | None":
        return None

    def about(self) -> dict[str, Any]:
        return {}

    def search(
        self, histories: sparse.csr_matrix, hidden: Sequence[set[int]], n: Sequence[int]
    ) -> list[tuple[IntArray, FloatArray] | None]:
        raise NotImplementedError
