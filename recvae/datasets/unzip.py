"""Unpacking of untrusted zip archives: no paths outside the folder, no links, bounded size, all or nothing."""

import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from recvae.errors import DataError

_CHUNK = 1 << 18
_MAX_BYTES = 4 << 30
_MAX_RATIO = 100

BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
"""Exceptions that `zipfile` raises for an archive that is damaged, encrypted or of an unknown kind."""


def unzip(
    archive: Path,
    into: Path,
    *,
    only: Collection[str] = (),
    max_bytes: int = _MAX_BYTES,
    max_ratio: int = _MAX_RATIO,
) -> None:
    """Unpack `archive` into the new folder `into`, which appears only when it is complete.

    Parameters
    ----------
    only : collection of str
        Names of the files to unpack, in any folder of the archive; empty for all.
    max_bytes, max_ratio : int
        Most bytes that may come out, in all and as a multiple of the archive's own size. Bytes are counted
        as they come, because the sizes that the archive declares may be false.

    Raises
    ------
    DataError
        If the archive is damaged, holds an absolute path, a path with `..` or a link, or unpacks to too much.
    """
    budget = min(max_bytes, max_ratio * archive.stat().st_size)
    into.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
    try:
        _unpack(archive, staging, only, budget)
        staging.rename(into)
    except DataError:
        raise
    except BROKEN_ZIP as error:
        raise DataError(f"{archive.name} is not a whole zip archive: {error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack(archive: Path, into: Path, only: Collection[str], budget: int) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        for entry in entries:
            _refuse_unsafe(entry, archive.name)
        for entry in entries:
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or (only and path.name not in only):
                continue
            with _open_entry(opened, entry) as source, _create_file(into / path, archive.name) as out:
                budget = _copy(source, out, budget, archive.name)


def _open_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return opened.open(entry)
    except OSError as error:  # a declared position before the start of the file
        raise zipfile.BadZipFile(f"{entry.filename!r} cannot be read ({error})") from None


def _create_file(target: Path, where: str) -> IO[bytes]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DataError(f"{where} holds two entries at {target.name!r}") from None


def _refuse_unsafe(entry: zipfile.ZipInfo, where: str) -> None:
    name = entry.filename
    if not name:
        raise DataError(f"{where} holds an entry without a name")
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(f"{where} holds the path {name!r}; expected paths that stay inside the folder")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{where} holds {name!r}, a link or device; expected files and folders")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where} holds {name!r} in compression {entry.compress_type}; expected deflate or none")


def _copy(source: IO[bytes], out: IO[bytes], budget: int, where: str) -> int:
    """Copy all of `source` and return the rest of `budget`, in bytes."""
    while chunk := source.read(_CHUNK):
        budget -= len(chunk)
        if budget < 0:
            raise DataError(f"{where} unpacks to far more bytes than a data set of its size")
        out.write(chunk)
    return budget
