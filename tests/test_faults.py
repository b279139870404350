"""Training through faults: killed at random points, a full disk, power lost between a write and its rename."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from recvae import workflow
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError
from recvae.models import registry
from recvae.preparation.pipeline import Options, prepare
from recvae.storage import directories
from recvae.storage.manifest import read_manifest
from recvae.training import checkpoint
from recvae.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

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
