"""Slowdown beside busy neighbours and under quotas of processor time, with threads that wait passively or spin.

    python -m benchmarks.neighbours [--only multvae,ease] [--peers] [--rounds 3]

Every piece of work runs in a process of its own, at ML-1M's shape, under each condition in turn:

- quiet; one and two neighbours, processes that keep a core busy each;
- a control group with a quota of 1 and of 1.5 cores (needs a system where control groups can be made).

"as shipped" is what recvae sets itself (`recvae.machine.cores`, `recvae.training.threads`); "before" is what it did
before: as many threads as cores throughout, which spin as OpenMP's do by default; the service differs by that alone. An
epoch is the mean over a training of some seconds, in which the number of threads is still to be found. The service's
figure is the 99th percentile of requests one after another. With `--peers` an epoch of RecBole's, Cornac's and
irspack's Mult-VAE and a fit of LensKit's EASE are measured under the same conditions, as they are shipped. Give it a
machine with nothing else to do. Writes `benchmarks/results/neighbours.json` and `neighbours.md`, in which rows that are
not measured again stay.
"""

import recvae  # noqa: F401 before torch is loaded, which then learns how its threads are to wait

# isort: split
import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks import record, serving
from benchmarks.contestants import Contestant, ContestantError, Track
from benchmarks.shapes import histories, make_training_task
from recvae.machine import cgroup
from recvae.machine.cores import THREADS, WAITING, assigned_cores
from recvae.models.blending.blend import Blend
from recvae.models.registry import create
from tests.http_service import running

SHAPE = {"n_users": 4_838, "n_items": 3_600, "mean_interactions": 139}
PEERS_EPOCHS = 3
PERIOD = 100_000
REQUESTS = 2_000
RANKINGS = 15
TRAINING_SECONDS = 6.0
WAYS: Mapping[str, Mapping[str, str]] = {
    "as shipped": {},
    "before": {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(assigned_cores())},
}
PEERS = (
    Contestant("RecBole MultiVAE", "recbole", {"epochs": PEERS_EPOCHS}),
    Contestant("Cornac VAECF", "cornac", {"epochs": PEERS_EPOCHS}),
    Contestant("irspack MultVAE", "irspack", {"epochs": PEERS_EPOCHS}),
    Contestant("LensKit EASE", "lenskit", {"epochs": PEERS_EPOCHS}),
)


@contextmanager
def neighbours(number: int) -> Iterator[None]:
    """Keep this many cores busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextmanager
def quota(share: float) -> Iterator[None]:
    """Put this process, and those that it starts, into a control group with this share of a core's time."""
    first = (cgroup.ROOT / "cpu").is_dir()
    root = cgroup.ROOT / ("cpu" if first else "")
    group = root / f"recvae-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        if first:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD)))
        else:
            (group / "cpu.max").write_text(f"{int(share * PERIOD)} {PERIOD}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (root / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


CONDITIONS: Mapping[str, Callable[[], Any]] = {
    "quiet": ExitStack,
    "one neighbour": lambda: neighbours(1),
    "two neighbours": lambda: neighbours(2),
    "quota of 1 core": lambda: quota(1.0),
    "quota of 1.5 cores": lambda: quota(1.5),
}


class EnoughError(Exception):
    """Ends a training that has been measured."""


def train_epoch(user_items: sparse.csr_matrix, name: str, **params: Any) -> float:
    """Seconds of an epoch: the mean of those that fit into the time of a measurement, and of two at least."""
    seconds: list[float] = []

    def record_epoch(epoch: int, elapsed: float, loss: float) -> None:
        del epoch, loss
        seconds.append(elapsed)
        if sum(seconds) > TRAINING_SECONDS and len(seconds) > 1:
            raise EnoughError

    with suppress(EnoughError):
        create(name, **params, epochs=100).fit(user_items, show_progress=False, callback=record_epoch)
    return mean(seconds)


def time_call(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    started = perf_counter()
    call()
    return perf_counter() - started


def rank_everybody(user_items: sparse.csr_matrix) -> float:
    """Seconds in which a network ranks a hundred items for every user, as an evaluation does: median of several."""
    model = create("multvae", "paper", epochs=1).fit(user_items[:500], show_progress=False)
    users = np.arange(user_items.shape[0])
    return median(time_call(lambda: model.recommend(users, user_items, N=100)) for _ in range(RANKINGS))


def blend_models(user_items: sparse.csr_matrix) -> float:
    """Seconds in which a blend of three fitted models finds its weights on a thousand users."""
    train, others = user_items[:-1000], user_items[-1000:]
    models = [create("popularity"), create("ease", l2=500.0), create("als", factors=64, alpha=5.0, regularization=60.0)]
    models = [model.fit(train, show_progress=False) for model in models]
    held_out = others.copy()
    held_out.data[:] = np.arange(held_out.nnz) % 5 == 0  # every fifth interaction
    held_out.eliminate_zeros()
    validation = (others - held_out).tocsr(), held_out
    return time_call(lambda: Blend(models).fit(train, show_progress=False, validation=validation))


def answer_requests(user_items: sparse.csr_matrix) -> float:
    """99th percentile of the seconds in which a service with a network of this size answers a request."""
    n_items = user_items.shape[1]
    with tempfile.TemporaryDirectory() as scratch:
        path = serving.saved(Path(scratch), "multvae", n_items)
        with running(path) as (address, _):
            return serving.one_by_one(address, serving.bodies(n_items, REQUESTS))["p99_ms"] / 1000


WORK: Mapping[str, Callable[[sparse.csr_matrix], float]] = {
    "multvae": lambda x: train_epoch(x, "multvae", gamma=0.003, dropout=0.5, batch_size=125),
    "multdae": lambda x: train_epoch(x, "multdae", dropout=0.5, batch_size=500),
    "recvae": lambda x: train_epoch(x, "recvae", gamma=0.005, dropout=0.5, batch_size=500),
    "ease": lambda x: time_call(
        lambda: create("ease", l2=500.0, dropout=0.5, user_exponent=0.5).fit(x, show_progress=False)
    ),
    "graph": lambda x: time_call(lambda: create("graph").fit(x, show_progress=False)),
    "als": lambda x: time_call(
        lambda: create("als", factors=256, alpha=5.0, regularization=60.0).fit(x, show_progress=False)
    ),
    "blend": blend_models,
    "ranking": rank_everybody,
    "service": answer_requests,
}
"""Each gives its seconds; in a process of its own, which has read the environment at its start."""


def run_work(name: str, way: Mapping[str, str]) -> float:
    """Run a piece of work in a fresh process."""
    environment = {key: value for key, value in os.environ.items() if key not in (*THREADS, *WAITING)}
    command = [sys.executable, "-m", "benchmarks.neighbours", "--work", name]
    done = subprocess.run(command, env={**environment, **way}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContestantError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return float(json.loads(done.stdout))


def measure(only: list[str], peers: bool, table: dict[str, dict[str, list[float]]]) -> None:
    """Measure everything under every condition in turn, and add it to the table."""
    with tempfile.TemporaryDirectory() as scratch:
        task, track = Path(scratch) / "task.npz", Track()
        make_training_task(histories(**SHAPE)).write(task)
        for condition, enter in CONDITIONS.items():
            calls: dict[str, Callable[[], float]] = {
                f"{name}, {title}": lambda name=name, way=way: run_work(name, way)  # type: ignore[misc]
                for name in only
                for title, way in WAYS.items()
            }
            for peer in PEERS if peers else ():
                calls[peer.name] = lambda peer=peer: median(track.run(peer, task).epoch_seconds[1:])  # type: ignore[misc]
            try:
                with enter():
                    for row, call in calls.items():
                        try:
                            seconds = call()
                        except ContestantError as error:
                            print(f"{condition}: {row} did not finish: {error}", flush=True)
                            continue
                        table.setdefault(row, {}).setdefault(condition, []).append(seconds)
                        print(f"{condition:20} {row:28} {seconds:8.2f} s", flush=True)
            except OSError as error:
                print(f"{condition} was not measured: {error}", flush=True)


def markdown(table: Mapping[str, Mapping[str, list[float]]], origins: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the table: seconds when quiet, and how many times as long everything else took; medians."""
    machines = {command: origin["machine"] for command, origin in origins.items()}
    lines = [
        "# Beside busy neighbours and under quotas\n",
        *(f"Made by `{command}` on {on['cpu']}, {on['cores']} cores." for command, on in machines.items()),
        "Seconds of an epoch, a fit, a ranking of all users, or the 99th percentile of a request's, at ML-1M's shape",
        "when quiet; elsewhere how many times as long. Medians of the rounds.\n",
        f"| | {' | '.join(CONDITIONS)} |",
        f"| --- {'| ---: ' * len(CONDITIONS)}|",
    ]
    for row, cells in table.items():
        quiet = median(cells["quiet"]) if "quiet" in cells else float("nan")
        others = [
            f"{median(cells[name]) / quiet:.1f} times" if name in cells else "not run" for name in list(CONDITIONS)[1:]
        ]
        lines.append(f"| {row} | {quiet:.3g} s | {' | '.join(others)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write, or do one piece of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_parts(parser, WORK)
    parser.add_argument("--peers", action="store_true", help="measure other libraries too")
    parser.add_argument("--rounds", type=record.parse_count, default=3)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    parser.add_argument("--work", choices=list(WORK), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(WORK[arguments.work](histories(**SHAPE))))
        return
    peers = " --peers" if arguments.peers else ""
    command = f"python -m benchmarks.neighbours --only {','.join(arguments.only)}{peers} --rounds {arguments.rounds}"
    file, origin = arguments.out / "neighbours.json", record.provenance(command, 0)
    before = record.read(file)["parts"].get("table", {"seconds": {}, "rows": {}, "origins": {}})
    table: dict[str, dict[str, list[float]]] = {}
    for _ in range(arguments.rounds):
        measure(arguments.only, arguments.peers, table)
        seconds, rows = before["seconds"] | table, before["rows"] | dict.fromkeys(table, command)
        made = {**before["origins"], command: origin}
        origins = {name: made[name] for name in made if name in rows.values()}
        record.merge(file, "table", {"seconds": seconds, "rows": rows, "origins": origins})
        (arguments.out / "neighbours.md").write_text(markdown(seconds, origins), encoding="utf8")


if __name__ == "__main__":
    main()
