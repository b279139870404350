"""Directories that are written whole or not at all, and never at the cost of files that are not their own."""

import contextlib
import ctypes
import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from recvae.errors import ArtifactError, ParameterError
from recvae.storage.files import sync
from recvae.storage.locks import hold_lock
from recvae.storage.manifest import describe_directory, find_own_kind

READ_PATIENCE = 60.0  # seconds
Content = TypeVar("Content")
Identity = tuple[int, int]
_NEW, _LOCK = "new", "lock"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def replace_directory(path: Path, kind: str, known: Identity | None = None) -> Iterator[Path]:
    """Give a temporary directory to write into, then put it at `path` in one step.

    A reader sees the old directory or the new one, never half of either. If the body or the disk fails, what
    was at `path` stays as it was. A symbolic link at `path` is followed.

    Parameters
    ----------
    path : Path
        New, empty, or a directory of the same `kind` without files of others.
    kind : str
        The manifest's `format`.
    known : tuple, optional
        What `identify` gave of `path` before it was read: the new content follows from what was there.

    Raises
    ------
    ArtifactError
        If `path` holds something else, cannot be written, or is no longer the directory that was known.
    """
    refuse_foreign(path, kind)
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _make_sibling(path) as temporary:
            yield temporary
            # safetensors gives its files mode 0600 whatever the umask says: a service that runs as another user could
            # not read the model. `mkdir` has applied the umask to the directory, so its mode says what files get.
            mode = temporary.stat().st_mode & 0o666
            for file in temporary.iterdir():
                file.chmod(mode)
            # The content must be on the disk before its name is: after a power failure the name may be found without
            # the content otherwise.
            for entry in [*temporary.iterdir(), temporary]:
                sync(entry)
            if known is not None and identify(path) != known:
                raise ArtifactError(f"{path} was replaced meanwhile, and is left as it is; try again")
            _put_in_place(temporary, path)
            # Now the directory is whole under its name. Should this sync fail, a power failure may bring the old one
            # back, which is no reason to report that nothing was written.
            with contextlib.suppress(OSError):
                sync(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise ArtifactError(f"{path} could not be written: {reason}; what was there is unchanged") from error


def follow_link(out: Path) -> Path:
    """Return what a symbolic link names, so that the link stays when its target is replaced; other paths unchanged.

    The working directory, which has no name of its own, becomes an absolute path, as do those above it.

    Raises
    ------
    ParameterError
        For the root, which nothing can be put in place of or beside.
    """
    target = out.resolve() if out.is_symlink() or out.name in ("", "..") else out
    if not target.name:
        raise ParameterError(f"out is {out}; expected the path of a new directory")
    return target


def refuse_foreign(path: Path, kind: str) -> None:
    """Raise `ArtifactError` unless `path` is new, empty, or a directory of this kind without files of others.

    Neither may it be inside of a directory of recvae's.
    """
    read_consistently(path, lambda path: _refuse_foreign(path, kind))
    _refuse_inside(path)


def _refuse_foreign(path: Path, kind: str) -> None:
    names = _list_names(path, f"an earlier {kind}")
    if not names:
        return
    found, own = describe_directory(path)
    if found != kind:
        raise ArtifactError(
            f"{path} exists and holds something else ({found or _shorten(names)}); "
            f"expected a new path or an earlier {kind}"
        )
    if others := [name for name in names if name not in own]:
        raise ArtifactError(
            f"{path} holds files that its manifest does not name ({_shorten(others)}), and replacing it would delete "
            "them; expected a new path, or move them"
        )


def refuse_other_files(path: Path, what: str, is_own: Callable[[str], bool]) -> None:
    """Raise `ArtifactError` unless `path` is new, or a directory whose files all have names that are expected.

    Neither may it be inside of a directory of recvae's.

    Parameters
    ----------
    what : str
        What is written there, for the message: "an earlier report".
    is_own : callable
        Tells an expected name.
    """
    if others := [name for name in _list_names(path, what) if not is_own(name)]:
        raise ArtifactError(
            f"{path} exists and holds something else ({_shorten(others)}); expected a new path or {what}"
        )
    _refuse_inside(path)


def check_output_file(name: str, path: Path) -> None:
    """Raise `ArtifactError` unless `path` can be a file, outside of recvae's directories; `name` is the argument's."""
    if path.is_dir() or not path.parent.is_dir():
        raise ArtifactError(f"{name} is {path}; expected a file in a directory that exists")
    _refuse_inside(path)


def _refuse_inside(path: Path) -> None:
    """Raise `ArtifactError` inside of a directory of recvae's, which would hold what its manifest does not name."""
    for folder in path.resolve().parents:
        if kind := find_own_kind(folder):
            raise ArtifactError(f"{path} is inside of {folder}, a {kind} directory; expected another place")


def read_consistently(directory: Path, read: Callable[[Path], Content]) -> Content:
    """Call `read` with a directory, again if another was put in its place meanwhile, and give its result."""
    deadline = time.monotonic() + READ_PATIENCE
    while True:
        before = identify(directory)
        try:
            content = read(directory)
        except ArtifactError:
            if identify(directory) == before:
                raise
        else:
            if identify(directory) == before:
                return content
        if time.monotonic() > deadline:
            raise ArtifactError(f"{directory} was replaced whenever it was read, for {READ_PATIENCE:g} s")


def identify(path: Path) -> Identity | None:
    """Tell one directory at a path from the next; the inode alone is not enough, since its number is used again."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _list_names(path: Path, expected: str) -> list[str]:
    """Names in a directory, sorted; none if there is no such directory."""
    try:
        if not path.exists() and not path.is_symlink():
            return []
        if path.is_symlink() and not path.resolve().exists():
            return []  # the link's target is made
        if not path.is_dir():
            raise ArtifactError(f"{path} exists and is not a directory; expected a new path or {expected}")
        return sorted(entry.name for entry in path.iterdir())
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ArtifactError(f"{path} is not readable: {getattr(error, 'strerror', None) or error}") from None


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


@contextmanager
def _make_sibling(path: Path) -> Iterator[Path]:
    """Make a temporary directory beside `path`, so that both are on one file system, and remove what is left of it.

    It lies in another one with a lock, which is held while its writer lives: a sibling whose lock is free was
    abandoned by a writer that was killed.
    """
    while True:
        outer = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        outer.mkdir()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(outer / _LOCK))
                (outer / _NEW).mkdir()
            except (BlockingIOError, FileNotFoundError, FileExistsError):
                continue  # another writer took it for abandoned in the moment before it was locked
            except OSError:
                _remove_sibling(outer)
                raise
            try:
                yield outer / _NEW
            finally:
                _remove_sibling(outer)
            return


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary directories of writers of `path` that were killed, or lost power."""
    for outer in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        # Without a lock it is empty, and perhaps new: its writer would lose the lock that it is about to take, if that
        # were taken and removed here first.
        if (outer / _LOCK).exists():
            with contextlib.suppress(OSError), hold_lock(outer / _LOCK):
                _remove_sibling(outer)
        with contextlib.suppress(OSError):
            outer.rmdir()


def _remove_sibling(outer: Path) -> None:
    """Remove a temporary directory whose lock is held; the lock goes last, so that one without a lock is empty."""
    shutil.rmtree(outer / _NEW, ignore_errors=True)
    shutil.rmtree(outer, ignore_errors=True)


def _put_in_place(new: Path, path: Path) -> None:
    """Rename a directory to `path`, exchanging it with what is there; `new` then holds the old content.

    `rename` replaces nothing or an empty directory at once, but no directory with content. Linux can exchange two
    names in one step, so that there is no moment without a directory at `path`. Elsewhere the old one is moved aside
    first: a reader in between finds nothing, and a crash in between leaves the old content under the name `….old`.
    """
    try:
        new.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, path):
            aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
            path.rename(aside)
            try:
                new.rename(path)
            except OSError:
                aside.rename(path)
                raise
            shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths atomically, where the system can (Linux's renameat2); say whether it did."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)
