"""The files that a benchmark hands to a contestant, and those that it gets back.

Runs in every peer's own environment, so it needs numpy and scipy only.
"""

import argparse
import json
import platform
import re
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

LIST_LENGTH = 100
PARTS = ("validation", "test")

Ids = npt.NDArray[np.int32]
Ranker = Callable[[sparse.csr_matrix], Ids]


@dataclass(frozen=True, eq=False)
class Parts:
    """Matrices of the same items, and arrays of users' rows, that travel in one file."""

    def write(self, path: Path) -> None:
        """Write the parts' arrays as one .npz file."""
        arrays: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray):
                arrays[f"{part.name}.rows"] = value
            else:
                arrays["n_items"] = np.int64(value.shape[1])
                arrays |= {f"{part.name}.indices": value.indices, f"{part.name}.indptr": value.indptr}
        np.savez(path, **arrays)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The parts that `write` wrote; every interaction weighs 1."""
        with np.load(path, allow_pickle=False) as arrays:
            n_items = int(arrays["n_items"])

            def part(name: str) -> Any:
                if f"{name}.rows" in arrays.files:
                    return arrays[f"{name}.rows"]
                indices, indptr = arrays[f"{name}.indices"], arrays[f"{name}.indptr"]
                ones = np.ones(len(indices), dtype=np.float32)
                return sparse.csr_matrix((ones, indices, indptr), shape=(len(indptr) - 1, n_items))

            return cls(*(part(entry.name) for entry in fields(cls)))


@dataclass(frozen=True, eq=False)
class Task(Parts):
    """The data of one race; what is held out is not in it, so no contestant can learn from it.

    Attributes
    ----------
    train : csr_matrix, float32, shape (n_users, n_items)
    validation, test : csr_matrix, float32, shape (n_validation_users, n_items) and (n_test_users, n_items)
        Histories to fold in.
    """

    train: sparse.csr_matrix
    validation: sparse.csr_matrix
    test: sparse.csr_matrix


@dataclass(frozen=True)
class Settings:
    """Settings of a contestant's training.

    Attributes
    ----------
    model : str
        "multvae" or "recvae".
    epochs, batch_size, hidden, latent, seed : int
    checkpoints : sequence of int
        Epochs, counted from 1, after which validation and test users are ranked, off the clock.
    params : mapping
        Further settings under the contestant's own names.
    """

    model: str = "multvae"
    epochs: int = 5
    batch_size: int = 500
    hidden: int = 600
    latent: int = 200
    seed: int = 0
    checkpoints: Sequence[int] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


class Run:
    """The clock of one training run, and the lists at its checkpoints.

    Attributes
    ----------
    epoch_seconds, update_seconds : list of float
        Of each epoch, and of the updates in it, which is the same where a contestant does not tell them apart.
    lists : mapping of "validation/EPOCH" and "test/EPOCH" to (n_users, LIST_LENGTH) int32
    peak_rss_mb : float
        Largest resident memory of the process, in 10^6 bytes, until the first checkpoint.
    """

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self.settings = task, settings
        self.epoch_seconds: list[float] = []
        self.update_seconds: list[float] = []
        self.lists: dict[str, Ids] = {}
        self.peak_rss_mb = 0.0
        self._started = perf_counter()

    def start(self) -> None:
        """Start the clock: everything is set up, the first epoch begins."""
        self._started = perf_counter()

    def epoch_done(self, rank: Ranker, update_seconds: float | None = None) -> None:
        """Record an epoch; at a checkpoint also `rank(fold_in)`, LIST_LENGTH ids for each row."""
        seconds = perf_counter() - self._started
        self.epoch_seconds.append(seconds)
        self.update_seconds.append(seconds if update_seconds is None else update_seconds)
        if not self.lists:
            self.peak_rss_mb = peak_rss_mb()
        if (epoch := len(self.epoch_seconds)) in self.settings.checkpoints:
            for part in PARTS:
                self.lists[f"{part}/{epoch}"] = rank(getattr(self.task, part))
        self._started = perf_counter()

    def write(self, directory: Path, packages: Sequence[str]) -> None:
        """Write `run.json` and `lists.npz`."""
        content = {
            "settings": asdict(self.settings),
            "epoch_seconds": self.epoch_seconds,
            "update_seconds": self.update_seconds,
            "peak_rss_mb": self.peak_rss_mb,
            "versions": list_versions(packages),
        }
        np.savez(directory / "lists.npz", **self.lists)  # type: ignore[arg-type]
        (directory / "run.json").write_text(json.dumps(content, indent=2), encoding="utf8")


def best(scores: npt.NDArray[np.floating[Any]], seen: sparse.csr_matrix, n: int = LIST_LENGTH) -> Ids:
    """The n best unseen items of each row, best first, padded with -1."""
    scores = np.array(scores, dtype=np.float32)
    scores[np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr)), seen.indices] = -np.inf
    k = min(n, scores.shape[1])
    found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    ids = np.full((len(scores), n), -1, dtype=np.int32)
    ids[:, :k] = np.take_along_axis(found, order, axis=1)
    ids[:, :k][np.isneginf(np.take_along_axis(values, order, axis=1))] = -1
    return ids


def list_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of some packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes.

    Read from /proc where there is one: what getrusage says includes the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(train: Callable[[Run], None], *packages: str) -> None:
    """Run an adapter: read the task, train on the clock, write the outcome and the versions of `packages`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", help="a JSON object of settings that differ from the defaults")
    arguments = parser.parse_args()
    run = Run(Task.read(arguments.task), Settings(**json.loads(arguments.settings)))
    train(run)
    run.write(arguments.out, packages)
