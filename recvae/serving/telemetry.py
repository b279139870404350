"""Prometheus metrics and JSON logs of the service."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.trace import Span
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from recvae.errors import ParameterError

ACCESS = logging.getLogger("recvae.access")
LOGGER = logging.getLogger("recvae")
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Directory where the workers of one service keep their metrics, so that each worker can report them all."""
FLUSH_SECONDS = 0.05
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
PATHS = frozenset({"url.path", "url.query", "url.full", "http.target", "http.url"})
"""Attributes of spans with an address as it was sent, by OpenTelemetry's conventions of today and of before."""
TEXT = "text/plain; version=1.0.0; charset=utf-8"


class Metrics:
    """Metrics at `/metrics`, over all workers."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._registry = own
        if directory := os.environ.get(SHARED):
            if not Path(directory).is_dir():
                raise ParameterError(f"{SHARED} is {directory!r}; expected an empty folder")
            _forget_dead_workers(Path(directory))
            self._registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._requests = Counter("recvae_requests", "Requests answered.", ("route", "method", "status"), registry=own)
        self._seconds = Histogram(
            "recvae_request_seconds", "Time from the headers to the answer.", ("route",), registry=own, buckets=SECONDS
        )
        self.batch_size = Histogram("recvae_batch_size", "Requests scored together.", registry=own, buckets=SIZES)
        self.queue = Gauge(
            "recvae_queue_length", "Requests that wait to be scored.", registry=own, multiprocess_mode="livesum"
        )
        self._items = Counter("recvae_history_items", "Items in requests.", registry=own)
        self._unknown = Counter("recvae_unknown_items", "Items in requests that the model does not know.", registry=own)
        self.reloads = Counter("recvae_reloads", "Attempts to load another model.", ("outcome",), registry=own)
        self._lists = Counter("recvae_lists", "Lists given.", ("version",), registry=own)
        self._answers = Counter(
            "recvae_list_answers", "Appended interactions that name the list they answer.", ("version",), registry=own
        )
        self._versions: set[str] = set()
        self._serving = Gauge(
            "recvae_model_info",
            "1 for each model that is served.",
            ("model", "version"),
            registry=own,
            multiprocess_mode="mostrecent",
        )
        self._stamps = {
            name: Gauge(f"recvae_model_{name}_timestamp_seconds", text, registry=own, multiprocess_mode="mostrecent")
            for name, text in (("loaded", "When the model was loaded."), ("trained", "When the model was trained."))
        }
        self._recall = Gauge(
            "recvae_index_recall",
            "Recall of the approximate index against exact lists; 1 without an index.",
            registry=own,
            multiprocess_mode="mostrecent",
        )
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        key = route, method, status
        children = self._children.get(key)
        if children is None:
            children = self._requests.labels(*map(str, key)), self._seconds.labels(route)
            self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def count_history(self, items: int, unknown: int) -> None:
        """Count the ids of a request."""
        self._items.inc(items)
        self._unknown.inc(unknown)

    def count_list(self, version: str) -> None:
        """Count a list that a version of the model made."""
        self._lists.labels(version).inc()

    def count_answers(self, list_id: str, interactions: int) -> None:
        """Count interactions that answer a list; versions that this worker never served are counted together."""
        version = list_id.partition("-")[0]
        self._answers.labels(version if version in self._versions else "other").inc(interactions)

    def set_model(self, name: str, version: str, before: tuple[str, str] | None) -> None:
        """Report that a model is served, in place of another."""
        if before is not None:
            self._serving.labels(*before).set(0)
        self._versions.add(version)
        self._lists.labels(version)  # from 0 on: the first count would not be an increase otherwise
        self._answers.labels(version)
        self._serving.labels(name, version).set(1)

    def set_state(self, trained: float, recall: float) -> None:
        """Report when the model was trained that has just been loaded, and the recall of its index."""
        self._stamps["loaded"].set_to_current_time()
        self._stamps["trained"].set(trained)
        self._recall.set(recall)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


def _forget_dead_workers(directory: Path) -> None:
    """Drop what killed workers last reported of the present, such as the length of their queue."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            with contextlib.suppress(OSError):
                file.unlink()


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, with the entries of its attribute `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.msg:
            entry["message"] = record.getMessage()
        entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _write(f"{self.format(record)}\n")


def _write(text: str) -> None:
    """Write to standard error; a log that cannot be written, as on a full disk, is no reason to stop serving."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


class AccessLog:
    """Writes a JSON line for each request, several at a time: one by one would cost more than the answers."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []

    def request(self, request_id: str, method: str, route: str, status: int, seconds: float) -> None:
        """Log a request within `FLUSH_SECONDS`."""
        if not ACCESS.isEnabledFor(logging.INFO):
            return
        if not self._entries:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._entries.append(
            {
                "time": time.time(),
                "level": "info",
                "logger": ACCESS.name,
                "request_id": request_id,
                "method": method,
                "route": route,
                "status": status,
                "seconds": seconds,
            }
        )

    def flush(self) -> None:
        """Write the entries that are not written yet."""
        entries, self._entries = self._entries, []
        _write("".join(f"{orjson.dumps(entry).decode()}\n" for entry in entries))


def hide_path(span: Span) -> None:
    """Replace what a request's span says of its path and query, which hold ids of users; the route's pattern stays."""
    if span.is_recording():
        for name in PATHS & set(getattr(span, "attributes", None) or ()):
            span.set_attribute(name, "hidden")


def log_as_json() -> None:
    """Send the service's and uvicorn's logs to standard error as JSON lines."""
    handler = _StandardError()
    handler.setFormatter(JsonFormatter())
    for name in ("recvae", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
