"""All interactions of a prepared directory in one matrix, for the model that is used once its settings are chosen."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import sparse

from recvae.data.interactions import Interactions
from recvae.data.items import match_items
from recvae.data.prepared import Prepared
from recvae.data.split import list_histories


@dataclass(frozen=True, eq=False)
class Everything:
    """Validation and test users' interactions beside those of training, and the items that training does not have.

    Attributes
    ----------
    user_items : csr_matrix, float32, shape (n_users, n_items)
        Rows and columns in ascending order of the ids.
    items : DataFrame
        `item_id`, and `title` and more where given, one row for each column.
    users : DataFrame
        `user_id`, `history` (lists of item indices), and `weights` where there are any, one row for each row.
    """

    user_items: sparse.csr_matrix
    items: pd.DataFrame
    users: pd.DataFrame

    def describe(self) -> dict[str, Any]:
        """Entries of the manifest's `data` that say what a model was fitted on."""
        n_users, n_items = self.user_items.shape
        counts = {"users": n_users, "items": n_items, "interactions": int(self.user_items.nnz)}
        return {"fitted_on": "all", "fitted_counts": counts}


def read_everything(prepared: Prepared, described: pd.DataFrame | None = None) -> Everything:
    """Read the interactions of a prepared directory, those of all sides of the split.

    Parameters
    ----------
    described : DataFrame, optional
        `item_id` with `title` and other columns, of any items; those of the prepared directory are of training's only.
    """
    titles = prepared.items if described is None else described
    return collect_everything(prepared.read_interactions(), titles)


def collect_everything(interactions: Interactions, described: pd.DataFrame | None = None) -> Everything:
    """Collect interactions in one matrix, with titles and other columns of the items where these are given."""
    items = pd.DataFrame({"item_id": interactions.item_ids})
    if described is not None:
        titles, _ = match_items(described, interactions.item_ids)
        items = items.merge(titles.drop_duplicates("item_id"), on="item_id", how="left", validate="1:1")
    matrix = interactions.user_items
    return Everything(matrix, items, list_histories(interactions.user_ids, matrix))
