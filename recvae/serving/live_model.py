"""The model that is served, and how another takes its place without a gap."""

import asyncio
import gc
import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from recvae.errors import ArtifactError, RecvaeError
from recvae.inference.ranker import Query, Ranked, Ranker
from recvae.serving.telemetry import Metrics
from recvae.storage import artifact
from recvae.storage.directories import MANIFEST

LOGGER = logging.getLogger("recvae.models")
N_REASONS = 3


class Served:
    """A loaded artifact that has passed its self-check.

    Attributes
    ----------
    ranker : Ranker
    name : dict
        The model's class, version and time of training, as every answer carries them.
    loaded_at : datetime
    """

    def __init__(self, path: Path, exact_items: int) -> None:
        loaded = artifact.load(path, frozen=True)
        self.ranker = Ranker(loaded, exact_items)
        self.loaded_at = datetime.now(UTC)
        manifest = loaded.manifest
        version = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:12]
        self.name = {"name": manifest["class"], "version": version, "trained_at": manifest.get("trained_at")}
        _check(self.ranker)

    def rank(self, queries: Sequence[Query]) -> list[Ranked]:
        """The batch of `Batcher` for lists."""
        return self.ranker.rank(queries)

    def rank_with_reasons(self, queries: Sequence[Query]) -> list[tuple[Ranked, list[Ranked]]]:
        """The batch of `Batcher` for lists with reasons."""
        lists = self.ranker.rank(queries)
        return [
            (ranked, self.ranker.explain(query, ranked, N_REASONS))
            for query, ranked in zip(queries, lists, strict=True)
        ]

    def similar(self, asked: Sequence[tuple[int, int]]) -> list[Ranked]:
        """The batch of `Batcher` for similar items."""
        return [self.ranker.similar(index, n) for index, n in asked]

    def search(self, asked: Sequence[tuple[str, int]]) -> list[list[int]]:
        """The batch of `Batcher` for titles: items whose title or id holds the text, the most played first."""
        return [self._found(text, n) for text, n in asked]

    def _found(self, text: str, n: int) -> list[int]:
        counts = self.ranker.model.item_counts_
        wanted = _folded(text).strip()
        titles, starts = self._titles
        if not wanted:
            found = np.arange(len(counts))
        else:
            places = [match.start() for match in re.finditer(re.escape(wanted), titles)]
            found = np.unique(np.searchsorted(starts, places, side="right") - 1)
        best: list[int] = found[np.lexsort((found, -counts[found]))][:n].tolist()
        return best

    @cached_property
    def _titles(self) -> tuple[str, np.ndarray[Any, Any]]:
        """All titles as one text, a line each, and where each begins."""
        ranker = self.ranker
        lines = [
            _folded(str(item if title is None else title))
            for item, title in zip(ranker.items.ids, ranker.titles, strict=True)
        ]
        starts = np.fromiter(accumulate((len(line) + 1 for line in lines), initial=0), dtype=np.int64)[:-1]
        return "\n".join(lines), starts


class Models:
    """The model now served, replaced when the artifact at its path is.

    Another artifact is loaded beside the present one, verified and checked; if any of that fails, the present one
    goes on. Requests keep the one that they began with.
    """

    def __init__(self, path: Path, exact_items: int, metrics: Metrics) -> None:
        self._path, self._exact_items, self._metrics = path, exact_items, metrics
        self._lock = asyncio.Lock()
        self._seen: tuple[int, ...] | None = None
        self.current: Served | None = None
        self.error: str | None = None

    async def watch(self, seconds: float) -> None:
        """Look for another artifact every so many seconds, for ever."""
        while True:
            await asyncio.sleep(seconds)
            if _stamp(self._path) != self._seen:
                try:
                    await self.reload()
                except RecvaeError as error:
                    LOGGER.error("the artifact was not taken: %s", error)
                except Exception:
                    LOGGER.exception("the artifact was not taken")

    async def reload(self) -> bool:
        """Take what is at the path now; whether that was another artifact.

        Raises
        ------
        RecvaeError
            If it is no sound artifact; what was served before still is.
        """
        async with self._lock:
            self._seen = _stamp(self._path)
            try:
                served = await asyncio.to_thread(Served, self._path, self._exact_items)
            except Exception as error:
                self.error = str(error) if isinstance(error, RecvaeError) else f"{type(error).__name__} while loading"
                self._metrics.reloads.labels("failed").inc()
                raise
            before, self.error = self.current, None
            changed = before is None or before.name["version"] != served.name["version"]
            self.current = served
            self._metrics.reloads.labels("loaded").inc()
            self._report(served, before)
            gc.collect()
            gc.freeze()  # what stays: the collector's rounds over it held requests up for a tenth of a second
            return changed

    def _report(self, served: Served, before: Served | None) -> None:
        name, version = served.name["name"], served.name["version"]
        trained = datetime.fromisoformat(served.name["trained_at"] or served.loaded_at.isoformat())
        earlier = None if before is None else (before.name["name"], before.name["version"])
        self._metrics.serving(name, version, trained.timestamp(), earlier)
        index = served.ranker.index
        self._metrics.recall.set(1.0 if index is None else index.recall)
        LOGGER.info("serving %s %s, %s items", name, version, f"{len(served.ranker.items.ids):,}")


def _check(ranker: Ranker) -> None:
    """Raise `ArtifactError` unless lists are finite for an empty history, one interaction and a known user."""
    queries = [Query(())]
    if ranker.model.folds_in:
        played = int(ranker.model.item_counts_.argmax())
        queries.append(Query((played,)))
        if not np.isfinite(ranker.model.score(ranker.user_items([(played,)]))).all():
            raise ArtifactError("the self-check failed: scores that are not finite")
    users = ranker.loaded.user_table
    if users is not None and len(users):
        row, history = ranker.find_user(users["user_id"][0].as_py()) or (0, [])
        queries.append(Query(history, user=row))
    for query, ranked in zip(queries, ranker.rank(queries), strict=True):
        left = len(ranker.items) - len(query.history)
        if len(ranked) != min(query.n, left) or not np.isfinite([score for _, score in ranked]).all():
            raise ArtifactError(f"the self-check failed: {len(ranked)} items with finite scores; expected {query.n}")


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Tells one artifact at a path from the next without reading it."""
    try:
        directory, manifest = path.stat(), (path / MANIFEST).stat()
    except OSError:
        return None
    return directory.st_ino, directory.st_mtime_ns, manifest.st_ino, manifest.st_mtime_ns, manifest.st_size


def _folded(text: str) -> str:
    """Without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).replace("\n", " ")
