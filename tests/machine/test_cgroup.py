"""Limits of control groups: files of both versions, nested groups, and a real group with a real quota."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recvae.machine import cgroup

Write = Callable[[str, dict[str, str]], None]
PERIOD = "cpu.cfs_period_us"
QUOTA = "cpu.cfs_quota_us"


@pytest.fixture
def write_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A function that makes the files of control groups, as the kernel shows them."""

    def write(own: str, files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(cgroup, "ROOT", tmp_path)
        monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")

    return write


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/outside/the/container\n", {"cpu.max": "50000 100000"}, 0.5),
        ("1:cpu,cpuacct:/d/1\n", {f"cpu,cpuacct/{QUOTA}": "200000", f"cpu,cpuacct/{PERIOD}": "100000"}, 2.0),
        ("1:cpu,cpuacct:/d\n", {f"cpu/d/{QUOTA}": "200000", f"cpu/d/{PERIOD}": "50000"}, 4.0),
        ("1:cpu:/\n", {f"cpu/{QUOTA}": "-1", f"cpu/{PERIOD}": "100000"}, None),
        ("1:cpuset:/\n", {f"cpu/{QUOTA}": "100000", f"cpu/{PERIOD}": "100000"}, None),
        ("nonsense\n", {"cpu.max": "?"}, None),
    ],
)
def test_the_quota_of_cores(write_groups: Write, own: str, files: dict[str, str], expected: float | None) -> None:
    write_groups(own, files)
    assert cgroup.cpu_quota() == expected


@pytest.mark.parametrize(
    ("own", "files", "limit", "left"),
    [
        (
            "0::/a\n",
            {"a/memory.max": "2000", "a/memory.current": "1500", "a/memory.stat": "anon 5\ninactive_file 300"},
            2000,
            800,
        ),
        ("0::/a\n", {"a/memory.max": "max", "memory.max": "900", "memory.current": "1000"}, 900, 0),
        (
            "4:memory:/d\n",
            {
                "memory/d/memory.limit_in_bytes": "3000",
                "memory/d/memory.usage_in_bytes": "1000",
                "memory/d/memory.stat": "inactive_file 1\ntotal_inactive_file 200",
            },
            3000,
            2200,
        ),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None, None),
        ("", {}, None, None),
    ],
)
def test_the_limit_of_memory(
    write_groups: Write, own: str, files: dict[str, str], limit: int | None, left: int | None
) -> None:
    write_groups(own, files)
    assert cgroup.memory_limit() == limit
    assert cgroup.memory_left() == left


def test_a_system_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "missing")
    assert (cgroup.cpu_quota(), cgroup.memory_limit(), cgroup.memory_left()) == (None, None, None)
