"""Locks between processes, on every operating system."""

import contextlib
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def hold_lock(file: Path) -> Iterator[None]:
    """Hold the lock on a file, which is created for that, with its folder, and removed afterwards.

    The system releases the lock when the process ends, however it ends; the file may then stay behind and harms
    nobody.

    Raises
    ------
    BlockingIOError
        If another process, or this one already, holds the lock.
    OSError
        If the file cannot be created, or the file system has no locks.
    """
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process") from None
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, str(error)) from None
    try:
        yield
    finally:
        # While the lock is held, so that a process which opens the file later starts with a new one. Windows does not
        # remove an open file; there it stays.
        with contextlib.suppress(OSError):
            file.unlink()
        lock.release()
