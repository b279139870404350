"""`LiveModel`, an artifact that is served, `ModelReloader`, which replaces it without a pause, and `ServedModels`."""

import asyncio
import gc
import hashlib
import itertools
import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from recvae.errors import ArtifactError, RecvaeError
from recvae.inference.card import describe_artifact
from recvae.inference.detector import detector
from recvae.inference.ids import Id
from recvae.inference.ranker import DECIMALS, Query, Ranker
from recvae.inference.rules.selection import Ranked
from recvae.inference.self_check import check_lists
from recvae.models import registry
from recvae.serving.batching import Steps
from recvae.serving.settings import Variant
from recvae.serving.telemetry import Metrics
from recvae.serving.title_search import TitleSearch
from recvae.storage.manifest import MANIFEST
from recvae.store.events import EventWeights

LOGGER = logging.getLogger("recvae.models")
N_REASONS, N_UNUSUAL = 3, 5
PROCESS_ID, NUMBERS = secrets.token_hex(6), itertools.count()


class LiveModel:
    """A loaded artifact that has passed its self-check, with what the scoring thread does for requests.

    Attributes
    ----------
    ranker : Ranker
    version : dict
        The model's class, version and time of training, which every answer carries.
    loaded_at : datetime
    event_weights : EventWeights
        Rules by which the store's events of a user become the weights of a history.
    item_changes : mapping
        What clients have set and `ranker` has, by id.
    """

    def __init__(self, path: Path, exact_items: int) -> None:
        loaded = registry.load(path, frozen=True)
        self.ranker = ranker = Ranker(loaded, exact_items)
        self.item_changes: Mapping[Id, Mapping[str, Any]] = {}
        self.loaded_at = datetime.now(UTC)
        manifest = loaded.manifest
        try:
            self.event_weights = EventWeights.of(manifest)
        except ArtifactError as error:
            raise ArtifactError(f"{path}{error}") from None
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:12]
        self.version = {"name": manifest["class"], "version": digest, "trained_at": manifest.get("trained_at")}
        named = zip(ranker.items.ids, ranker.titles, strict=True)
        self._titles = TitleSearch([title or str(item) for item, title in named], ranker.model.item_counts_)
        check_lists(ranker)

    @cached_property
    def card(self) -> dict[str, Any]:
        """The model's card, made when it is first asked for: reading the items' columns imports pandas.

        See `recvae.inference.card.describe_artifact`.
        """
        return describe_artifact(self.ranker.loaded)

    def with_items(self, changes: Mapping[Id, Mapping[str, Any]]) -> "LiveModel":
        """Return a model with other metadata of some items, and with new items; see `Ranker.with_items`."""
        model = copy(self)
        if changes or self.item_changes:
            model.ranker = self.ranker.with_items(changes)
            titles = {
                index: str(values["title"] or item)
                for item, values in changes.items()
                if values.get("title") is not None and (index := self.ranker.items.get(item)) is not None
            }
            model._titles = self._titles.with_titles(titles)
        model.item_changes = changes
        return model

    def describe(self) -> dict[str, Any]:
        """Describe the model for people: manifest, catalogue, index and card."""
        manifest, index = self.ranker.loaded.manifest, self.ranker.index
        return {
            **self.version,
            **{key: manifest[key] for key in ("metrics", "data", "hyperparameters")},
            "n_items": len(self.ranker.items),
            "loaded_at": self.loaded_at,
            "index": None if index is None else index.describe(),
            "card": self.card,
        }

    def next_list_id(self) -> str:
        """Name a list: the version of the model that made it, and a part that no other list has."""
        return f"{self.version['version']}-{PROCESS_ID}{next(NUMBERS):x}"

    def rank(self, queries: Sequence[Query]) -> list[Ranked]:
        """Rank a batch of queries."""
        return self.ranker.rank(queries)

    def explain(self, query: Query, ranked: Ranked) -> Steps[list[Ranked]]:
        """Find the items of the history that raise each ranked item's score most."""
        return self.ranker.explain(query, ranked, N_REASONS)

    def similar(self, index: int, n: int) -> Steps[Ranked]:
        """Find the n items most similar to one."""
        yield
        return self.ranker.similar(index, n)

    def judge(self, history: Sequence[int]) -> Steps[tuple[float | None, float | None, Ranked]]:
        """Score and p-value of a history, and the items of it that fit the rest least; see `AnomalyDetector`."""
        yield
        judge, user_items = detector(self.ranker.model), self.ranker.user_items([history])
        if not history:
            return None, None, []
        scores, p_values = judge.find_anomalies(user_items)
        yield
        ids, surprises = judge.explain_anomaly(user_items, min(N_UNUSUAL, len(history)))
        unusual = list(zip(ids[0].tolist(), surprises[0].astype(float).round(DECIMALS).tolist(), strict=True))
        return round(float(scores[0]), DECIMALS), float(p_values[0]), unusual

    def search(self, text: str, n: int) -> Steps[list[int]]:
        """Find the n most popular items whose title, or id where there is none, contains the text."""
        return self._titles.find(text, n)


class ModelReloader:
    """Loads the artifact of a variant, and again whenever another one takes its place.

    The new artifact is loaded beside the present one, verified and checked; if any of that fails, the present one
    stays. Requests finish on the model that they began with.

    Parameters
    ----------
    variant : Variant
    exact_items : int
        See `Ranker`.
    metrics : Metrics
    prepare : callable
        Called with each model before it is served.
    leads : bool
        Whether the metrics of the present are of this model: its age, and the recall of its index.

    Attributes
    ----------
    current : LiveModel, optional
        None until a first artifact could be loaded.
    error : str, optional
        Why the artifact now at the path could not be loaded.
    """

    def __init__(
        self,
        variant: Variant,
        exact_items: int,
        metrics: Metrics,
        prepare: Callable[[LiveModel], LiveModel] = lambda model: model,
        leads: bool = True,
    ) -> None:
        self._leads = leads
        self._prepare = prepare
        self.variant, self._exact_items, self._metrics = variant, exact_items, metrics
        self._lock = asyncio.Lock()
        self._seen: tuple[object, ...] | None = None
        self.current: LiveModel | None = None
        self.error: str | None = None

    async def watch(self, seconds: float) -> None:
        """Look for another artifact every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            if _identify(self.variant.path) != self._seen:
                try:
                    await self.reload()
                except RecvaeError as error:
                    LOGGER.error("the artifact was not loaded: %s", error)
                except Exception:
                    LOGGER.exception("the artifact was not loaded")

    async def reload(self) -> bool:
        """Load the artifact at the path; return whether it is another one than before.

        Raises
        ------
        RecvaeError
            If the artifact is not sound; the present model stays.
        """
        async with self._lock:
            seen, self._seen = self._seen, _identify(self.variant.path)
            try:
                model = await asyncio.to_thread(self._load)
            except asyncio.CancelledError:  # the request for it ran out of time: `watch` loads it
                self._seen = seen
                raise
            except Exception as error:
                self.error = str(error) if isinstance(error, RecvaeError) else f"{type(error).__name__} while loading"
                self._metrics.reloads.labels("failed").inc()
                raise
            before, self.current, self.error = self.current, model, None
            self._metrics.reloads.labels("loaded").inc()
            self._report(model, before)
            # A model is millions of objects (ids, titles) that stay: without freezing them the garbage collector
            # went through all of them every few seconds, and requests waited for a tenth of a second.
            gc.collect()
            gc.freeze()
            return before is None or before.version["version"] != model.version["version"]

    def _load(self) -> LiveModel:
        model = LiveModel(self.variant.path, self._exact_items)
        if self.variant.name:
            model.version["variant"] = self.variant.name
        return self._prepare(model)

    def _report(self, model: LiveModel, before: LiveModel | None) -> None:
        name, version = model.version["name"], model.version["version"]
        earlier = None if before is None else (before.version["name"], before.version["version"])
        self._metrics.set_model(name, version, earlier)
        if self._leads:
            trained = datetime.fromisoformat(model.version["trained_at"] or model.loaded_at.isoformat())
            index = model.ranker.index
            self._metrics.set_state(trained.timestamp(), 1.0 if index is None else index.recall)
        LOGGER.info("serving %s %s, %s items", name, version, f"{len(model.ranker.items):,}")


class ServedModels:
    """The models behind the service: one, or several that each answer for their share of the users.

    Attributes
    ----------
    reloaders : sequence of ModelReloader
        Requests without a user, such as for similar items, are answered by the first that is loaded.
    """

    def __init__(self, reloaders: Sequence[ModelReloader]) -> None:
        self.reloaders = reloaders

    @property
    def live(self) -> list[LiveModel]:
        """The models that are loaded."""
        return [one.current for one in self.reloaders if one.current is not None]

    @property
    def current(self) -> LiveModel | None:
        """The first model that is loaded."""
        return next(iter(self.live), None)

    @property
    def error(self) -> str | None:
        """Why artifacts now at their paths could not be loaded."""
        named = [(one.variant.name, one.error) for one in self.reloaders if one.error]
        return "; ".join(f"{name}: {error}" if name else error for name, error in named) or None

    def find(self, name: str) -> ModelReloader | None:
        """Return the reloader of the model of a name; None if there is none."""
        return next((one for one in self.reloaders if one.variant.name == name), None) if name else None

    def choose(self, user: str) -> LiveModel | None:
        """Return the model that answers for a user, always the same one while the shares stay.

        By weighted rendezvous hashing: each model draws a number from the user and its own name, and the least
        -log(number) / share wins. If a share grows, users only move to that model; a model that is not loaded leaves
        its users to the others.
        """
        loaded = [one for one in self.reloaders if one.current is not None]
        return (
            min(loaded, key=lambda one: _draw(one.variant.name, user) / one.variant.share).current if loaded else None
        )

    async def watch(self, seconds: float) -> None:
        """Look for other artifacts every so many seconds, until cancelled."""
        await asyncio.gather(*(one.watch(seconds) for one in self.reloaders))

    async def reload(self) -> bool:
        """Load the artifacts now at the paths; return whether any is another one than before.

        Raises
        ------
        RecvaeError
            If an artifact is not sound; its present model stays, and the others are loaded all the same.
        """
        changed, errors = [], list[RecvaeError]()
        for one in self.reloaders:
            try:
                changed.append(await one.reload())
            except RecvaeError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return any(changed)


def _draw(name: str, user: str) -> float:
    """Draw from the exponential distribution, by a hash."""
    digest = hashlib.sha256(f"{name}\0{user}".encode()).digest()
    return -math.log((int.from_bytes(digest[:6], "big") + 0.5) / 2**48)


def _identify(path: Path) -> tuple[object, ...] | None:
    """Return what tells one artifact at a path from the next, and half of one from the whole, without reading it."""
    try:
        files = {file.name: file.stat() for file in sorted(path.iterdir())}
        directory = path.stat()
    except OSError:
        return None
    parts = [(name, file.st_ino, file.st_mtime_ns, file.st_size) for name, file in files.items()]
    return (directory.st_ino, directory.st_mtime_ns, *parts) if MANIFEST in files else None
