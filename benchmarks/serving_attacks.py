"""Attacks on the service: clients that are expensive or rude, beside clients that only want a list.

`python -m benchmarks.serving_faults --only attacks` runs them. The catalogue has 300,000 titles. Paced clients ask for
lists all the time; their 99th percentile is measured in turns without and with each attack, which comes from other
processes.
"""

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

ITEMS = 300_000
CLIENTS, PACE = 4, 0.05
SECONDS, ROUNDS = 6, 3
ATTACKERS = 6
MOST = 2.0
"""Times that the 99th percentile of innocent clients may grow under an attack."""
HALF_SENT = 1000

Request = tuple[str, str, bytes | None]
"""Method, path and body."""


def _history(length: int, seed: int) -> list[int]:
    items: list[int] = np.random.default_rng(seed).choice(ITEMS, length, replace=False).tolist()
    return items


def _post(path: str, body: dict[str, Any]) -> Request:
    return "POST", path, json.dumps(body).encode()


def explained_batch(seed: int) -> Request:
    """A batch of 60 explained histories of 1,000 items."""
    requests = [{"history": _history(1000, seed + i), "explain": True} for i in range(60)]
    return _post("/recommend/batch", {"requests": requests})


def explained_histories(seed: int) -> Request:
    """An explained history of 1,000 items."""
    return _post("/recommend", {"history": _history(1000, seed), "explain": True})


def large_batch(seed: int) -> Request:
    """A batch of 100 histories of 1,000 items, with long lists."""
    requests = [{"history": _history(1000, seed + i), "n": 500} for i in range(100)]
    return _post("/recommend/batch", {"requests": requests})


def search(seed: int) -> Request:
    """A search for a text that no title holds."""
    return "GET", f"/items?query=title+of+usual+length+{seed}+never", None


def similar(seed: int) -> Request:
    """Items similar to one."""
    return "GET", f"/items/{seed % 1000}/similar", None


ATTACKS: tuple[Callable[[int], Request], ...] = (explained_batch, explained_histories, large_batch, search, similar)


def _attack(address: str, number: int, seed: int, ready: Any, stop: Any, statuses: Any) -> None:
    os.nice(19)  # attackers have machines of their own: here they get what the service and its clients leave
    requests = [ATTACKS[number](10_000 * seed + 100 * i) for i in range(5)]  # made before the clock runs
    counted = Counter[int]()
    ready.wait()
    with httpx.Client(base_url=address, timeout=60, headers={"content-type": "application/json"}) as http:
        for method, path, content in itertools.cycle(requests):
            if stop.is_set():
                break
            with contextlib.suppress(httpx.TransportError):
                counted[http.request(method, path, content=content).status_code] += 1
    statuses.put(dict(counted))


async def _ask(http: httpx.AsyncClient, number: int, end: float, seconds: list[float], statuses: Counter[int]) -> None:
    histories = [_history(50, number + i) for i in range(20)]
    while time.perf_counter() < end:
        number += 1
        started = time.perf_counter()
        answer = await http.post("/recommend", json={"history": histories[number % 20]})
        seconds.append(time.perf_counter() - started)
        statuses[answer.status_code] += 1
        await asyncio.sleep(PACE)


async def _measure(address: str) -> tuple[float, dict[int, int]]:
    """99th percentile of innocent clients in ms, and how often they got each status."""
    seconds, statuses = list[float](), Counter[int]()
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        end = time.perf_counter() + SECONDS + 0.5
        await asyncio.gather(*(_ask(http, i, end, seconds, statuses) for i in range(CLIENTS)))
    return 1e3 * float(np.quantile(seconds, 0.99)), dict(statuses)


@contextlib.contextmanager
def _under(address: str, number: int) -> Iterator[dict[int, int]]:
    """Attack while the body runs; filled with the attackers' statuses at the end."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Barrier(ATTACKERS + 1), context.Event()
    queue, counted = context.Queue(), Counter[int]()
    attackers = [
        context.Process(target=_attack, args=(address, number, seed, ready, stop, queue)) for seed in range(ATTACKERS)
    ]
    for attacker in attackers:
        attacker.start()
    statuses = dict[int, int]()
    try:
        ready.wait(120)
        time.sleep(0.5)
        yield statuses
    finally:
        stop.set()
        for _ in attackers:
            counted.update(queue.get(timeout=90))
        for attacker in attackers:
            attacker.join()
        statuses.update(counted)


def attacks(folder: Path) -> dict[str, Any]:
    """Six attackers at a time beside four clients that ask for lists."""
    from benchmarks.serving import saved  # not at the top: attackers import this module, and torch takes them seconds
    from tests.http_service import running

    rows: dict[str, dict[str, Any]] = {}
    with running(saved(folder, "multvae", ITEMS), RECVAE_EXACT_ITEMS=str(ITEMS)) as (address, _):
        asyncio.run(_measure(address))
        for number, attack in enumerate(ATTACKS):
            alone, attacked = list[float](), list[float]()
            for _ in range(ROUNDS):
                alone.append(asyncio.run(_measure(address))[0])
                with _under(address, number) as statuses:
                    p99, innocent = asyncio.run(_measure(address))
                attacked.append(p99)
            ratio = median(attacked) / median(alone)
            rows[attack.__name__] = {
                "ok": ratio <= MOST and set(innocent) == {200},
                "p99_ms_without": round(median(alone), 1),
                "p99_ms_with": round(median(attacked), 1),
                "ratio": round(ratio, 2),
                "statuses_of_attackers": statuses,
            }
            print(attack.__name__, rows[attack.__name__], flush=True)
    return {"ok": all(row["ok"] for row in rows.values()), **rows}


@contextlib.asynccontextmanager
async def _half_sent(address: str) -> AsyncIterator[None]:
    host, port = address.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(HALF_SENT):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"POST /recommend HTTP/1.1\r\nHost: x\r\n")
        yield


def headers(folder: Path) -> dict[str, Any]:
    """A thousand half-sent headers, then a header of 128 MB, before any key is checked."""
    from benchmarks.serving import saved
    from tests.http_service import running

    with running(saved(folder, "multvae", 20_000), RECVAE_API_KEY="secret") as (address, process):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{address}/healthz", timeout=60)

        async def slow() -> float:
            async with _half_sent(address):
                started = time.perf_counter()
                async with httpx.AsyncClient(timeout=60) as http:
                    await http.get(f"{address}/healthz")
                return time.perf_counter() - started

        waited = asyncio.run(slow())
        before, sent = _processor_seconds(process.pid), 0
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Large: ")
            for _ in range(128):
                connection.sendall(b"x" * 2**20)
                sent += 2**20
        used = _processor_seconds(process.pid) - before
    return {
        "ok": waited < 1 and used < 1,
        "seconds_to_healthz_beside_half_sent_headers": round(waited, 3),
        "bytes_taken_of_a_large_header": sent,
        "processor_seconds_for_it": round(used, 3),
    }


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
