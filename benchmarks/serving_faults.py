"""Faults under load: the service must answer nothing wrong and lose nothing that it acknowledged.

    python -m benchmarks.serving_faults [--only kill,reload] [--json FILE]

Starts the service in processes of its own, puts load on it, and breaks something: a worker is killed, the artifact is
replaced 50 times with every second one damaged, clients are slow, rude or expensive, the database goes away, its disk
is full. Answers are compared with the library's own. Exits 1 if anything was wrong.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from scipy import sparse

from benchmarks import record
from benchmarks.serving_attacks import attacks, headers
from recvae.memory import PROCESS
from recvae.models import registry
from tests.http_service import N_ITEMS, Postgres, item_id, running, save, small, wait_until

CLIENTS = 8
HISTORIES = 20
RELOADS = 50
SLOW = 200
Expected = dict[tuple[str, int], list[int]]


@dataclass
class Load:
    """Outcome of requests: right and wrong answers, errors, and times."""

    right: int = 0
    wrong: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    broken_connections: int = 0
    seconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For the report."""
        quantiles = np.quantile(self.seconds, [0.5, 0.99]) if self.seconds else [0, 0]
        figures = {key: value for key, value in asdict(self).items() if key != "seconds"}
        return {**figures, "p50_ms": round(1e3 * quantiles[0], 1), "p99_ms": round(1e3 * quantiles[1], 1)}


def history(number: int) -> list[int]:
    """Item indices that stand for a user."""
    return sorted({(number * 7 + step * step) % N_ITEMS for step in range(6)})


def expected(path: Path) -> Expected:
    """The library's own answers for an artifact, by its time of training and the history's number."""
    loaded = registry.load(path)
    answers: Expected = {}
    for number in range(HISTORIES):
        items = history(number)
        row = sparse.csr_matrix((np.ones(len(items), np.float32), items, [0, len(items)]), shape=(1, N_ITEMS))
        ids, _ = loaded.model.recommend(0, row, N=5)
        answers[loaded.manifest["class"], number] = [item_id(int(i)) for i in ids]
    return answers


async def client(http: httpx.AsyncClient, number: int, answers: Expected, load: Load, stop: asyncio.Event) -> None:
    """Ask until told to stop."""
    while not stop.is_set():
        number = (number + 1) % HISTORIES
        body = {"history": [item_id(i) for i in history(number)], "n": 5}
        started = time.perf_counter()
        try:
            answer = await http.post("/recommend", json=body)
        except httpx.TransportError:
            load.broken_connections += 1
            await asyncio.sleep(0.05)
            continue
        load.seconds.append(time.perf_counter() - started)
        if answer.status_code != 200:
            load.statuses[answer.status_code] += 1
            continue
        content = answer.json()
        listed = [item["id"] for item in content["items"]]
        good = listed == answers.get((content["model"]["name"], number))
        load.right, load.wrong = load.right + good, load.wrong + (not good)


@contextlib.asynccontextmanager
async def under_load(address: str, answers: Expected) -> AsyncIterator[Load]:
    """Keep asking while the body of the statement runs."""
    load, stop = Load(), asyncio.Event()
    async with httpx.AsyncClient(base_url=address, timeout=120) as http:
        clients = [asyncio.create_task(client(http, i, answers, load, stop)) for i in range(CLIENTS)]
        await asyncio.sleep(1)
        yield load
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*clients)


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that answer: children of the first that listen on the same socket."""
    children = (PROCESS.parent / str(process.pid) / "task" / str(process.pid) / "children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in (PROCESS.parent / pid / "cmdline").read_bytes()]


def replaced(process: subprocess.Popen[bytes], victim: int) -> bool:
    """Return whether another worker took the place of one."""
    present = workers(process)
    return len(present) == 2 and victim not in present


def more(load: Load, right: int) -> bool:
    """Return whether more right answers than this have come."""
    return load.right > right


def serves(address: str, name: str) -> bool:
    """Return whether every worker, as far as a few new connections show, serves a model."""
    answers = (httpx.get(f"{address}/model", timeout=60).json() for _ in range(6))
    return {about["name"] for about in answers} == {name}


async def until(holds: Callable[[], object]) -> None:
    """Wait without holding up the load."""
    await asyncio.to_thread(wait_until, holds, 240)


def kill(folder: Path) -> dict[str, Any]:
    """SIGKILL each of two workers in turn."""
    save(folder / "model")
    answers = expected(folder / "model")

    async def main(address: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        async with under_load(address, answers) as load:
            for victim in workers(process):
                os.kill(victim, signal.SIGKILL)
                await until(partial(replaced, process, victim))
                await until(partial(more, load, load.right + 50))
        async with under_load(address, answers) as after:
            await asyncio.sleep(2)
        whole = not load.wrong and not load.statuses and not after.broken_connections and after.right > 0
        return {"ok": whole, "during": load.summary(), "after": after.summary()}

    with running(folder / "model", workers=2) as (address, process):
        return asyncio.run(main(address, process))


def reload(folder: Path) -> dict[str, Any]:
    """Replace the artifact 50 times, every second time by a damaged one."""
    from recvae.models.linear.ease import EASE

    path, answers = folder / "model", Expected()
    for name, model in (("a", small()), ("b", EASE())):
        save(folder / name, model)
        answers |= expected(folder / name)
    shutil.copytree(folder / "a", folder / "damaged")
    weights = folder / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    shutil.copytree(folder / "a", path)

    def put(name: str) -> None:
        shutil.copytree(folder / name, folder / "next")
        path.rename(folder / "before")
        (folder / "next").rename(path)
        shutil.rmtree(folder / "before")

    async def main(address: str) -> dict[str, Any]:
        async with under_load(address, answers) as load:
            for number in range(RELOADS):
                name = ("a", "damaged", "b", "damaged")[number % 4]
                put(name)
                if name == "damaged":
                    await asyncio.sleep(0.5)
                else:
                    await until(partial(serves, address, {"a": "MultVAE", "b": "EASE"}[name]))
        ok = not load.wrong and not load.statuses and not load.broken_connections
        return {"ok": ok, "replacements": RELOADS, "load": load.summary()}

    with running(path, workers=2) as (address, _):
        return asyncio.run(main(address))


def slow(folder: Path) -> dict[str, Any]:
    """200 clients that never finish their requests, half of them within the headers, half within the body."""
    save(folder / "model")
    answers = expected(folder / "model")
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

    async def main(address: str) -> dict[str, Any]:
        host, port = address.removeprefix("http://").split(":")
        async with under_load(address, answers) as load:
            idle = [socket.create_connection((host, int(port))) for _ in range(SLOW)]
            for number, connection in enumerate(idle):
                connection.sendall(head if number % 2 else head + b'Content-Length: 100\r\n\r\n{"history":')
            await asyncio.sleep(6)
            refused = 0
            for connection in idle[::2]:
                connection.settimeout(30)
                refused += b"408" in (await asyncio.to_thread(connection.recv, 100))
            for connection in idle:
                connection.close()
        ok = not load.wrong and not load.statuses and not load.broken_connections and refused == SLOW // 2
        return {"ok": ok, "slow_bodies_refused": refused, "load": load.summary()}

    with running(folder / "model", RECVAE_TIMEOUT_SECONDS="3") as (address, _):
        return asyncio.run(main(address))


async def append_all(http: httpx.AsyncClient, stop: asyncio.Event, kept: list[str], statuses: Counter[int]) -> None:
    """Append interactions one by one, noting those that were acknowledged."""
    number = 0
    while not stop.is_set():
        number += 1
        item = f"{number:04}" + "x" * 200
        try:
            answer = await http.post("/users/ann/events", json={"items": [item]})
        except httpx.TransportError:
            continue
        statuses[answer.status_code] += 1
        if answer.status_code == 200:
            kept.append(item)


async def store_broken(address: str, url: str, steps: Sequence[Callable[[], object]]) -> dict[str, Any]:
    """Append while each step breaks or mends the store; afterwards everything acknowledged must be there."""
    import sqlalchemy as sa

    kept, statuses, stop = list[str](), Counter[int](), asyncio.Event()
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        appending = asyncio.create_task(append_all(http, stop, kept, statuses))
        for step in steps:
            await asyncio.sleep(3)
            await asyncio.to_thread(step)
        before = len(kept)
        await until(lambda: len(kept) > before + 10)
        stop.set()
        await appending
        lists = (await http.post("/recommend", json={"history": []})).status_code
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = set(connection.scalars(sa.text("SELECT item_id FROM recvae_events WHERE user_id = 'ann'")))
    engine.dispose()
    lost = len(set(kept) - found)
    ok = not lost and set(statuses) == {200, 503} and lists == 200
    return {"ok": ok, "acknowledged": len(kept), "lost": lost, "statuses": dict(statuses)}


def store(folder: Path) -> dict[str, Any]:
    """PostgreSQL is killed and comes back, twice."""
    if not Postgres.installed():
        return {"ok": None, "skipped": "PostgreSQL's binaries are not installed"}
    save(folder / "model")
    with Postgres.started() as server:
        url = server.fresh()
        with running(folder / "model", RECVAE_STORE=url) as (address, _):
            return asyncio.run(store_broken(address, url, [server.stop, server.start, server.stop, server.start]))


def disk(folder: Path) -> dict[str, Any]:
    """The event store's file may not grow any more, and then it may again."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        return {"ok": None, "skipped": "prlimit is not installed"}
    save(folder / "model")
    database = folder / "interactions.db"
    url = f"sqlite:///{database}"

    def limit(pid: int, size: str) -> None:
        subprocess.run([str(prlimit), f"--pid={pid}", f"--fsize={size}:unlimited"], check=True)

    with running(folder / "model", RECVAE_STORE=url) as (address, process):
        steps = [lambda: limit(process.pid, "65536"), lambda: limit(process.pid, "unlimited")]
        return asyncio.run(store_broken(address, url, steps))


FAULTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "kill": kill,
    "reload": reload,
    "slow": slow,
    "store": store,
    "disk": disk,
    "headers": headers,
    "attacks": attacks,
}


def main() -> None:
    """Run every fault, print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_parts(parser, FAULTS)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "serving_faults.json")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.only:
        with tempfile.TemporaryDirectory(prefix="recvae-faults-") as folder:
            results[name] = {"what": str(FAULTS[name].__doc__), **FAULTS[name](Path(folder))}
        print(name, json.dumps(results[name]), flush=True)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(any(result["ok"] is False for result in results.values()))


if __name__ == "__main__":
    main()
