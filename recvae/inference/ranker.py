"""`Ranker`: ranks a batch of queries with the model of an artifact, by item indices."""

from collections.abc import Generator, Mapping, Sequence
from copy import copy
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
from scipy import sparse

from recvae.data.csr import round_weights
from recvae.errors import UnsupportedError
from recvae.inference.ids import Id, IdIndex
from recvae.inference.index import ItemIndex, sample_histories
from recvae.inference.new_items.decoder_scorer import DecoderScorer
from recvae.inference.new_items.new_items import NewItems, check_new_item, compare_items, find_new_items
from recvae.inference.new_items.scorer import NewItemScorer
from recvae.inference.rules.metadata import Metadata
from recvae.inference.rules.query import Query
from recvae.inference.rules.selection import Ranked, Rules, best_items, choose, prepare_scores
from recvae.inference.titles import check_values, read_titles, replace_titles
from recvae.memory import row_batches
from recvae.models.autoencoders.decoder import Decoder
from recvae.models.registry import Artifact
from recvae.topn import top_n
from recvae.types import FloatArray, IntArray

__all__ = ["DECIMALS", "Query", "Ranker"]

DECIMALS = 6
"""Scores are rounded: float32 holds no more, and products of other batch sizes differ in the last bits."""


class Ranker:
    """An artifact's model with its ids and titles.

    Parameters
    ----------
    loaded : Artifact
    exact_items : int, optional
        Largest catalogue of which every item is scored; above it an autoencoder's candidates come from an `ItemIndex`.

    Attributes
    ----------
    items : IdIndex
        Ids of the model's items, which histories consist of.
    metadata : Metadata
        Of the model's items and the new ones.
    titles : list of str or None
        Of the model's items.
    new : NewItems, optional
        Items that are listed by their metadata; their indices follow those of the model's items.
    users : IdIndex, optional
        None where the artifact was saved without users.
    """

    def __init__(self, loaded: Artifact, exact_items: int | None = None) -> None:
        self.loaded, self.model = loaded, loaded.model
        table = loaded.item_table
        self.items, self.metadata = IdIndex(table["item_id"]), Metadata(table)
        self.titles = self._own_titles = read_titles(table)
        self.users = None if loaded.user_table is None else IdIndex(loaded.user_table["user_id"])
        self._own_metadata = self.metadata
        self.new: NewItems | None = None
        large = exact_items is not None and len(table) > exact_items
        self.index: ItemIndex | None = None
        if large and isinstance(self.model, Decoder):
            sample = sample_histories(loaded.user_table, self.model.item_counts_)
            self.index = ItemIndex.build(self.model, self.user_items(sample))

    @cached_property
    def scorer(self) -> NewItemScorer:
        """Scores new items by what the artifact says of its own."""
        return NewItemScorer.learn(self._own_metadata, self._own_titles, self.model.item_counts_)

    @cached_property
    def _decoder_scorer(self) -> DecoderScorer | None:
        return None if self.index is None else DecoderScorer(self.scorer, self.index.model)

    def with_items(self, given: Mapping[Id, Mapping[str, Any]]) -> "Ranker":
        """Return a ranker with other metadata of some items, and with new items; see `find_new_items`.

        Parameters
        ----------
        given : mapping of item id to values by column
            In place of what was given to this ranker. Of items that the model knows, columns that are not named are the
            artifact's; values that do not fit their column are left out.
        """
        changed, new = dict[int, Mapping[str, Any]](), dict[Id, Mapping[str, Any]]()
        for item, values in given.items():
            if (index := self.items.get(item)) is None:
                new[item] = values
            else:
                changed[index] = values
        metadata = self._own_metadata.updated(changed)
        found = find_new_items(new, self.items, metadata, self.scorer) if new else None
        if found is not None:
            self._decoder_scorer  # noqa: B018 made before the copy, which keeps it
        ranker = copy(self)
        ranker.titles = replace_titles(self._own_titles, changed)
        ranker.new, ranker.metadata = found, metadata if found is None else found.metadata
        return ranker

    def check_item(self, item: Id, given: Mapping[str, Any]) -> Id:
        """Check the metadata of a known or new item; return its id in the type of the model's; see `check_new_item`."""
        if (index := self.items.get(item)) is None:
            return check_new_item(item, given, self.items, self.metadata, self.scorer, self.new)
        check_values(given, self.metadata)
        return self.items.ids[index]

    def find_listed(self, given: Sequence[Id]) -> tuple[list[int], list[Id]]:
        """Return the indices of ids among the model's and the new items, each once, and the unknown ids."""
        known, unknown = self.items.find(given)
        if self.new is None or not unknown:
            return known, unknown
        new, unknown = self.new.ids.find(unknown)
        return [*known, *(len(self.items) + place for place in new)], unknown

    def find_user(self, user: int | str) -> tuple[int, list[int]] | None:
        """Return row and history of a user of the artifact, or None for an unknown user."""
        table = self.loaded.user_table
        row = None if self.users is None else self.users.get(user)
        if row is None or table is None:
            return None
        return row, sorted({int(i) for i in table["history"][row].as_py()})

    def find_weights(self, row: int) -> list[float] | None:
        """Return the weights of the history that `find_user` gives, summed where items repeat; None where all are 1."""
        table = self.loaded.user_table
        if table is None or "weights" not in table.column_names:
            return None
        weights: dict[int, float] = {}
        for item, weight in zip(table["history"][row].as_py(), table["weights"][row].as_py(), strict=True):
            weights[item] = weights.get(item, 0.0) + weight
        return [weights[item] for item in sorted(weights)]

    def describe(self, ranked: Ranked) -> list[dict[str, Any]]:
        """Return ranked items as `{"id", "title", "score"}`."""
        ids, titles = self.items.ids, self.titles
        return [
            {"id": ids[index], "title": titles[index], "score": score}
            if self.new is None or index < len(ids)
            else {**self.new.describe(index - len(ids)), "score": score}
            for index, score in ranked
        ]

    def rank(self, queries: Sequence[Query]) -> list[Ranked]:
        """Rank a batch of queries.

        Raises
        ------
        UnsupportedError
            If the model ranks only for users it was trained on and a query has a history but no user, or a query asks
            for diversity and the model cannot compare items.
        """
        extended = self.new is not None and self.index is None
        ruled = [place for place, query in enumerate(queries) if extended or query.rules is not None]
        if not ruled:
            return self._rank_freely(queries)
        lists = dict(zip(ruled, self._rank_by_rules([queries[place] for place in ruled]), strict=True))
        rest = [place for place in range(len(queries)) if place not in lists]
        lists.update(zip(rest, self._rank_freely([queries[place] for place in rest]), strict=True))
        return [lists[place] for place in range(len(queries))]

    def _rank_freely(self, queries: Sequence[Query]) -> list[Ranked]:
        """Rank queries without rules."""
        if not self.model.folds_in:
            return [self._rank_known_user(query) for query in queries]
        return self._rank_all_items(queries) if self.index is None else self._rank_shortlists(self.index, queries)

    def explain(self, query: Query, ranked: Ranked, n: int) -> Generator[None, None, list[Ranked]]:
        """Find, for each ranked item, at most n items of the history that raise its score most, and by how much.

        It is a generator that yields after each few milliseconds of work, and returns the reasons;
        `UnsupportedError` if the model ranks only for users it was trained on.
        """
        items = [index for index, _ in ranked if index < len(self.items)]
        if not items or not query.history:
            return [[] for _ in ranked]
        if not self.model.folds_in:
            raise UnsupportedError(
                f"{type(self.model).__name__} gives no reasons, since it ranks only for users it was trained on"
            )
        history = self._histories([query])
        reasons, lost = yield from self.model.explain_in_steps(history, items, min(n, len(query.history)))
        found = iter([[(i, share) for i, share in row if share > 0] for row in _drop_padding(reasons, lost)])
        return [next(found) if index < len(self.items) else [] for index, _ in ranked]

    def similar(self, index: int, n: int) -> Ranked:
        """Return the n items most similar to one; `UnsupportedError` if the model has no item vectors."""
        ids, scores = self.model.similar_items(index, N=n, filter_items=[index])
        return _drop_padding(ids[None], scores[None])[0]

    def user_items(self, histories: Sequence[Sequence[int]]) -> sparse.csr_matrix:
        """Return histories as a matrix of ones, shape (n_users, n_items)."""
        indptr = np.zeros(len(histories) + 1, dtype=np.int32)
        np.cumsum([len(history) for history in histories], out=indptr[1:])
        indices = np.fromiter(chain.from_iterable(map(sorted, histories)), dtype=np.int32, count=indptr[-1])
        values = np.ones(len(indices), dtype=np.float32)
        return sparse.csr_matrix((values, indices, indptr), shape=(len(histories), len(self.items)))

    def _histories(self, queries: Sequence[Query]) -> sparse.csr_matrix:
        """Return the histories of queries as a matrix of their weights, shape (n_queries, n_items)."""
        matrix = self.user_items([query.history for query in queries])
        for i, query in enumerate(queries):
            if query.weights is not None:
                weights = round_weights(query.weights)[np.argsort(query.history)]
                matrix.data[matrix.indptr[i] : matrix.indptr[i + 1]] = weights
        return matrix

    def _rank_all_items(self, queries: Sequence[Query]) -> list[Ranked]:
        """Score every item, for queries with the same kind of filter at once."""
        ranked: list[Ranked] = [[] for _ in queries]
        for kind, rank in ((None, self._rank_batch), ("exclude", self._rank_batch), ("only", self._rank_candidates)):
            places = [place for place, query in enumerate(queries) if _filter_kind(query) == kind]
            if places:
                for place, pairs in zip(places, rank([queries[place] for place in places]), strict=True):
                    ranked[place] = pairs
        return ranked

    def _rank_batch(self, queries: Sequence[Query]) -> list[Ranked]:
        """Rank longer lists by as much as queries exclude, then drop what they exclude."""
        histories = self._histories(queries)
        longest = max(query.n + len(query.exclude) for query in queries)
        ids, scores = self.model.recommend(np.arange(len(queries)), histories, N=longest, recalculate_user=True)
        return [
            [pair for pair in pairs if pair[0] not in hidden][: query.n]
            for query, pairs in zip(queries, _drop_padding(ids, scores), strict=True)
            for hidden in [{*query.exclude}]
        ]

    def _rank_candidates(self, queries: Sequence[Query]) -> list[Ranked]:
        """Rank the candidates that queries name."""
        ranked: list[Ranked] = []
        for batch in row_batches(len(queries), 4 * len(self.items)):
            scores = self.model.score_on_device(self._histories(queries[batch]))
            for row, query in zip(scores, queries[batch], strict=True):
                candidates = np.array(sorted({*(query.only or ())} - {*query.exclude, *query.history}), dtype=np.int64)
                columns, best = top_n(row[candidates][None], query.n)
                ids = np.append(candidates, -1)[columns].astype(np.int32)  # top_n pads with column -1
                ranked += _drop_padding(ids, best)
        return ranked

    def _rank_by_rules(self, queries: Sequence[Query]) -> list[Ranked]:
        """Rank queries on the scores of all items, those with rules each by its own."""
        ranked: list[Ranked] = []
        for batch in row_batches(len(queries), 4 * len(self.items)):
            scores = self._score_all_items(queries[batch])
            if all(query.rules is None and query.only is None for query in queries[batch]):
                ranked += _rank_unseen(scores, queries[batch])
            else:
                for row, query in zip(scores, queries[batch], strict=True):
                    ranked.append(self._apply_rules(row, query, query.rules or Rules()))
        return ranked

    def _apply_rules(self, row: FloatArray, query: Query, rules: Rules) -> Ranked:
        scores = np.ascontiguousarray(row)
        prepare_scores(scores, rules, self.metadata)
        scores[[*query.history, *query.exclude]] = -np.inf
        if query.only is not None:
            left_out = np.ones(len(scores), dtype=bool)
            left_out[list(query.only)] = False
            scores[left_out] = -np.inf
        if not rules.caps and not rules.diversity:
            chosen = best_items(scores, query.n)
        else:
            chosen = choose(scores, query.n, rules, self.metadata, partial(compare_items, self.model))
        return [(item, round(score, DECIMALS)) for item, score in chosen]

    def _score_all_items(self, queries: Sequence[Query]) -> FloatArray:
        """Scores of all items, the new ones too, for each query; -inf for what a model of known users leaves out."""
        histories = self._histories(queries)
        scores = self._score_model_items(queries, histories)
        return scores if self.new is None else self.new.append_scores(scores, histories)

    def _score_model_items(self, queries: Sequence[Query], histories: sparse.csr_matrix) -> FloatArray:
        if self.model.folds_in:
            return self.model.score(histories)
        scores = np.full(histories.shape, -np.inf, dtype=np.float32)
        for i, query in enumerate(queries):
            ids, best = self.model.recommend(
                query.user or 0, histories[i], N=len(self.items), recalculate_user=query.user is None
            )
            scores[i, ids[ids >= 0]] = best[ids >= 0]
        return scores

    def _rank_known_user(self, query: Query) -> Ranked:
        only = None if query.only is None else sorted({*query.only} - {*query.exclude})
        if only == []:
            return []
        ids, scores = self.model.recommend(
            query.user or 0,
            self._histories([query]),
            N=query.n,
            filter_items=query.exclude if only is None else None,
            recalculate_user=query.user is None,
            items=only,
        )
        return _drop_padding(ids[None], scores[None])[0]

    def _rank_shortlists(self, index: ItemIndex, queries: Sequence[Query]) -> list[Ranked]:
        """Rank what the index finds; queries with candidates of their own, or too few found, from all items."""
        places = [place for place, query in enumerate(queries) if query.history and query.only is None]
        chosen = [queries[place] for place in places]
        hidden = [{*query.history, *query.exclude} for query in chosen]
        histories = self._histories(chosen)
        lists = index.search(histories, hidden, [query.n for query in chosen])
        found = {
            place: _drop_padding(*shortlist)[0] for place, shortlist in zip(places, lists, strict=True) if shortlist
        }
        if self.new is not None and self._decoder_scorer is not None and found:
            rows = self._decoder_scorer.score(histories, self.new.features)
            for place, query, row in zip(places, chosen, rows, strict=True):
                if place in found:
                    new = self.new.find_best(row, query.exclude, query.n)
                    merged = [*found[place], *((item, round(score, DECIMALS)) for item, score in new)]
                    found[place] = sorted(merged, key=lambda pair: -pair[1])[: query.n]
        rank_rest = self._rank_all_items if self.new is None else self._rank_by_rules
        return [found[place] if place in found else rank_rest([query])[0] for place, query in enumerate(queries)]


def _filter_kind(query: Query) -> str | None:
    if query.only is not None:
        return "only"
    return "exclude" if query.exclude else None


def _rank_unseen(scores: FloatArray, queries: Sequence[Query]) -> list[Ranked]:
    """Rank the items that are neither in the history nor excluded; the scores are changed."""
    for row, query in zip(scores, queries, strict=True):
        row[[*query.history, *query.exclude]] = -np.inf
    lists = _drop_padding(*top_n(scores, max(query.n for query in queries)))
    return [ranked[: query.n] for ranked, query in zip(lists, queries, strict=True)]


def _drop_padding(ids: IntArray, scores: FloatArray) -> list[Ranked]:
    """Return each row of `top_n` as pairs, without the padding of short rows."""
    rows = zip(ids.tolist(), scores.astype(np.float64).round(DECIMALS).tolist(), strict=True)
    if (ids < 0).any():
        return [[(i, score) for i, score in zip(*row, strict=True) if i >= 0] for row in rows]
    return [list(zip(*row, strict=True)) for row in rows]
