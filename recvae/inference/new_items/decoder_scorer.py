"""`DecoderScorer`: scores of new items by a decoder's output layer, without the scores of all items."""

import numpy as np
from scipy import sparse

from recvae.inference.new_items.scorer import NewItemScorer, measure_unseen
from recvae.models.autoencoders.decoder import Decoder
from recvae.types import FloatArray


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
        self._weight = np.hstack([scorer.multiply(weight.T), weight[scorer.sample].T])
        self._bias = np.append(scorer.multiply(bias[None])[0], bias[scorer.sample])

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
        found = self._model.queries(histories) @ self._weight + self._bias
        products, sample = np.split(found, [self._scorer.features.n], axis=1)
        return self._scorer.predict(products, *measure_unseen(sample, self._scorer.places, histories), new)
