"""Threads that follow the cores and a quota of their time, where the package is imported before torch or after it."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from recvae.machine import cgroup, cores

REPORT = "print(os.environ.get('GOMP_SPINCOUNT'), torch.get_num_threads(), os.environ.get('OPENBLAS_NUM_THREADS'))"
FIRST = f"import os, recvae, torch; {REPORT}"
AFTER = f"import os, torch, recvae; {REPORT}"
PERIOD = 100_000


@pytest.mark.parametrize(
    ("quota", "assigned", "expected"),
    [(None, 8, 8), (2.0, 64, 2), (1.5, 8, 2), (1.4, 8, 1), (0.2, 8, 1), (4.0, 2, 2)],
)
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, assigned: int, expected: int) -> None:
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cores, "assigned_cores", lambda: assigned)
    assert cores.usable_cores() == expected


@contextmanager
def group_with_quota(share: float) -> Iterator[Path]:
    """A real control group whose processes have this share of a core's time, and the file that they join it by."""
    first = (cgroup.ROOT / "cpu").is_dir()
    group = cgroup.ROOT / ("cpu" if first else "") / f"recvae-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        if first:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD)))
        else:
            (group / "cpu.max").write_text(f"{int(share * PERIOD)} {PERIOD}")
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group can be made here ({error})")
    try:
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def run(code: str, *, join: Path | None = None, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in (*cores.THREADS, *cores.WAITING)}
    joining = f"open({str(join)!r}, 'w').write('0'); " if join else ""
    done = subprocess.run(
        [sys.executable, "-c", joining + code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1), (1.5, min(2, cores.assigned_cores()))])
@pytest.mark.parametrize("code", [FIRST, AFTER])
def test_threads_follow_the_quota_of_a_real_control_group(share: float, expected: int, code: str) -> None:
    with group_with_quota(share) as join:
        threads = run(code, join=join).split()[1]
    assert int(threads) == expected


def test_a_variable_that_is_set_is_left_alone() -> None:
    with group_with_quota(1.0) as join:
        assert run(FIRST, join=join, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="ACTIVE") == "None 2 None"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_threads_follow_the_affinity() -> None:
    one = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); "
    assert run(one + FIRST).split()[:2] == ["1000", "1"]
