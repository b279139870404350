"""`NewItems`: items that a model does not know, listed beside those that it knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from recvae.inference.ids import Id, IdIndex
from recvae.inference.new_items.scorer import NewItemScorer
from recvae.inference.rules.item_column import RuleError
from recvae.inference.rules.metadata import Metadata
from recvae.inference.rules.selection import Ranked, best_items
from recvae.inference.titles import check_values
from recvae.models.base import Recommender
from recvae.types import FloatArray

MOST_NEW_ITEMS = 10_000
"""Most items that are listed beside a model's."""


class UnknownItemError(RuleError):
    """An item is not known, and cannot be a new one."""

    def __init__(self, message: str) -> None:
        super().__init__("item_id", message)


@dataclass(frozen=True, eq=False)
class NewItems:
    """New items, each with at least one feature of the model's items.

    Attributes
    ----------
    ids : IdIndex
    titles : list of str or None
    metadata : Metadata
        Of the model's items, followed by the new ones.
    features : csr_matrix, shape (m, n_features)
    scorer : NewItemScorer
    """

    ids: IdIndex
    titles: list[str | None]
    metadata: Metadata
    features: sparse.csr_matrix
    scorer: NewItemScorer

    def describe(self, place: int) -> dict[str, Any]:
        """Return an item as `{"id", "title"}`."""
        return {"id": self.ids.ids[place], "title": self.titles[place]}

    def find_best(self, scores: FloatArray, exclude: Sequence[int], n: int) -> Ranked:
        """Rank the n best new items by their scores, (m,), which are changed, but items that are excluded."""
        first = len(self.metadata) - len(self.titles)
        scores[[item - first for item in exclude if item >= first]] = -np.inf
        return [(first + place, score) for place, score in best_items(scores, n)]

    def append_scores(self, scores: FloatArray, histories: sparse.csr_matrix) -> FloatArray:
        """Append the new items' scores to those of the model's items: (n_users, n_items) to (n_users, n_items + m)."""
        return np.hstack([scores, self.scorer.score(scores, histories, self.features)])


def find_new_items(
    given: Mapping[Id, Mapping[str, Any]], known: IdIndex, metadata: Metadata, scorer: NewItemScorer
) -> NewItems | None:
    """Find the items that can be recommended by their metadata, at most `MOST_NEW_ITEMS`; None if there is none.

    Left out are items that share nothing with the model's, of which nothing could be said, and ids of another type.

    Parameters
    ----------
    given : mapping of id to metadata
        Items that the model does not know; `title` among the metadata is their title.
    known : IdIndex
        Ids of the model's items.
    metadata : Metadata
        Of the model's items.
    scorer : NewItemScorer
    """
    spelled = ((known.spell(item), values) for item, values in given.items())
    items = {item: values for item, values in spelled if item is not None}
    titles = [_find_title(values) for values in items.values()]
    first = len(metadata)
    values_of = {
        first + place: {name: value for name, value in values.items() if name != "title"}
        for place, values in enumerate(items.values())
    }
    described = metadata.extended(list(items), titles).updated(values_of)
    features = scorer.features.encode(described, titles, np.arange(first, len(described)))
    ids, kept = list(items), np.flatnonzero(np.diff(features.indptr))[:MOST_NEW_ITEMS].tolist()
    if not kept:
        return None
    if len(kept) < len(ids):
        return find_new_items({ids[place]: items[ids[place]] for place in kept}, known, metadata, scorer)
    return NewItems(IdIndex(pa.array(ids)), titles, described, features, scorer)


def check_new_item(
    item: Id,
    given: Mapping[str, Any],
    known: IdIndex,
    metadata: Metadata,
    scorer: NewItemScorer,
    listed: NewItems | None,
) -> Id:
    """Check that an item can be recommended by its metadata; return its id in the type of the model's ids.

    Parameters
    ----------
    item : id
        Of an item that the model does not know.
    given : mapping of column to value
        Its metadata. Of an item that is listed already they may be anything: it is listed no more if they say nothing.
    known, metadata, scorer
        As for `find_new_items`.
    listed : NewItems, optional
        Those that are listed already.

    Raises
    ------
    UnknownItemError
        If the id is of another type than the model's, or the metadata share nothing with its items.
    RuleError
        If a value is of another kind than its column's, or there are as many new items already as may be.
    """
    spelled = known.spell(item)
    if spelled is None:
        raise UnknownItemError(f"{item!r} is not known, and new ones are whole numbers, as the model's are")
    check_values(given, metadata)
    if listed is not None and listed.ids.get(spelled) is not None:
        return spelled
    if listed is not None and len(listed.titles) >= MOST_NEW_ITEMS:
        raise RuleError("item_id", f"is {item!r}, and {MOST_NEW_ITEMS:,} new items are listed already, the most")
    if find_new_items({spelled: given}, known, metadata, scorer) is None:
        raise UnknownItemError(
            f"{item!r} is not known, and shares nothing with the items that are; columns to share values of: "
            f"{scorer.features.describe()}"
        )
    return spelled


def _find_title(values: Mapping[str, Any]) -> str | None:
    title = values.get("title")
    return title if isinstance(title, str) else None


def compare_items(model: Recommender, items: list[int]) -> FloatArray:
    """Give the cosines of items; that of a new item with any other is the mean of those between the model's."""
    known = np.flatnonzero(np.array(items) < model.n_items_)
    found = model.compare_items([items[place] for place in known])
    if len(known) == len(items):
        return found
    n_others = len(known) * (len(known) - 1)
    mean = (found.sum() - np.trace(found)) / n_others if n_others else 0.0
    cosines = np.full((len(items), len(items)), mean, dtype=np.float32)
    cosines[np.ix_(known, known)] = found
    return cosines
