"""What the routes share: from requests to answers of the model that serves when they begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recvae.errors import UnsupportedError
from recvae.inference import ranker as ranking
from recvae.inference.ranker import Ranked
from recvae.serving import schemas
from recvae.serving.batching import Batcher
from recvae.serving.live_model import Models, Served
from recvae.serving.problems import ProblemError
from recvae.serving.settings import Settings
from recvae.serving.telemetry import Metrics
from recvae.serving.user_store import UserStore


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    settings: Settings
    models: Models
    batcher: Batcher
    metrics: Metrics
    store: UserStore | None

    @property
    def served(self) -> Served:
        """The model that serves now."""
        if self.models.current is None:
            raise ProblemError(503, f"no model is loaded{': ' if self.models.error else ''}{self.models.error or ''}")
        return self.models.current

    async def answer(self, asked: schemas.Recommend, served: Served) -> dict[str, Any]:
        """The list for one request, scored together with others that are asked for at the same time."""
        find = served.ranker.items.find
        history, unknown = find(asked.history)
        exclude, only = list[int](), None
        if asked.exclude:
            exclude, more = find(asked.exclude)
            unknown += more
        if asked.only is not None:
            only, more = find(asked.only)
            unknown += more
        self.metrics.history(len(asked.history), len(unknown))
        query = ranking.Query(history, asked.n, exclude, only)
        return await self.ranked(query, served, unknown, asked.explain)

    async def ranked(
        self, query: ranking.Query, served: Served, unknown: Sequence[int | str], explain: bool
    ) -> dict[str, Any]:
        """The answer for a query."""
        try:
            if explain:
                ranked, reasons = await self.batcher.submit(served.rank_with_reasons, query)
            else:
                ranked, reasons = await self.batcher.submit(served.rank, query), None
        except UnsupportedError as error:
            raise ProblemError(422, str(error), "history") from None
        items = described(served, ranked)
        if reasons is not None:
            for item, because in zip(items, reasons, strict=True):
                item["because"] = [
                    {"id": entry["id"], "title": entry["title"], "contribution": entry["score"]}
                    for entry in described(served, because)
                ]
        return {"items": items, "unknown": unknown, "model": served.name}

    async def user_query(self, user: str, n: int, served: Served) -> tuple[ranking.Query, list[int | str]]:
        """What to list for a user: the artifact's history and the interactions that were appended since."""
        known = served.ranker.find_user(user)
        appended = [] if self.store is None else await self.store.history(user, self.settings.max_history)
        if known is None and not appended:
            raise ProblemError(404, f"user {user!r} is not known", "user_id")
        row, history = known or (None, [])
        indices, unknown = served.ranker.items.find(appended)
        return ranking.Query(list(dict.fromkeys([*history, *indices])), n, user=row), unknown


def described(served: Served, ranked: Ranked) -> list[dict[str, Any]]:
    """Items of an answer."""
    ids, titles = served.ranker.items.ids, served.ranker.titles
    return [{"id": ids[index], "title": titles[index], "score": score} for index, score in ranked]
