"""Training through faults: killed at random points, a full disk, power lost between a write and its rename."""

import contextlib
import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from recvae import workflow
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError, RecvaeError
from recvae.inference.bulk import recommend_everybody
from recvae.models import registry
from recvae.models.linear.ease import EASE
from recvae.preparation.pipeline import Options, prepare
from recvae.storage import directories
from recvae.storage.files import write_text
from recvae.storage.manifest import read_manifest
from recvae.training import checkpoint
from recvae.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.contracts import random_interactions

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("RECVAE_KILLS", "3"))  # `make long` sets 20


class Launcher:
    """Starts `recvae` processes, see `killed_training`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout = process.stdin, process.stdout
        assert self.stdout.readline() == "ready\n"

    def run(self, line: str, kill_after: float = 600.0) -> int:
        """The exit status of a command line that is killed after so many seconds, if it runs as long."""
        self.stdin.write(f"{kill_after} {line}\n")
        self.stdin.flush()
        return int(self.stdout.readline())


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.killed_training"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield Launcher(process)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "data"
    prepare(generate(120, 40), path, Options())
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def refuse_damage(out: Path) -> None:
    """Raise `ArtifactError` unless the artifact and the checkpoint are whole, as far as they are there."""
    if out.exists():
        registry.load(out)
    if workflow.checkpoint_path(out).exists():
        read_manifest(workflow.checkpoint_path(out), checkpoint.KIND, checkpoint.VERSION)


def test_killed_at_random_points_and_resumed_training_gives_the_same_weights(
    launcher: Launcher, data: Path, tmp_path: Path
) -> None:
    """Early stopping ends it, so that what is remembered of the best epoch counts, too.

    Training begins anew whenever it came to its end before there were so many kills.
    """
    settings = {"epochs": 40, "hidden": 16, "latent": 8, "batch_size": 50, "learning_rate": 0.05, "patience": 2}
    line = " ".join([f"train {data}", *(f"--set {name}={value}" for name, value in settings.items()), "--out"])
    started = time.monotonic()
    assert launcher.run(f"{line} {tmp_path / 'whole'}") == 0
    longest = (time.monotonic() - started) / 2
    out, random, n_kills, n_resumed = tmp_path / "model", Random(1), 0, 0  # noqa: S311
    while n_kills < KILLS or n_resumed == 0 or not out.exists():
        shutil.rmtree(out, ignore_errors=True)
        resume = "--resume" if workflow.checkpoint_path(out).exists() else ""
        n_resumed += bool(resume)
        killing = n_kills < KILLS or n_resumed == 0
        status = launcher.run(f"{line} {out} {resume}", random.uniform(0, longest) if killing else 600.0)
        assert status in (0, -signal.SIGKILL)
        n_kills += status == -signal.SIGKILL
        if status == 0:  # the machine is quicker than it was, or else slower
            longest /= 1.5
        elif not resume:
            longest *= 1.2
        refuse_damage(out)
        if out.exists():
            assert sha256(out) == sha256(tmp_path / "whole")


def state(value: float) -> Checkpoint:
    return Checkpoint({"weight": torch.full((200_000,), value)}, {"epoch": 1}, {"model": "one"})


def value_of(path: Path) -> float:
    return float(load_checkpoint(path, {"model": "one"}).tensors["weight"][0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_keeps_the_former_checkpoint(small_disk: Path) -> None:
    path = small_disk / "model.checkpoint"
    save_checkpoint(path, state(1))
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 500_000))
    with pytest.raises(ArtifactError, match=r"model\.checkpoint could not be written: .*; what was there is unchanged"):
        save_checkpoint(path, state(2))
    assert value_of(path) == 1
    assert sorted(entry.name for entry in small_disk.iterdir()) == ["filler", "model.checkpoint"]
    (small_disk / "filler").unlink()
    save_checkpoint(path, state(3))
    assert value_of(path) == 3


@pytest.mark.parametrize("step", ["sync", "_put_in_place", "_exchange"])
def test_power_lost_between_a_write_and_its_rename(step: str, tmp_path: Path) -> None:
    """The process ends there and tidies nothing up: the former checkpoint loads, and the next is written."""
    path = tmp_path / "model.checkpoint"
    save_checkpoint(path, state(1))
    second = state(2)
    if (child := os.fork()) == 0:
        setattr(directories, step, lambda *_: os._exit(7))
        try:
            save_checkpoint(path, second)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert value_of(path) == 1
    assert len(list(tmp_path.iterdir())) == 2
    save_checkpoint(path, state(3))
    assert value_of(path) == 3
    assert list(tmp_path.iterdir()) == [path]  # nor does what the dead left fill the disk


class FailingStream:
    """A file open for writing whose writes are counted."""

    def __init__(self, stream: Any, count: Callable[[str], None]) -> None:
        self._stream, self._count = stream, count

    def __enter__(self) -> "FailingStream":
        self._stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.__exit__(*error)

    def write(self, text: Any) -> None:
        self._count("write")
        self._stream.write(text)


class FailingCalls:
    """Counts the calls that create, write, sync, rename or lock files, and makes the n-th of them fail."""

    CALLS = (
        *((os, name) for name in ("open", "fsync", "rename", "replace", "mkdir", "chmod")),
        (io, "open"),
        (safetensors.numpy, "save_file"),
        (safetensors.torch, "save_file"),
        (pyarrow.parquet, "write_table"),
    )

    def __init__(self, patch: pytest.MonkeyPatch, n: int) -> None:
        self._left, self.failed = n, ""
        for module, name in self.CALLS:
            patch.setattr(module, name, self._wrap(getattr(module, name), name))

    def _wrap(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if call is not OPEN:
                self._count(name)
                return call(*arguments, **options)
            if "w" not in arguments[1]:
                return call(*arguments, **options)
            self._count(name)
            return FailingStream(call(*arguments, **options), self._count)

        return wrapped

    def _count(self, name: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.failed = name
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


OPEN = io.open


def snapshot(folder: Path) -> dict[str, tuple[int, str | bytes]]:
    """Mode, and content or target, of everything in a folder but the temporary siblings that a failure may leave."""
    entries = [entry for entry in sorted(folder.rglob("*")) if ".tmp" not in str(entry.relative_to(folder))]
    return {
        str(entry.relative_to(folder)): (
            entry.lstat().st_mode,
            str(entry.readlink()) if entry.is_symlink() else entry.read_bytes() if entry.is_file() else "",
        )
        for entry in entries
    }


@cache
def fitted() -> EASE:
    return EASE(l2=7.0).fit(random_interactions(seed=2), show_progress=False)


def save_model(path: Path) -> None:
    fitted().save(
        path, items=[f"new {i}" for i in range(25)], users=pd.DataFrame({"user_id": ["a"], "history": [[1, 2]]})
    )


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "artifact": ("model", save_model),
    "artifact by a link": ("link to model", save_model),
    "new artifact": ("new", save_model),
    "checkpoint": ("checkpoint", lambda path: save_checkpoint(path, state(2))),
    "prepared directory": ("prepared", lambda path: prepare_data(path, 2)),
    "file": ("file.json", lambda path: write_text(path, "new")),
    "file by a link": ("link to file", lambda path: write_text(path, "new")),
    "new file": ("new.json", lambda path: write_text(path, "new")),
}


def prepare_data(path: Path, seed: int) -> None:
    prepare(generate(60, 40), path, Options(seed=seed))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what is there before: a model, a checkpoint, files of others, links to both, and unusual modes."""
    folder = tmp_path_factory.mktemp("filled")
    EASE(l2=5.0).fit(random_interactions(), show_progress=False).save(folder / "model")
    save_checkpoint(folder / "checkpoint", state(1))
    prepare_data(folder / "prepared", 1)
    for name, mode in (("notes.txt", 0o600), ("file.json", 0o640)):
        (folder / name).write_text("mine")
        (folder / name).chmod(mode)
    (folder / "link to model").symlink_to("model")
    (folder / "link to file").symlink_to("file.json")
    return folder


@pytest.mark.parametrize(
    ("case", "exchange"), [*((case, True) for case in WRITERS), ("artifact", False), ("checkpoint", False)]
)
def test_whichever_call_fails_nothing_is_lost(
    case: str, exchange: bool, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system cannot exchange two directories."""
    name, write = WRITERS[case]
    if not exchange:
        monkeypatch.setattr(directories, "_exchange", lambda *_: False)
    failures: dict[str, int] = {}
    for n in count(1):
        folder = tmp_path / str(n)
        shutil.copytree(filled, folder, symlinks=True)
        before, message = snapshot(folder), ""
        with monkeypatch.context() as patch:
            calls = FailingCalls(patch, n)
            try:
                write(folder / name)
            except RecvaeError as error:
                message = str(error)
        if message:
            assert "No space left on device" in message
            assert snapshot(folder) == before, calls.failed
        write(folder / name)
        after = snapshot(folder)
        target = {"link to model": "model", "link to file": "file.json"}.get(name, name)  # links themselves stay
        assert {key.split("/")[0] for key in before if before[key] != after[key]} <= {target}
        assert not list(folder.rglob("*.tmp"))
        if not calls.failed:
            break
        failures[calls.failed] = failures.get(calls.failed, 0) + bool(message)
        shutil.rmtree(folder)
    assert failures["fsync"] >= 1
    assert sum(failures.values()) >= 3


def test_whichever_call_fails_lists_for_everybody_are_finished_later(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated call goes on, and gives what it would have given at once; files of others stay."""
    monkeypatch.setattr("recvae.inference.bulk.USERS_A_PART", 8)
    users = tmp_path / "users.parquet"
    pd.DataFrame({"user_id": range(20), "history": [[i % 25, 3] for i in range(20)]}).to_parquet(users)
    recommend_everybody(filled / "model", users, tmp_path / "whole", show_progress=False)
    whole, failures = snapshot(tmp_path / "whole"), 0
    for n in count(1):
        out = tmp_path / str(n)
        with monkeypatch.context() as patch:
            calls = FailingCalls(patch, n)
            with contextlib.suppress(RecvaeError):
                recommend_everybody(filled / "model", users, out, show_progress=False)
        if not calls.failed:
            break
        failures += 1
        recommend_everybody(filled / "model", users, out, show_progress=False)
        assert snapshot(out) == whole, calls.failed
        assert {entry.name for entry in out.iterdir()} == {*whole}
    assert failures >= 10
