"""Peak, limits and reuse of memory."""

import subprocess
import sys

import pytest

from recvae.memory import MIN_ROWS, row_batches, rows_at_once

CHURN = """
import resource, sys
import numpy as np
from recvae.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.empty(25 * 2**20, np.uint8), np.empty(25 * 2**20, np.uint8)]
    for block in blocks:
        block[::4096] = 1
    del block, blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


print([faults() for _ in range(5)][-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allocate in other ways")
@pytest.mark.parametrize(("how", "fresh"), [("kept", False), ("given back", True)])
def test_freed_memory_is_used_again(how: str, fresh: bool) -> None:
    ran = subprocess.run([sys.executable, "-c", CHURN, how], capture_output=True, text=True, check=True)
    assert (int(ran.stdout) > 5) == fresh


def test_rows_at_once() -> None:
    assert rows_at_once(1024) == 24 * 1024
    assert rows_at_once(2**40) == MIN_ROWS


def test_row_batches() -> None:
    assert list(row_batches(70, 2**40)) == [slice(0, 32), slice(32, 64), slice(64, 96)]
    assert list(row_batches(0, 4)) == []
