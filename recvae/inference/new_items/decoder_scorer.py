"""`DecoderScorer`: scores of new items by a decoder's output layer, without the scores of all items."""

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
        self._products = scorer.multiply(weight.T), scorer.multiply(bias[None])
        self._sample = weight[scorer.sample], bias[scorer.sample]

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
        queries, (products, constant), (weight, bias) = self._model.queries(histories), self._products, self._sample
        measured = measure_unseen(queries @ weight.T + bias, self._scorer.places, histories)
        return self._scorer.predict(queries @ products + constant, *measured, new)
