"""Memory: its peak during a block, what the machine has left, batches of rows that fit, reuse of pages."""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recvae.machine.cgroup import memory_left

PROCESS = Path("/proc/self")
LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest block that glibc's allocator can be made to keep (mallopt(3), M_MMAP_THRESHOLD)."""
PAGE = 4096
BATCH_BYTES, MIN_ROWS = 24 * 2**20, 32
"""Bytes of a batch of rows, below `LARGEST_KEPT`, and the fewest rows that are worth a matrix product."""


@dataclass
class PeakMemory:
    """The peak in megabytes (10^6 bytes) once the block has ended; None where the system does not measure it."""

    mb: float | None = None


@contextlib.contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the peak resident memory of the process while the block runs.

    On Linux the kernel's high-water mark is reset first. Where that is not possible, the figure is the peak since the
    process began, which is an upper bound.
    """
    peak = PeakMemory()
    _reset_high_water_mark()
    try:
        yield peak
    finally:
        peak.mb = _high_water_mark_mb()


def _reset_high_water_mark() -> None:
    with contextlib.suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")


def _high_water_mark_mb() -> float | None:
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text(), re.MULTILINE):
            return int(found[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def available_bytes() -> int | None:
    """Memory that is available without swapping, to the machine and to the container; None where neither says."""
    bounds = []
    with contextlib.suppress(OSError):
        if found := re.search(r"^MemAvailable:\s+(\d+) kB", (PROCESS.parent / "meminfo").read_text(), re.MULTILINE):
            bounds.append(int(found[1]) * 1024)
    if (left := memory_left()) is not None:
        bounds.append(left)
    return min(bounds, default=None)


def rows_at_once(row_bytes: int, least: int = MIN_ROWS) -> int:
    """The number of rows of a large matrix to make at a time.

    As many as fit into memory that the allocator keeps and hands out again, but at least `least`.
    """
    return max(least, BATCH_BYTES // row_bytes)


def row_batches(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Slices that cut rows of a large matrix into batches of `rows_at_once`."""
    size = rows_at_once(row_bytes)
    return (slice(start, start + size) for start in range(0, n_rows, size))


def keep_freed_memory() -> None:
    """Make the allocator reuse freed memory instead of returning it to the system.

    Fresh pages cost more than the arithmetic on them. Once a block of up to `LARGEST_KEPT` bytes has been freed, glibc
    serves all blocks of that size from its heap, where it keeps up to twice as much. So one block is allocated and
    freed here; its pages are never touched. Other allocators are not affected.
    """
    np.empty(LARGEST_KEPT - 2 * PAGE, dtype=np.uint8)
