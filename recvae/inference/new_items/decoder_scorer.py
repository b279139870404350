"""`DecoderScorer`: scores of new items by a decoder's output layer, without the scores of all items."""

import numpy as np
from scipy import sparse

from recvae.data.split_backend import invert_index
from recvae.inference.new_items.scorer import NewItemScorer, measure_unseen
from recvae.models.autoencoders.decoder import Decoder
from recvae.types import FloatArray

SAMPLE = 1000
"""Items whose scores are computed for their mean and deviation."""


class DecoderScorer:
    """The regression of `NewItemScorer` for scores q·Wᵀ + b: their products with the features are q·(WᵀF) + bᵀF.

    Parameters
    ----------
    scorer : NewItemScorer
    model : Decoder
    """

    def __init__(self, scorer: NewItemScorer, model: Decoder) -> None:
        self._scorer, self._model = scorer, model
        weight, bias = model.output_layer()
        layer = np.hstack([weight[scorer.items], bias[scorer.items, None]])
        self._layer = (scorer.matrix.T @ layer - np.outer(scorer.sums, layer.mean(axis=0))).astype(np.float32)
        sample = scorer.items[:: max(1, -(-len(scorer.items) // SAMPLE))]
        self._sample, self._places = (weight[sample], bias[sample]), invert_index(sample, model.n_items_)

    def score(self, histories: sparse.csr_matrix, new: sparse.csr_matrix) -> FloatArray:
        """Score new items for users.

        Parameters
        ----------
        histories : csr_matrix, shape (n_users, n_items)
            None may be empty.
        new : csr_matrix, shape (m, n)
            Features of the new items.

        Returns
        -------
        (n_users, m) float32
        """
        queries, (weight, bias) = self._model.queries(histories), self._sample
        products = queries @ self._layer[:, :-1].T + self._layer[:, -1]
        unseen = measure_unseen(queries @ weight.T + bias, self._places, histories)
        return self._scorer.predict(products, *unseen, new)
