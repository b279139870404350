"""`run`: starts uvicorn with its workers."""

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from recvae.errors import ParameterError
from recvae.inference.index import import_faiss
from recvae.models.autoencoders.decoder import Decoder
from recvae.serving.live_model import LiveModel
from recvae.serving.protocol import BoundedHttpProtocol
from recvae.serving.settings import Settings
from recvae.serving.telemetry import SHARED, log_as_json
from recvae.store.database import Database

if TYPE_CHECKING:
    from fastapi import FastAPI

APPLICATION = "recvae.serving.server:application"
BACKLOG = 2048
OPEN_FILES = 65_536
"""Connections that a worker may hold at a time, as far as the system lets it."""


def application() -> "FastAPI":
    """Create the application of one worker, with the settings of the environment."""
    from recvae.serving.app import create_app

    log_as_json()
    _end_with_parent()
    _allow_connections()
    return create_app()


def run(model: Path, host: str, port: int, workers: int) -> None:
    """Serve an artifact until SIGTERM or SIGINT, which let requests under way finish.

    With `RECVAE_MODELS`, `model` is the folder of the artifacts that it names.

    Raises
    ------
    ArtifactError
        If there is no sound artifact at the start, or not all of several are.
    ParameterError
        If a setting has a value that it cannot have.
    MissingDependencyError
        If the driver of the store's database is not installed, or faiss where a catalogue is large.
    """
    if not 0 <= port < 2**16:
        raise ParameterError(f"--port is {port}; expected 0 to {2**16 - 1}")
    if workers < 1:
        raise ParameterError(f"--workers is {workers}; expected at least 1")
    settings = Settings(model.absolute(), workers=workers)
    _refuse_taken(host, port)
    _refuse_unservable(settings)
    os.environ.update(RECVAE_MODEL=str(settings.model), RECVAE_WORKERS=str(workers))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, str(settings.scoring_threads))
    # uvicorn raises the signal again after the last request; without a handler the process would die of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="recvae-metrics-") as shared:
        if workers > 1:
            os.environ[SHARED] = shared
        log_as_json()
        uvicorn.run(
            APPLICATION,
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http=BoundedHttpProtocol,
            backlog=BACKLOG,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        )


def _refuse_taken(host: str, port: int) -> None:
    """Raise `ParameterError` if nothing can listen there; uvicorn would say so among its lines of JSON."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does: a restart finds it free
            listener.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"--host {host} --port {port}: {reason}; expected an address that is free") from None


def _refuse_unservable(settings: Settings) -> None:
    """Raise what each worker would raise. No model is kept, since each worker loads its own."""
    if store := settings.store.get_secret_value():
        Database(store).close()
    for variant in settings.variants:
        ranker = LiveModel(variant.path, sys.maxsize).ranker  # without an index, which each worker makes
        if len(ranker.items) > settings.exact_items and isinstance(ranker.model, Decoder):
            import_faiss()


def _end_with_parent() -> None:
    """Stop this worker when the process that started it is gone, so that a restart finds the port free."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # requests under way are still answered

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def _allow_connections() -> None:
    """Raise the limit of open files, often 1,024, as far as the system lets it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
