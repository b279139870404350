"""What the service can be told, by environment variables `RECVAE_…`."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from recvae.errors import ParameterError

MOST_THREADS = 4
"""A batch is a few milliseconds of products, which more threads would only cut smaller."""


@dataclass(frozen=True)
class Settings:
    """One field for each variable: `max_n` is `RECVAE_MAX_N`."""

    model: Path
    """Artifact directory; what is put in its place later is served from then on."""
    api_key: str = ""
    """What requests must carry as `X-API-Key` or `Authorization: Bearer`; none when empty."""
    admin_key: str = ""
    """The same for `/admin/…`, which is off when empty."""
    store: str = ""
    """Database URL where interactions are appended, `sqlite:///…` or `postgresql+psycopg://…`; none when empty."""
    cors: str = ""
    """Origins whose pages may call the service, separated by commas."""
    max_body_bytes: int = 2**20
    max_history: int = 1000
    """Most ids in a history, in `exclude` or in `only`."""
    max_batch: int = 100
    """Most requests in one batch request."""
    max_n: int = 500
    """Longest list."""
    queue: int = 1000
    """Most requests that wait to be scored; further ones are answered 503."""
    batch_size: int = 64
    """Most requests that are scored together."""
    batch_window_ms: float = 1.0
    """How long requests that came while others were scored wait for more to share the next batch."""
    timeout_seconds: float = 10.0
    """For receiving a request and answering it."""
    drain_seconds: float = 30.0
    """How long requests under way may go on after SIGTERM."""
    poll_seconds: float = 1.0
    """How often to look for a changed artifact."""
    exact_items: int = 100_000
    """Largest catalogue of which every item is scored; larger ones go through an approximate index."""
    threads: int = 0
    """Threads that score in each worker; 0 shares the cores between the workers, `MOST_THREADS` at most."""
    workers: int = 1
    """Processes, as `recvae serve --workers` or `uvicorn --workers` was told."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and field.name != "threads" and field.name != "batch_window_ms":
                _at_least(1e-3 if isinstance(value, float) else 1, field.name, value)
        _at_least(0, "threads", self.threads)
        _at_least(0, "batch_window_ms", self.batch_window_ms)
        for name in ("api_key", "admin_key"):
            if not getattr(self, name).isascii():
                raise ParameterError(f"{_variable(name)} holds characters that a header cannot; expected ASCII")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Settings from environment variables.

        Raises
        ------
        ParameterError
            If `RECVAE_MODEL` is not set, or a value is none that its variable can have.
        """
        given = {
            field.name: _parsed(_variable(field.name), environment[_variable(field.name)], field.type)
            for field in fields(cls)
            if _variable(field.name) in environment
        }
        if "model" not in given:
            raise ParameterError("RECVAE_MODEL is not set; expected the path of a model artifact")
        return cls(**given)

    @property
    def scoring_threads(self) -> int:
        """Threads that score in this worker: workers × threads never exceeds the cores."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, min(MOST_THREADS, cores // self.workers))


def _variable(name: str) -> str:
    return f"RECVAE_{name.upper()}"


def _parsed(variable: str, text: str, kind: Any) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ParameterError(f"{variable} is {text!r}; expected a {'whole ' if kind is int else ''}number") from None


def _at_least(minimum: float, name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= minimum):
        raise ParameterError(f"{_variable(name)} is {value}; expected at least {minimum:g}")
