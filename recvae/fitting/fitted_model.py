"""The outcome of `fit`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from recvae.models import registry
from recvae.models.base import Recommender


@dataclass(frozen=True, eq=False)
class FittedModel:
    """The best model for some data, fitted on all of it.

    Attributes
    ----------
    model : Recommender
    name : str
        A key of `recvae.models.registry.MODELS`.
    items : DataFrame
        `item_id`, and `title` and more where given, one row for each item index.
    users : DataFrame
        `user_id` and `history` (lists of item indices), one row for each row of `user_items`.
    results : dict, optional
        Content of results.json: the figures on test users, with the search's candidates under "search". None where
        nothing could be held out.
    data, metrics : dict
        Entries of the artifact's manifest: what the model was evaluated and fitted on, and its figures.
    written : list of Path
        Report files.
    """

    model: Recommender
    name: str
    items: pd.DataFrame
    users: pd.DataFrame
    results: dict[str, Any] | None
    data: dict[str, Any]
    metrics: dict[str, Any]
    written: Sequence[Path] = ()

    def save(self, path: str | Path) -> None:
        """Write an artifact directory, which `recvae.load` reads and `recvae serve` serves."""
        registry.save(self.model, path, items=self.items, users=self.users, data=self.data, metrics=self.metrics)
