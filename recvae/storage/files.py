"""Single files that are written whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recvae.errors import DataError, ParameterError


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write to, then put it at `path` in one step.

    A reader sees the old file or the new one, never half of either. A symbolic link at `path` is followed, and a file
    that is replaced keeps its mode.

    Raises
    ------
    OSError
        If the file cannot be written; what was at `path` is unchanged.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, temporary)
        # Renaming replaces the name at once, but a file system may write the content later than the name: without a
        # sync before it, a power failure could leave an empty file under the name.
        sync(temporary)
        temporary.replace(path)
        # Now the file is whole under its name. Should this sync fail, a power failure may bring the old one back, which
        # is no reason to report that nothing was written.
        with contextlib.suppress(OSError):
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: whole, or not at all.

    A device or a pipe, such as /dev/stdout, is written to as it is.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8") as stream:
                stream.write(text)
            return
        with replace_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _unwritable(path, error) from error


def write_together(texts: Mapping[Path, str]) -> None:
    """Write several text files: each in one step, and none takes its place before all are written.

    Raises
    ------
    DataError
        If one cannot be written; what was there is unchanged.
    """
    path = None
    try:
        with contextlib.ExitStack() as stack:
            for path, text in texts.items():
                temporary = stack.enter_context(replace_file(path))
                temporary.write_text(text, encoding="utf-8")
                sync(temporary)  # a full disk may show only here
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from error


def sync(path: Path) -> None:
    """Wait until the disk holds a file's content or a directory's names.

    Windows cannot sync a directory; there the names may be lost in a power failure, the files' content not.
    """
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path | None, error: Exception) -> DataError:
    return DataError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}")


def check_path(path: Any, what: str = "a directory") -> Path:
    """Check that `path` is a path, not an open file.

    Raises
    ------
    ParameterError
        If it is anything else.
    """
    if not isinstance(path, str | os.PathLike):
        raise ParameterError(f"path is a {type(path).__name__}; expected the path of {what}")
    return Path(path)
