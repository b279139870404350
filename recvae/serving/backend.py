"""`Backend`: from checked requests to the content of answers, by the model that is live when they begin."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from recvae.errors import UnsupportedError
from recvae.inference.ids import Id
from recvae.inference.new_items.new_items import UnknownItemError
from recvae.inference.ranker import Query
from recvae.inference.rules.item_column import RuleError
from recvae.inference.rules.selection import Ranked, parse_rules
from recvae.serving.batching import Batcher, Steps
from recvae.serving.fields import EventItem, WeightedItem, parse_events
from recvae.serving.item_updates import ItemUpdates
from recvae.serving.live_model import LiveModel, ServedModels
from recvae.serving.problems import ProblemError
from recvae.serving.schemas import EventsFields, ListFields, RecommendFields
from recvae.serving.settings import Settings
from recvae.serving.telemetry import Metrics
from recvae.store.user_store import StoredHistory, UserStore

REQUESTS_A_STEP, IDS_A_STEP = 16, 2000
"""Requests of a batch that are ranked in one step of the slow lane, and the most ids in them."""

NO_STORE = "there is no store of interactions; RECVAE_STORE names a database"

Content = dict[str, Any]


@dataclass(frozen=True)
class Backend:
    """Everything that the routes use."""

    settings: Settings
    models: ServedModels
    batcher: Batcher
    metrics: Metrics
    store: UserStore | None
    updates: ItemUpdates | None = None

    @property
    def model(self) -> LiveModel:
        """Live model, the first of several; problem 503 where there is none."""
        return self._check_loaded(self.models.current)

    async def recommend(self, request: RecommendFields) -> Content:
        """Answer one request, scored together with those of other clients."""
        model = self._choose_model(request)
        query, unknown = self._query(request, model)
        return await self._answer(query, unknown, request.explain, model)

    async def recommend_for_user(self, user: str, request: ListFields) -> Content:
        """Answer for a user by the history of the artifact and the interactions appended since."""
        model = self._choose_model(request, user)
        stored = await self._stored_history(user)
        appended = model.event_weights.weigh(stored.events, time.time())
        known = None if stored.erased else model.ranker.find_user(user)
        # A model of known users can make nothing of what others do.
        popular = known is None and not (appended and model.ranker.model.folds_in)
        if popular and self.settings.unknown_users == "refuse":
            raise ProblemError(404, f"user {user!r} is not known", "user_id")
        row, history = known or (None, [])
        items, weights, unknown = _add_history(
            history, None if row is None else model.ranker.find_weights(row), appended, model
        )
        query = Query([]) if popular else Query(items, user=row, weights=weights)
        query, unlisted = _restrict(query, request, model, list(appended) if popular else unknown)
        content = await self._answer(query, [*unknown, *unlisted], request.explain, model)
        return {**content, "popular": True} if popular else content

    async def append_events(self, user: str, request: EventsFields) -> Content:
        """Store events of a user, all or none."""
        if self.store is None:
            raise ProblemError(501, NO_STORE)
        model, events = self._check_loaded(self.models.choose(user)), parse_events(request.items)
        stored = await self.store.append(user, events, request.list_id)
        if request.list_id is not None:
            self.metrics.count_answers(request.list_id, len(events))
        ids = [entry.id if isinstance(entry, EventItem) else entry for entry in request.items]
        unknown_types = model.event_weights.find_unknown(event.type for event in events)
        return {"stored": stored, "unknown": model.ranker.items.find(ids)[1], "unknown_types": unknown_types}

    async def erase_user(self, user: str) -> Content:
        """Erase a user's interactions from the store, and hide the artifact's history of the user from now on."""
        if self.store is None:
            raise ProblemError(501, NO_STORE)
        models = self.models.live or [self.model]  # before anything is erased
        erased = await self.store.erase(user)
        return {"erased": erased, "hidden": any(model.ranker.find_user(user) is not None for model in models)}

    async def set_item(self, item: Id, given: dict[str, Any]) -> Content:
        """Store an item's metadata, in place of what was stored for it before, for this worker and all others.

        An item that the model does not know is listed from then on, by its metadata.
        """
        if self.store is None or self.updates is None:
            raise ProblemError(501, NO_STORE)
        spelled = await asyncio.to_thread(self._check_item, item, given)
        await self.store.put_item(str(spelled), given)
        await self.updates.try_refresh(self.models)
        return {"id": spelled, "metadata": given}

    def _check_item(self, item: Id, given: Mapping[str, Any]) -> Id:
        """Return the item's id as the models spell it; a problem if none can list it, or its metadata do not fit."""
        spelled, unknown = None, None
        for model in self.models.live or [self.model]:
            try:
                spelled = model.ranker.check_item(item, given)
            except UnknownItemError as error:
                unknown = error
            except RuleError as error:
                raise ProblemError(409, str(error), error.field) from None
        if spelled is None:
            raise ProblemError(404, str(unknown), unknown.field if unknown else None)
        return spelled

    def describe_models(self) -> Content:
        """Describe the model, and each where there are several; the first time takes long, for their cards."""
        variants = [
            {
                "variant": one.variant.name,
                "share": one.variant.share,
                "model": None if one.current is None else one.current.describe(),
                "last_error": one.error,
            }
            for one in self.models.reloaders
            if one.variant.name
        ]
        return {**self.model.describe(), "last_error": self.models.error, "variants": variants}

    def _check_loaded(self, model: LiveModel | None) -> LiveModel:
        if model is None:
            reason = f": {self.models.error}" if self.models.error else ""
            raise ProblemError(503, f"no model is loaded{reason}")
        return model

    def _choose_model(self, request: ListFields, user: str | None = None, where: str = "") -> LiveModel:
        """Return the model that the request names, or that of the user; without a user, that of the history.

        `where` begins the name of the field in a problem.
        """
        if request.variant is not None:
            found = self.models.find(request.variant)
            if found is None:
                raise ProblemError(404, f"no model is called {request.variant!r}", f"{where}variant")
            if found.current is None:
                raise ProblemError(503, f"model {request.variant!r} is not loaded: {found.error}")
            return found.current
        if len(self.models.reloaders) == 1:
            return self.model
        if user is None and isinstance(request, RecommendFields):
            ids = (entry.id if isinstance(entry, WeightedItem) else entry for entry in request.history)
            user = "\0".join(sorted(map(str, ids)))
        return self._check_loaded(self.models.choose(user or ""))

    async def _stored_history(self, user: str) -> StoredHistory:
        if self.store is None:
            return StoredHistory([])
        return await self.store.history(user, self.settings.max_history)

    async def recommend_batch(self, requests: Sequence[RecommendFields]) -> list[bytes]:
        """Answer many requests of one client, in the slow lane; each answer is written as JSON."""
        explained = sum(len(request.history) ** 2 for request in requests if request.explain)
        most = self.settings.max_history**2
        if explained > most:
            detail = f"squares of the explained histories' lengths sum to {explained:,}; expected at most {most:,}"
            raise ProblemError(422, f"{detail}, the cost of one history of max_history items", "requests")
        places = dict[LiveModel, list[int]]()
        for i, request in enumerate(requests):
            places.setdefault(self._choose_model(request, where=f"requests[{i}]."), []).append(i)
        return await self.batcher.submit_steps(self._batch_steps(requests, places))

    async def judge_history(self, history: Sequence[Id]) -> Content:
        """Say how unusual a history is, in the slow lane."""
        model = self.model
        indices, unknown = model.ranker.items.find(history)
        self.metrics.count_history(len(history), len(unknown))
        try:
            score, p_value, unusual = await self.batcher.submit_steps(model.judge(indices))
        except UnsupportedError as error:
            raise ProblemError(501, str(error)) from None
        items = [
            {"id": item["id"], "title": item["title"], "surprise": item["score"]}
            for item in model.ranker.describe(unusual)
        ]
        return {"score": score, "p_value": p_value, "items": items, "unknown": unknown, "model": model.version}

    async def _answer(self, query: Query, unknown: list[Id], explain: bool, model: LiveModel) -> Content:
        with _refuse_unsupported(_find_unsupported([query], model)):
            ranked = await self.batcher.submit(model.rank, query)
        with _refuse_unsupported("explain"):
            reasons = await self.batcher.submit_steps(model.explain(query, ranked)) if explain else None
        return self._content(ranked, reasons, unknown, model)

    def _batch_steps(
        self, requests: Sequence[RecommendFields], places: Mapping[LiveModel, Sequence[int]]
    ) -> Steps[list[bytes]]:
        answers = [b""] * len(requests)
        for model, chosen in places.items():
            for block in _blocks(requests, chosen):
                queries, unknown = zip(
                    *(self._query(requests[i], model, f"requests[{i}].") for i in block), strict=True
                )
                with _refuse_unsupported(_find_unsupported(queries, model, [f"requests[{i}]." for i in block])):
                    lists = model.rank(queries)
                yield
                for i, query, ranked, missing in zip(block, queries, lists, unknown, strict=True):
                    with _refuse_unsupported(f"requests[{i}].explain"):
                        reasons = (yield from model.explain(query, ranked)) if requests[i].explain else None
                    answers[i] = orjson.dumps(self._content(ranked, reasons, missing, model))
                    yield
        return answers

    def _content(self, ranked: Ranked, reasons: list[Ranked] | None, unknown: list[Id], model: LiveModel) -> Content:
        items = model.ranker.describe(ranked)
        for item, because in zip(items, reasons or (), strict=reasons is not None):
            item["because"] = [
                {"id": reason["id"], "title": reason["title"], "contribution": reason["score"]}
                for reason in model.ranker.describe(because)
            ]
        self.metrics.count_list(model.version["version"])
        return {"items": items, "unknown": unknown, "list_id": model.next_list_id(), "model": model.version}

    def _query(self, request: RecommendFields, model: LiveModel, where: str = "") -> tuple[Query, list[Id]]:
        """Return the query for a request, and the ids that the model does not know."""
        history, weights, unknown = _find_history(request.history, model)
        self.metrics.count_history(len(request.history), len(unknown))
        query, unlisted = _restrict(Query(history, weights=weights), request, model, unknown, where)
        return query, [*unknown, *unlisted]


def _find_history(
    given: Sequence[Id | WeightedItem], model: LiveModel
) -> tuple[list[int], list[float] | None, list[Id]]:
    """Return the indices of a history's known items, their summed weights unless all are 1, and the unknown ids."""
    items = model.ranker.items
    if not any(isinstance(entry, WeightedItem) for entry in given):
        history, unknown = items.find([entry for entry in given if not isinstance(entry, WeightedItem)])
        return history, None, unknown
    weights: dict[int, float] = {}
    unknown = []
    for entry in given:
        one, weight = (entry.id, entry.weight) if isinstance(entry, WeightedItem) else (entry, 1.0)
        index = items.get(one)
        if index is None:
            unknown.append(one)
        else:
            weights[index] = weights.get(index, 0.0) + weight
    return list(weights), list(weights.values()), unknown


def _add_history(
    history: list[int], weights: list[float] | None, appended: Mapping[str, float], model: LiveModel
) -> tuple[list[int], list[float] | None, list[Id]]:
    """Add weighted items to a history: what is in both has the higher weight, since a model's history may hold both."""
    items, unknown = model.ranker.items, list[Id]()
    merged = dict(zip(history, weights or [1.0] * len(history), strict=True))
    for item, weight in appended.items():
        if (index := items.get(item)) is None:
            unknown.append(item)
        else:
            merged[index] = max(merged.get(index, 0.0), weight)
    return list(merged), None if all(weight == 1 for weight in merged.values()) else list(merged.values()), unknown


def _restrict(
    query: Query, request: ListFields, model: LiveModel, seen: Sequence[Id], where: str = ""
) -> tuple[Query, list[Id]]:
    """Add to a query what its list may hold: nothing that was `seen`, new items too.

    `where` begins the names of fields in problems.
    """
    find = model.ranker.find_listed
    exclude, unknown_exclude = find(request.exclude)
    exclude += find(seen)[0]
    only, unknown_only = (None, []) if request.only is None else find(request.only)
    rules = None
    if request.filter is not None or request.boost or request.cap or request.diversity:
        try:
            rules = parse_rules(
                model.ranker.metadata,
                filter=request.filter,
                boost=request.boost,
                cap=request.cap,
                diversity=request.diversity,
            )
        except RuleError as error:
            raise ProblemError(422, f"{where}{error}", f"{where}{error.field}") from None
    restricted = replace(query, n=request.n, exclude=exclude, only=only, rules=rules)
    return restricted, [*unknown_exclude, *unknown_only]


@contextlib.contextmanager
def _refuse_unsupported(field: str) -> Iterator[None]:
    """Turn what a model cannot do into a problem with the field that asks for it."""
    try:
        yield
    except UnsupportedError as error:
        raise ProblemError(422, str(error), field) from None


def _find_unsupported(queries: Sequence[Query], model: LiveModel, where: Sequence[str] = ("",)) -> str:
    """Name the first field that may ask for what a model cannot do: to fold a history in, or to compare items."""
    for query, begin in zip(queries, where, strict=True):
        if query.history and query.user is None and not model.ranker.model.folds_in:
            return f"{begin}history"
        if query.rules and query.rules.diversity:
            return f"{begin}diversity"
    return f"{where[0]}history"


def _blocks(requests: Sequence[RecommendFields], places: Sequence[int]) -> Iterator[list[int]]:
    """Divide the places of requests that one model answers into blocks for one step each."""
    block: list[int] = []
    n_ids = 0
    for i in places:
        size = len(requests[i].history) + len(requests[i].exclude) + len(requests[i].only or ())
        if block and (len(block) == REQUESTS_A_STEP or n_ids + size > IDS_A_STEP):
            yield block
            block, n_ids = [], 0
        block.append(i)
        n_ids += size
    if block:
        yield block
