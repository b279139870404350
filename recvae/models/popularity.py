"""Popularity: the baseline that every personal model has to beat."""

import numpy as np
from scipy import sparse

from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.types import FloatArray


class Popularity(Recommender):
    """Recommends the items with most interactions to everybody; an item's score is the log of its share of them."""

    def __init__(self) -> None:
        """Take no hyperparameters."""

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        """Learn nothing beyond `item_counts_`, which the base class counts."""
        with context.report_end():
            pass

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        return np.repeat(self._popularity_prior()[None, :], user_items.shape[0], axis=0)

    def _state(self) -> State:
        return {}

    def _restore(self, state: State) -> None:
        """Restore nothing beyond `item_counts_`."""
