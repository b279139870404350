"""Runs of contestants, each in a process of its own, and other libraries in virtual environments of their own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.exchange import Ids, Task

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
VENVS = ROOT / "data" / "peers"
MEASURED = ("epoch_seconds", "update_seconds", "peak_rss_mb", "versions")


def say(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, flush=True)


class ContestantError(Exception):
    """A contestant could not be installed or did not finish."""


@dataclass(frozen=True)
class Contestant:
    """A library, or a model of ours, that takes part.

    Attributes
    ----------
    name : str
        Name in tables.
    adapter : str
        Of `benchmarks/peers/ADAPTER_adapter.py`; with an `ADAPTER.txt` beside it, it has an environment of its own.
    settings : mapping
        Fields of `exchange.Settings`.
    """

    name: str
    adapter: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of one run; see `exchange.Run`."""

    epoch_seconds: Sequence[float]
    update_seconds: Sequence[float]
    peak_rss_mb: float
    versions: Mapping[str, str]
    lists: Mapping[str, Ids]


@dataclass(frozen=True)
class Track:
    """Place where contestants run.

    Attributes
    ----------
    venvs : Path
        Folder of the peers' environments.
    show : callable
        Called with a line about each step.
    """

    venvs: Path = VENVS
    show: Callable[[str], None] = say

    def race(
        self, contestants: Sequence[Contestant], task: Task, rounds: int = 1, between: Callable[[], None] | None = None
    ) -> dict[str, list[Outcome]]:
        """Run all contestants in turn, several rounds, so that a change of the machine's speed affects all alike.

        One that fails is reported and takes no further part.

        Parameters
        ----------
        between : callable, optional
            Called at the start of each round, to measure something else in turn.
        """
        outcomes: dict[str, list[Outcome]] = {contestant.name: [] for contestant in contestants}
        failed = set[str]()
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "task.npz"
            task.write(path)
            for number in range(rounds):
                if between is not None:
                    between()
                for contestant in contestants:
                    if contestant.name in failed:
                        continue
                    try:
                        outcome = self.run(contestant, path)
                    except ContestantError as error:
                        failed.add(contestant.name)
                        self.show(f"{contestant.name} did not finish: {error}")
                        continue
                    outcomes[contestant.name].append(outcome)
                    seconds = float(np.median(outcome.epoch_seconds))
                    self.show(
                        f"round {number + 1}  {contestant.name:28} {seconds:8.3f} s an epoch"
                        f"  {outcome.peak_rss_mb:7,.0f} MB"
                    )
        return outcomes

    def run(self, contestant: Contestant, task: Path) -> Outcome:
        """Run one contestant once.

        Raises
        ------
        ContestantError
            With the last line of its standard error.
        """
        with tempfile.TemporaryDirectory() as scratch:
            arguments = [str(task), scratch, json.dumps(contestant.settings)]
            self.call(contestant.adapter, f"{contestant.adapter}_adapter", arguments)
            found = json.loads((Path(scratch) / "run.json").read_text(encoding="utf8"))
            with np.load(Path(scratch) / "lists.npz", allow_pickle=False) as arrays:
                lists = {name: arrays[name] for name in arrays.files}
        return Outcome(**{name: found[name] for name in MEASURED}, lists=lists)

    def call(self, peer: str, module: str, arguments: Sequence[str]) -> None:
        """Run a module of `benchmarks/peers` in the peer's environment, in a temporary directory.

        Raises
        ------
        ContestantError
            With the last line of its standard error.
        """
        python = self._python(peer)
        with tempfile.TemporaryDirectory() as scratch:
            _run([str(python), "-W", "ignore", "-m", f"benchmarks.peers.{module}", *arguments], Path(scratch))

    def _python(self, adapter: str) -> Path:
        """Find the interpreter of an adapter; a peer's environment is made when the peer or its pins are new."""
        requirements = PEERS / f"{adapter}.txt"
        if not requirements.exists():
            return Path(sys.executable)
        directory = self.venvs.absolute() / adapter
        python, installed = directory / "bin" / "python", directory / "installed.txt"
        pins = requirements.read_text(encoding="utf8")
        if not installed.exists() or installed.read_text(encoding="utf8") != pins:
            self.show(f"installing {adapter} into {directory}")
            directory.mkdir(parents=True, exist_ok=True)
            _run([sys.executable, "-m", "venv", "--clear", str(directory)], directory)
            _run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], directory)
            installed.write_text(pins, encoding="utf8")
        return python


def _run(command: Sequence[str], directory: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}  # all on the processor
    finished = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise ContestantError(lines[-1])
