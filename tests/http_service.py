"""Helpers of the service's tests: a small artifact, and the service in this process or in one of its own."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psycopg
import pytest
from fastapi import FastAPI
from psycopg import sql

from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.generative.anomaly import AnomalyDetector
from recvae.serving import Settings, create_app
from recvae.serving.telemetry import log_as_json
from tests.contracts import random_interactions

N_USERS, N_ITEMS = 40, 25
FIRST_ID = 100
SECONDS_TO_START = 300


def item_id(index: int) -> int:
    return FIRST_ID + index


def small(seed: int = 0) -> MultVAE:
    return MultVAE(hidden=16, latent=8, epochs=3, batch_size=20, seed=seed)


def save(path: Path, model: Recommender | None = None, **belongings: Any) -> None:
    """An artifact with titles and users, fitted on random interactions."""
    interactions = random_interactions(N_USERS, N_ITEMS)
    model = (model or small()).fit(interactions, show_progress=False)
    if isinstance(model, AnomalyDetector):
        model.calibrate_anomalies(random_interactions(N_USERS, N_ITEMS, seed=1))
    titles = [f"Film {index:02} (19{50 + index})" for index in range(N_ITEMS)]
    titles[3], titles[4] = "Amélie (2001)", '<b>Bold & "quoted"</b>'
    items = pd.DataFrame({"item_id": [item_id(i) for i in range(N_ITEMS)], "title": titles})
    users = pd.DataFrame(
        {"user_id": [f"u{i}" for i in range(N_USERS)], "history": [row.indices for row in interactions]}
    )
    registry.save(
        model, path, **{"items": items, "users": users, "metrics": {"validation": {"users": 40}}, **belongings}
    )


@contextlib.asynccontextmanager
async def client(app: FastAPI, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Ask an app that runs in this process."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service", **options) as opened:
            yield opened


def asked(settings: Settings, question: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """The answer to a question put to a service with these settings."""

    async def put() -> Any:
        async with client(create_app(settings)) as http:
            return await question(http)

    return asyncio.run(put())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    model: Path, workers: int = 1, port: int | None = None, user: int | None = None, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`recvae serve` in a process of its own: its address, once it is ready, and the process."""
    port = port or free_port()
    command = [sys.executable, "-m", "recvae", "serve", str(model)]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    log = model.parent / f"serve-{port}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workers", str(workers)],
            stderr=stream,
            stdout=stream,
            env={**os.environ, "RECVAE_POLL_SECONDS": "0.2", **environment},
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: ready(address) or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(holds: Callable[[], object], seconds: float = SECONDS_TO_START) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} seconds")
        time.sleep(0.05)


@pytest.fixture
def json_logs() -> Iterator[None]:
    """Logs as the service writes them."""
    names = ("recvae", "uvicorn", "uvicorn.error", "uvicorn.access")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    log_as_json()
    yield
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = handlers, propagate


def logged(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class Postgres:
    """A PostgreSQL server on loopback with a directory of its own; run by another user where this one is root."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._port, self._databases = directory, free_port(), 0

    @staticmethod
    def installed() -> bool:
        return _binary("initdb") is not None and (os.getuid() != 0 or shutil.which("setpriv") is not None)

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator["Postgres"]:
        with tempfile.TemporaryDirectory(prefix="recvae-postgres-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o777)
            server = cls(Path(folder) / "data")
            server._run("initdb", "--no-sync", "--auth=trust", "--username=recvae", "--encoding=UTF8", "--no-locale")
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=50"
        self._run("pg_ctl", "start", "--wait", "--timeout=120", "-o", options, "-l", str(self._directory / "log"))

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which PostgreSQL's clients find the server."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self._port), "PGUSER": "recvae"}

    def fresh(self) -> str:
        """The URL of a database that nobody has used yet."""
        self._databases += 1
        name = f"interactions{self._databases}"
        with psycopg.connect(
            f"host=127.0.0.1 port={self._port} user=recvae dbname=postgres", autocommit=True
        ) as server:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://recvae@127.0.0.1:{self._port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_binary(program)), "-D", str(self._directory), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=180)


def _binary(name: str) -> Path | None:
    found = [Path(path) for path in [shutil.which(name)] if path]
    return next(iter([*found, *sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]), None)
