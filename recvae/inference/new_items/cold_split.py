"""`ColdItemRanker`: any model on the split `cold-items`, where only items without interactions are ranked."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from recvae.data.split import Split
from recvae.errors import DataError
from recvae.inference.new_items.scorer import NewItemScorer
from recvae.inference.rules.metadata import Metadata
from recvae.inference.titles import read_titles
from recvae.models.base import Recommender
from recvae.topn import top_n
from recvae.types import FloatArray, IntArray


class ColdItemRanker:
    """A model that ranks the cold items of a split, by their metadata and its scores of the others.

    It has the model's attributes, so that a comparison fits it and reports of it as of the model itself.

    Parameters
    ----------
    model : Recommender
    split : Split
        Of kind `cold-items`; its test users' held-out items are those that are ranked.
    items : DataFrame
        `item_id`, and the items' metadata.

    Attributes
    ----------
    cold : (m,) int
        Indices of the cold items.
    features : csr_matrix, shape (n_items, n_features)
    scorer : NewItemScorer

    Raises
    ------
    DataError
        If the items have no metadata.
    """

    def __init__(self, model: Recommender, split: Split, items: pd.DataFrame) -> None:
        self.model, self.cold = model, np.unique(split.test.held_out.indices)
        table = pa.Table.from_pandas(items, preserve_index=False)
        metadata = Metadata(table)
        titles = read_titles(table)
        counts = np.bincount(split.train.indices, minlength=split.train.shape[1])
        self.scorer = NewItemScorer.learn(metadata, titles, counts.astype(np.float32))
        if not self.scorer.features.n:
            raise DataError(
                "split is 'cold-items', but the items have no metadata that several share; expected data "
                "prepared with a table of the items (recvae prepare --items)"
            )
        self.features = self.scorer.features.encode(metadata, titles, np.arange(len(items)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property
    def folds_in(self) -> bool:
        return self.model.folds_in

    def get_params(self) -> dict[str, Any]:
        """The model's."""
        return self.model.get_params()

    def fit(self, user_items: Any, *, show_progress: bool = True, callback: Any = None, validation: Any = None) -> Any:
        """Fit the model."""
        self.model.fit(user_items, show_progress, callback, validation)
        return self

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,  # noqa: N803 implicit's name
        *,
        recalculate_user: bool = False,
    ) -> tuple[IntArray, FloatArray]:
        """Rank the N best cold items; see `Recommender.recommend`."""
        scores = self.model.score(user_items) if recalculate_user else self._score_known_users(userid, user_items)
        return rank_cold(self.scorer.score(scores, user_items, self.features[self.cold]), self.cold, N)

    def _score_known_users(self, userid: npt.ArrayLike, user_items: Any) -> FloatArray:
        n_items = self.model.n_items_
        ids, found = self.model.recommend(userid, user_items, N=n_items, filter_already_liked_items=False)
        scores = np.empty_like(found)
        np.put_along_axis(scores, ids.astype(np.int64), found, axis=1)
        return scores


def rank_cold(scores: FloatArray, cold: IntArray, n: int) -> tuple[IntArray, FloatArray]:
    """Rank the n best of the cold items, (n_users, n) ids and scores, by scores of shape (n_users, n_cold)."""
    columns, best = top_n(scores, n)
    return np.where(columns < 0, -1, cold[columns]).astype(np.int32), best


def rank_cold_items(model: Recommender, split: Split, items: pd.DataFrame) -> Recommender | ColdItemRanker:
    """Return what `evaluate` ranks with on a split: a `ColdItemRanker` on `cold-items`, else the model itself."""
    return ColdItemRanker(model, split, items) if split.protocol.get("split") == "cold-items" else model
