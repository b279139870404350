"""Directories that are written whole or not at all, with a manifest that carries the checksum of every file."""

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from recvae.errors import ArtifactError

MANIFEST = "manifest.json"
PACKAGES = ("recvae", "torch", "numpy", "scipy", "pandas")
READ_PATIENCE = 60.0  # seconds
Content = TypeVar("Content")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def replacing_directory(path: Path, kind: str) -> Iterator[Path]:
    """Give a temporary sibling to write into, then put it at `path` in one step.

    A reader sees the old directory or the new one, never half of either. If the body or the disk fails, what
    was at `path` stays as it was.

    Parameters
    ----------
    path : Path
        New, empty, or a directory of the same `kind`.
    kind : str
        The manifest's `format`.

    Raises
    ------
    ArtifactError
        If `path` holds something else, or cannot be written.
    """
    path = path.absolute()
    refuse_foreign(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _sibling(path) as temporary:
            yield temporary
            for file in [*temporary.iterdir(), temporary]:
                fsync(file)
            _put(temporary, path)
            fsync(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise ArtifactError(f"{path} could not be written: {reason}; what was there is unchanged") from error


def refuse_foreign(path: Path, kind: str) -> None:
    """Raise `ArtifactError` if `path` exists and is neither empty nor a directory of this kind."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise ArtifactError(f"{path} exists and is not a directory; expected a new path or an earlier {kind}")
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return
    try:
        found = json.loads((path / MANIFEST).read_bytes()).get("format")
    except (OSError, ValueError, RecursionError, AttributeError):
        found = None
    if found != kind:
        held = found or ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise ArtifactError(
            f"{path} exists and holds something else ({held}); expected a new path or an earlier {kind}"
        )


def write_manifest(directory: Path, kind: str, version: int, content: Mapping[str, Any]) -> None:
    """Write `manifest.json` with the format, its version, `content` and the SHA-256 of every file beside it."""
    sums = {file.name: sha256(file) for file in sorted(directory.iterdir())}
    manifest = {"format": kind, "format_version": version, **content, "sha256": sums}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def read_manifest(directory: Path, kind: str, version: int) -> dict[str, Any]:
    """Read a manifest and verify every file that it names.

    Raises
    ------
    ArtifactError
        For a missing directory or file, another kind, an unknown version or a wrong checksum, saying which.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is missing; expected a {kind} directory")
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{directory} has no {MANIFEST}; expected a {kind} directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{directory / MANIFEST} is not readable JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        raise ArtifactError(f"{directory / MANIFEST} does not describe a {kind}")
    if manifest.get("format_version") != version:
        raise ArtifactError(
            f"{directory} has format_version {manifest.get('format_version')!r}; this version of recvae reads {version}"
        )
    sums = manifest.get("sha256")
    if not isinstance(sums, dict) or not all(_plain(name) for name in sums):
        raise ArtifactError(f"{directory / MANIFEST} lists no checksums, or of files outside the directory")
    for name, expected in sums.items():
        _verify(directory, name, expected)
    return manifest


def read_whole(directory: Path, read: Callable[[Path], Content]) -> Content:
    """What `read` makes of a directory, read again if another was put in its place meanwhile."""
    deadline = time.monotonic() + READ_PATIENCE
    while True:
        before = _occupant(directory)
        try:
            content = read(directory)
        except ArtifactError:
            if _occupant(directory) == before:
                raise
        else:
            if _occupant(directory) == before:
                return content
        if time.monotonic() > deadline:
            raise ArtifactError(f"{directory} was replaced whenever it was read, for {READ_PATIENCE:g} s")


def sha256(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions(*others: str) -> dict[str, str]:
    """Versions of this package, of those whose arithmetic it relies on, and of the others named, where installed."""
    found = {}
    for package in (*PACKAGES, *others):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _occupant(path: Path) -> tuple[int, int] | None:
    """Tells one directory at a path from the next; inode numbers alone are used again."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _verify(directory: Path, name: str, expected: Any) -> None:
    file = directory / name
    try:
        if not file.is_file():
            raise ArtifactError(f"{directory} has no {name}, which its manifest names")
        damaged = sha256(file) != expected
    except OSError as error:
        raise ArtifactError(f"{file} is not readable: {error.strerror}") from None
    if damaged:
        raise ArtifactError(f"{file} is damaged: its SHA-256 differs from the manifest's")


def _plain(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def fsync(path: Path) -> None:
    """Have the disk hold a file's or a directory's content before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold a directory's lock, which the system gives back when the process ends, however it ends.

    Raises
    ------
    BlockingIOError
        If another process, or this one already, holds it.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def _sibling(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path`, locked while its writer lives, so that others know it is in use."""
    temporary, handle = _locked_sibling(path)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def _locked_sibling(path: Path) -> tuple[Path, int]:
    while True:
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        temporary.mkdir()
        with contextlib.suppress(FileNotFoundError):  # somebody took it for abandoned before it was locked
            handle = os.open(temporary, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if temporary.exists():
                return temporary, handle
            os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove what writers of `path` left behind who were killed, or lost power."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError), lock(left):
            shutil.rmtree(left)


def _put(new: Path, path: Path) -> None:
    """Rename over nothing or an empty directory, exchange with anything else; `new` then holds what was there."""
    try:
        new.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, path):
            aside = new.with_suffix(".old")
            path.rename(aside)
            new.rename(path)
            shutil.rmtree(aside)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths atomically, where the system can (Linux's renameat2)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)
