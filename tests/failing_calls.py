"""Calls that fail on purpose: the n-th open, write, sync, rename or allocation of some work, for every n.

A profile function of the interpreter sees every call of a built-in function before it is made, and an exception that it
raises comes out of that call: the disk is full, or the memory, at exactly that point. Calls from within compiled code
are not seen; those of pyarrow and safetensors are failed at their Python functions.
"""

import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from recvae.errors import RecvaeError

_BUILT_IN = {
    "open": {"open", "mkdir", "fromfile"},
    "write": {"write", "tofile", "truncate", "chmod"},
    "sync": {"fsync", "flush"},
    "rename": {"rename", "replace", "link"},
    "allocation": {"empty", "zeros", "full", "concatenate", "bincount", "arange", "argsort", "lexsort", "frombuffer"},
}
AT_MOST = int(os.environ.get("RECVAE_FAILING_CALLS", "40"))  # `make long` fails every one
_PYTHON = {  # (end of the file's name, function)
    "open": {("pyarrow/parquet/core.py", "__init__"), ("numpy/_core/memmap.py", "__new__")},
    "write": {
        ("pyarrow/parquet/core.py", "write_table"),
        ("pyarrow/parquet/core.py", "write_batch"),
        ("pyarrow/parquet/core.py", "close"),
        ("safetensors/numpy.py", "save_file"),
        ("safetensors/torch.py", "save_file"),
    },
}
KINDS = tuple(_BUILT_IN)
_IN_MEMORY = (str, bytes, dict, list, io.StringIO, io.BytesIO)


@dataclass
class FailingCall:
    """A call that fails: the `n`-th of its kind, from 1; `n_calls` counts all until then, `failed` names it."""

    kind: str
    n: int
    n_calls: int = 0
    failed: str = ""

    def profile(self, frame: FrameType, event: str, called: Any) -> None:
        """Count a call, and fail the one that is due; a profile function of `sys.setprofile`."""
        name = _name(self.kind, frame, event, called)
        if name and not self.failed:
            self.n_calls += 1
            if self.n_calls == self.n:
                self.failed = f"{name} in {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                if self.kind == "allocation":
                    raise MemoryError(f"no memory for {self.failed}")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.failed)


def _name(kind: str, frame: FrameType, event: str, called: Any) -> str | None:
    """Name a call if it is of the kind."""
    if event == "c_call":
        name = getattr(called, "__name__", "")
        if name not in _BUILT_IN[kind] or isinstance(getattr(called, "__self__", None), _IN_MEMORY):
            return None
        return None if _is_exempt(frame) else str(name)
    if event == "call":
        code = frame.f_code
        if any(code.co_name == name and code.co_filename.endswith(end) for end, name in _PYTHON.get(kind, ())):
            return code.co_name
    return None


def _is_exempt(frame: FrameType | None) -> bool:
    """Check for a call of Python's own reading of packages, or of a clean-up, which the next writer does again."""
    while frame is not None:
        if "importlib" in frame.f_code.co_filename or frame.f_code.co_name == "rmtree":
            return True
        frame = frame.f_back
    return False


@contextmanager
def failing(kind: str, n: int) -> Iterator[FailingCall]:
    """Fail the n-th call of a kind in the block; none with n = 0, which counts them."""
    call = FailingCall(kind, n)
    sys.setprofile(call.profile)
    try:
        yield call
    finally:
        sys.setprofile(None)


def take_snapshot(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Read everything below a folder: mode and content of each file, mode of each directory, target of each link."""
    found: dict[str, tuple[str, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        mode = stat.filemode(path.lstat().st_mode)
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (mode, content)
    return found


def fail_every_call(
    kind: str, work: Callable[[], object], folder: Path, restore: Callable[[], object], at_most: int = AT_MOST
) -> int:
    """Run some work once for each of its calls of a kind, failing that call; returns how many calls there were.

    After each failure everything below `folder` must be as before, and the error must be one line that a user can
    read, or the `MemoryError` itself. Work that copes with a failure must have come to the same end as without.

    Parameters
    ----------
    restore : callable
        Puts `folder` back to the state before the work, after work that succeeded.
    at_most : int
        Of more calls so many are failed, evenly spread.
    """
    before = take_snapshot(folder)
    work()  # also imports what is imported at first use
    expected = take_snapshot(folder)
    restore()
    with failing(kind, 0) as counted:
        work()
    restore()
    assert take_snapshot(folder) == before
    step = max(1, -(-counted.n_calls // at_most))
    for n in range(1, counted.n_calls + 1, step):
        with failing(kind, n) as call:
            try:
                work()
            except (RecvaeError, MemoryError) as error:
                outcome: Exception | None = error
            else:
                outcome = None
        where = f"call {n} of {counted.n_calls} ({call.failed}): {outcome!r}"
        if outcome is None:
            assert take_snapshot(folder) == expected, where
            restore()
        assert take_snapshot(folder) == before, where
    return counted.n_calls
