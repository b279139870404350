"""Base of models whose scores are a linear layer's output, so that an index can search for the best items."""

from abc import abstractmethod

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.models.base import Recommender
from recvae.types import FloatArray, UserItems


class Decoder(Recommender):
    """Base of models whose scores are `queries(user_items) @ W.T + b`."""

    @abstractmethod
    def queries(self, user_items: UserItems) -> FloatArray:
        """The output layer's input for each history, (n_users, size of the last hidden layer) float32."""

    @abstractmethod
    def output_layer(self) -> tuple[FloatArray, FloatArray]:
        """Weights W (n_items, size of the last hidden layer) and biases b (n_items,)."""

    def _item_vectors(self) -> npt.NDArray[np.float32]:
        """The output layer's row of each item."""
        return self.output_layer()[0]

    def _score_some_items(self, histories: sparse.csr_matrix, items: npt.NDArray[np.int64]) -> FloatArray:
        weight, bias = self.output_layer()
        scores: FloatArray = self.queries(histories) @ weight[items].T + bias[items]
        scores[np.diff(histories.indptr) == 0] = self._popularity_prior()[items]
        return scores
