"""Popularity: the floor that every personal model has to beat."""

import numpy as np
from scipy import sparse

from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.topn import FloatArray


class Popularity(Recommender):
    """Recommends the most played items to everybody; scores are log shares of all interactions."""

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        """`item_counts_`, which the base class counts, is all there is to learn."""
        with context.report_end():
            pass

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        return np.repeat(self._popularity_prior()[None, :], user_items.shape[0], axis=0)

    def _state(self) -> State:
        return {}

    def _restore(self, state: State) -> None:
        """Nothing beyond `item_counts_`."""
