"""The service as it is deployed: trained by one user, served read-only by another, killed and started again."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from recvae.datasets.synthetic import generate
from tests.contracts import one_thread as one_thread
from tests.http_service import free_port, running, wait_until

NOBODY = 65534


def recvae(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "recvae", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Data and a model that this user prepared and trained, and that others may read, as by the usual umask."""
    before = os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix="recvae-deployment-"))
    try:
        folder.chmod(0o755)
        generate(60, 40).ratings.to_csv(folder / "ratings.csv", index=False)
        recvae("prepare", folder / "ratings.csv", "--out", folder / "data")
        recvae("train", folder / "data", "--out", folder / "model", "--model", "ease")
        yield folder
    finally:
        os.umask(before)
        shutil.rmtree(folder)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split() if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def listed(address: str) -> int:
    return len(httpx.get(f"{address}/users/1/recommendations", timeout=60).json()["items"])


def test_a_killed_parent_takes_its_workers_along_and_the_port_is_free(folder: Path) -> None:
    port = free_port()
    with running(folder / "model", workers=2, port=port) as (_, process):
        workers = children(process.pid)
        assert len(workers) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(map(is_alive, workers)), 30)
    with running(folder / "model", workers=2, port=port) as (address, _):
        assert listed(address) == 10


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user")
def test_another_user_serves_what_this_one_trained(folder: Path) -> None:
    with running(folder / "model", user=NOBODY, HOME="/nonexistent") as (address, process):
        assert Path(f"/proc/{process.pid}").stat().st_uid == NOBODY
        assert listed(address) == 10
        recvae("train", folder / "data", "--out", folder / "model", "--model", "popularity")
        wait_until(lambda: httpx.get(f"{address}/model", timeout=60).json()["name"] == "Popularity", 60)
        assert listed(address) == 10
