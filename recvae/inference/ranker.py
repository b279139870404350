"""From ids to lists of titles: what the command line and the service answer from an artifact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from recvae.errors import ParameterError
from recvae.inference.index import ItemIndex
from recvae.memory import row_batches
from recvae.models.autoencoders.decoder import Decoder
from recvae.storage import artifact
from recvae.storage.artifact import Artifact
from recvae.topn import FloatArray, IntArray, mask_seen, top_n

DECIMALS = 6
LARGEST_NUMBER = 2**53 - 1
"""Whole numbers beyond it, which many readers of JSON round, are written as text."""
LONGEST_NUMBER = 20
MEASURED, MADE_UP = 100, 50
"""Users that recall is measured on, and most interactions of each where they have to be made up."""

Ranked = list[tuple[int, float]]
"""Item indices and scores, best first."""


@dataclass(frozen=True)
class Answer:
    """A list of `{"id", "title", "score"}`, best first, and the ids of the history that the model does not know."""

    items: list[dict[str, Any]]
    unknown: list[Any]


@dataclass(frozen=True)
class Query:
    """One list to make.

    Attributes
    ----------
    history : item indices
        Without repetition; none gives the popular items.
    n : int
        Length of the list; it is shorter where fewer items remain.
    exclude : item indices
        Not to be listed, beside the history.
    only : item indices, optional
        The only ones to be listed.
    user : int, optional
        Row among the artifact's users, for models that rank only for those they were trained on.
    """

    history: Sequence[int]
    n: int = 10
    exclude: Sequence[int] = ()
    only: Sequence[int] | None = None
    user: int | None = None


class Ranker:
    """An artifact's model with its ids and titles.

    Parameters
    ----------
    loaded : Artifact
    exact_items : int, optional
        Largest catalogue of which every item is scored; above it an autoencoder's items are shortlisted by an
        `ItemIndex`.
    """

    def __init__(self, loaded: Artifact, exact_items: int | None = None) -> None:
        self.loaded = loaded
        self.model = loaded.model
        columns = loaded.item_table.column_names
        self.item_ids = [_plain(item) for item in loaded.item_table["item_id"].to_pylist()]
        titles = loaded.item_table["title"].to_pylist() if "title" in columns else [None] * len(self.item_ids)
        self.titles = [None if title is None or title != title else str(title) for title in titles]
        self._items: dict[Any, int] = {item: i for i, item in enumerate(self.item_ids)}
        large = exact_items is not None and len(self.item_ids) > exact_items
        self.index = self._indexed(self.model) if large and isinstance(self.model, Decoder) else None

    def find(self, ids: Sequence[int | str]) -> tuple[list[int], list[int | str]]:
        """Item indices of the ids that the model knows, in order and without repetition, and the unknown ids."""
        try:
            indices = [self._items[item] for item in ids]
        except KeyError:
            found = [(item, self._items.get(item, _lookup(self._items, item))) for item in ids]
            unknown = [item for item, index in found if index is None]
            return list(dict.fromkeys(index for _, index in found if index is not None)), unknown
        return (indices if len(set(indices)) == len(indices) else list(dict.fromkeys(indices))), []

    def user(self, user: int | str) -> tuple[int, list[int]] | None:
        """Row and history of a user whom the artifact holds."""
        row = self._users.get(user)
        row = _lookup(self._users, user) if row is None else row
        if row is None or self.loaded.user_table is None:
            return None
        return row, sorted(int(i) for i in self.loaded.user_table["history"][row].as_py())

    def described(self, index: int, score: float) -> dict[str, Any]:
        """One item of an answer."""
        return {"id": self.item_ids[index], "title": self.titles[index], "score": score}

    def rank(self, queries: Sequence[Query]) -> list[Ranked]:
        """The best items of each query, by `Recommender.score` and `top_n` for all queries at once.

        Raises
        ------
        UnsupportedError
            If the model ranks only for users it was trained on and a query has a history but no user.
        """
        if not self.model.folds_in:
            return [self._for_known_user(query) for query in queries]
        if self.index is not None:
            return self._shortlisted(self.index, queries)
        ranked: list[Ranked] = []
        for batch in row_batches(len(queries), 4 * len(self.item_ids)):
            ranked += self._from_all(queries[batch])
        return ranked

    def explain(self, query: Query, ranked: Ranked, n: int) -> list[Ranked]:
        """For each ranked item the items of the history that speak for it, with what the score owes to them."""
        if not ranked or not query.history:
            return [[] for _ in ranked]
        items = [index for index, _ in ranked]
        because, lost = self.model.explain(self.histories([query.history]), items, N=min(n, len(query.history)))
        return [[(i, owed) for i, owed in row if owed > 0] for row in _listed(because, lost)]

    def similar(self, index: int, n: int) -> Ranked:
        """The n items most like one; `UnsupportedError` if the model has no item vectors."""
        ids, scores = self.model.similar_items(index, N=n, filter_items=[index])
        return _listed(ids[None], scores[None])[0]

    def histories(self, histories: Sequence[Sequence[int]]) -> sparse.csr_matrix:
        """Item indices of each user as a matrix, shape (n_users, n_items)."""
        lengths = [len(history) for history in histories]
        indptr = np.zeros(len(lengths) + 1, dtype=np.int32)
        np.cumsum(lengths, out=indptr[1:])
        indices = np.fromiter(chain.from_iterable(map(sorted, histories)), dtype=np.int32, count=indptr[-1])
        values = np.ones(len(indices), dtype=np.float32)
        return sparse.csr_matrix((values, indices, indptr), shape=(len(lengths), len(self.item_ids)))

    @cached_property
    def _users(self) -> Mapping[Any, int]:
        table = self.loaded.user_table
        return {} if table is None else {_plain(user): row for row, user in enumerate(table["user_id"].to_pylist())}

    def _indexed(self, model: Decoder) -> ItemIndex:
        """An index whose recall is measured on users of the artifact, or on items of training where it has none."""
        table = self.loaded.user_table
        users = [] if table is None else table["history"][:MEASURED].to_pylist()
        histories = [history for history in users if history]
        if not histories:
            generator = np.random.default_rng(0)
            played = np.flatnonzero(model.item_counts_)
            size = min(MADE_UP, -(-len(played) // 2))
            histories = [generator.choice(played, size, replace=False) for _ in range(MEASURED)]
        return ItemIndex.build(model, self.histories(histories))

    def _from_all(self, queries: Sequence[Query]) -> list[Ranked]:
        histories = self.histories([query.history for query in queries])
        scores = self.model.score_on_device(histories)
        mask_seen(scores, histories)
        for row, query in zip(scores, queries, strict=True):
            _keep_listed(row, query)
        ids, best = top_n(scores, max(query.n for query in queries))
        return [pairs[: query.n] for pairs, query in zip(_listed(ids, best), queries, strict=True)]

    def _shortlisted(self, index: ItemIndex, queries: Sequence[Query]) -> list[Ranked]:
        """By the index where it holds enough items, from all scores where not."""
        places = [place for place, query in enumerate(queries) if query.history and query.only is None]
        chosen = [queries[place] for place in places]
        histories = self.histories([query.history for query in chosen])
        hidden = [{*query.history, *query.exclude} for query in chosen]
        found = dict(zip(places, index.search(histories, hidden, [query.n for query in chosen]), strict=True))
        ranked: list[Ranked] = []
        for place, query in enumerate(queries):
            lists = found.get(place)
            ranked += self._from_all([query]) if lists is None else _listed(*lists)
        return ranked

    def _for_known_user(self, query: Query) -> Ranked:
        only = None if query.only is None else sorted({*query.only} - {*query.exclude})
        if only == []:
            return []
        ids, scores = self.model.recommend(
            query.user or 0,
            self.histories([query.history]),
            N=query.n,
            filter_items=query.exclude if only is None else None,
            recalculate_user=query.user is None,
            items=only,
        )
        return _listed(ids[None], scores[None])[0]


def recommend(
    model_path: Path, *, history: Sequence[str] | None = None, user: str | None = None, n: int = 10
) -> Answer:
    """The n best items for a history of item ids, or for a user whose history the artifact holds.

    Raises
    ------
    ParameterError
        If n does not fit the catalogue, no item of the history is known, or the user is not.
    UnsupportedError
        If the model ranks only for users it was trained on and a history is given.
    """
    ranker = Ranker(artifact.load(model_path, frozen=True))
    n_items = len(ranker.item_ids)
    if not 1 <= n <= n_items:
        raise ParameterError(f"n is {n}; expected 1 to {n_items:,}, the items of the catalogue")
    query, unknown = _by_history(ranker, history or []) if user is None else _by_user(ranker, user, model_path)
    (ranked,) = ranker.rank([replace(query, n=n)])
    return Answer([ranker.described(index, score) for index, score in ranked], unknown)


def _by_history(ranker: Ranker, history: Sequence[str]) -> tuple[Query, list[Any]]:
    """The query for item ids, and those that are unknown."""
    known, unknown = ranker.find(history)
    if not known:
        like = ", ".join(map(str, ranker.item_ids[:3]))
        raise ParameterError(f"history is {', '.join(history) or 'empty'}; none is known: ids look like {like}")
    return Query(known), list(unknown)


def _by_user(ranker: Ranker, user: str, model_path: Path) -> tuple[Query, list[Any]]:
    """The query for a user of the artifact, who has no unknown items."""
    if ranker.loaded.user_table is None:
        raise ParameterError(f"user is {user}, but {model_path} was saved without users; give a history instead")
    found = ranker.user(user)
    if found is None:
        like = ", ".join(map(str, ranker.loaded.user_table["user_id"][:3].to_pylist()))
        raise ParameterError(f"user is {user}, which {model_path} does not know; ids look like {like}")
    row, history = found
    return Query(history, user=row), []


def _keep_listed(row: Any, query: Query) -> None:
    """Set what a query leaves out to -inf."""
    if query.only is not None:
        only = np.array(query.only, dtype=np.int64)
        kept = row[only]
        row[:] = -np.inf
        row[only] = kept
    if query.exclude:
        row[np.array(query.exclude, dtype=np.int64)] = -np.inf


def _listed(ids: IntArray, scores: FloatArray) -> list[Ranked]:
    """The rows of `top_n` without padding."""
    rows = zip(ids.tolist(), scores.astype(np.float64).round(DECIMALS).tolist(), strict=True)
    if (ids < 0).any():
        return [[(i, score) for i, score in zip(*row, strict=True) if i >= 0] for row in rows]
    return [list(zip(*row, strict=True)) for row in rows]


def _plain(value: Any) -> int | str:
    """An id as JSON can write it so that everybody reads the same."""
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
    return value if whole or isinstance(value, str) else str(value)


def _lookup(known: Mapping[Any, int], given: int | str) -> int | None:
    """The index of an id that is written as text but known as a number, or the other way round."""
    if isinstance(given, int):
        return known.get(str(given))
    if len(given) <= LONGEST_NUMBER and given.removeprefix("-").isdecimal() and given == str(int(given)):
        return known.get(int(given))
    return None
