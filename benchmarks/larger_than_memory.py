"""Training on a prepared set several times as large as the memory that the process may have.

    python -m benchmarks.larger_than_memory [--interactions 400000000] [--megabytes 600]

Writes a prepared directory, then trains Mult-VAE for one epoch in a control group of its own, without and with the
bound on memory (as root, on Linux). The system's cache of the files counts towards the bound and gives way to it; a
process that needs more is ended by the kernel. Writes `benchmarks/results/larger_than_memory.json`.
"""

import argparse
import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import record
from recvae.data.csr_files import read_matrix, write_ones, write_stream
from recvae.data.prepared import read_prepared, write_prepared
from recvae.data.split import Holdout, Split
from recvae.evaluation.results import write_results
from recvae.models.autoencoders.multvae import MultVAE

CGROUPS = Path("/sys/fs/cgroup")
N_ITEMS, INTERACTIONS_A_USER, USERS_A_BLOCK = 5_000, 400, 20_000
HIDDEN, LATENT, BATCH_SIZE = 64, 32, 500


def draw_interactions(n_users: int, seed: int) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Draw rows and columns of `INTERACTIONS_A_USER` random items for each user, a block of users at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_users, USERS_A_BLOCK):
        size = min(USERS_A_BLOCK, n_users - start)
        gaps = rng.integers(1, N_ITEMS // INTERACTIONS_A_USER, (size, INTERACTIONS_A_USER), dtype=np.int32)
        yield np.repeat(np.arange(start, start + size), INTERACTIONS_A_USER), np.cumsum(gaps, axis=1).ravel()


def write(path: Path, n_interactions: int, seed: int) -> None:
    """Write a prepared directory with about so many training interactions; its table of interactions is not read."""
    n_users = n_interactions // INTERACTIONS_A_USER
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        folder = Path(scratch)
        write_ones(folder, n_users * INTERACTIONS_A_USER)
        for name, users in (("train", n_users), ("fold_in", 100), ("held_out", 100)):
            write_stream(folder, name, users, users * INTERACTIONS_A_USER, draw_interactions(users, seed + users))
        fold_in, held_out = (read_matrix(folder, name, (100, N_ITEMS)) for name in ("fold_in", "held_out"))
        test = Holdout(fold_in, held_out, pd.Index(range(n_users, n_users + 100)), np.full(100, -1, dtype=np.int32))
        train = read_matrix(folder, "train", (n_users, N_ITEMS))
        split = Split(train, pd.Index(range(n_users)), pd.Index(range(N_ITEMS)), None, test, {"split": "made up"}, {})
        no_interactions = pd.DataFrame({"user_id": [0], "item_id": [0]})
        write_prepared(path, [no_interactions], split, dataset="made up", source={}, filters={}, counts={})


@contextmanager
def control_group(limit: int | None) -> Iterator[tuple[Path, Path]]:
    """A group of processes with a bound on its memory in bytes, and the file that tells its peak."""
    first = not (CGROUPS / "cgroup.controllers").exists()
    group = CGROUPS / ("memory" if first else "") / f"recvae-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        if limit is not None and first:
            (group / "memory.limit_in_bytes").write_text(str(limit))
        elif limit is not None:
            (group / "memory.max").write_text(str(limit))
            (group / "memory.swap.max").write_text("0")
        yield group, group / ("memory.max_usage_in_bytes" if first else "memory.peak")
    finally:
        group.rmdir()


def join(group: Path) -> None:
    """Put this process into the group."""
    (group / "cgroup.procs").write_text(str(os.getpid()))


def drop_from_cache(path: Path) -> None:
    """Drop files from the system's cache, so that reading them counts towards the process that reads."""
    for file in path.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_training(path: Path, limit: int | None) -> dict[str, Any]:
    """Measure seconds, loss and peak memory of one epoch under a bound on memory; the error if it failed."""
    drop_from_cache(path)
    with control_group(limit) as (group, peak):
        command = [sys.executable, "-m", "benchmarks.larger_than_memory", "--train", str(path)]
        started = time.perf_counter()
        done = subprocess.run(command, preexec_fn=partial(join, group), stdout=subprocess.PIPE, check=False)
        seconds = time.perf_counter() - started
        found = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {"exit_status": done.returncode}
        return {
            "limit_mb": None if limit is None else limit / 1e6,
            "seconds": seconds,
            "peak_mb_with_cache": int(peak.read_text()) / 1e6,
            **found,
        }


def train(path: Path) -> None:
    """Train in the bounded process and print the result."""
    split = read_prepared(path).split
    model = MultVAE(hidden=HIDDEN, latent=LATENT, batch_size=BATCH_SIZE, epochs=1).fit(split.train, show_progress=False)
    status = Path("/proc/self/status").read_text().splitlines()
    anonymous = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    print(json.dumps({"loss": model.history_[-1]["loss"], "own_memory_mb": anonymous * 1024 / 1e6}))


def main() -> None:
    """Write the data, train with and without the bound, and record both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=record.parse_count, default=400_000_000)
    parser.add_argument("--megabytes", type=record.parse_count, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="folder for the prepared set")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        path = Path(scratch) / "prepared"
        write(path, arguments.interactions, arguments.seed)
        size = sum(file.stat().st_size for file in path.iterdir())
        runs = [measure_training(path, limit) for limit in (None, arguments.megabytes * 10**6)]
    command = shlex.join(["python", "-m", "benchmarks.larger_than_memory", *sys.argv[1:]])
    results = {
        **record.provenance(command, arguments.seed),
        "interactions": arguments.interactions,
        "prepared_mb": size / 1e6,
        "model": {"hidden": HIDDEN, "latent": LATENT, "batch_size": BATCH_SIZE, "items": N_ITEMS},
        "runs": runs,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_results(arguments.out / "larger_than_memory.json", results)
    print(json.dumps(results["runs"], indent=1))


if __name__ == "__main__":
    main()
