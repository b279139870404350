"""Limits that a container or a service manager sets for this process, in control groups of version 1 or 2."""

from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNLIMITED = 2**60
"""Version 1 writes a memory limit at least this high where there is none."""


def cpu_quota() -> float | None:
    """Cores' worth of processor time that this process may use, such as 1.5; None without a limit."""
    quotas = []
    for folder in _folders("cpu"):
        quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]  # version 2, in one file
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Bytes that this process and those beside it in its group may use; None without a limit."""
    return min((limit for _, limit in _memory_limits()), default=None)


def memory_left() -> int | None:
    """Bytes that are left of the tightest limit; None without a limit.

    Pages of files that were not read lately count as used, but the kernel gives them up when memory is asked for, so
    they are counted as left.
    """
    left = []
    for folder, limit in _memory_limits():
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        statistics = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
        stale = statistics.get("total_inactive_file") or statistics.get("inactive_file", "")  # version 1, version 2
        if used.isdigit():
            left.append(max(0, limit - int(used) + (int(stale) if stale.isdigit() else 0)))
    return min(left, default=None)


def _memory_limits() -> Iterator[tuple[Path, int]]:
    for folder in _folders("memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if limit.isdigit() and int(limit) < UNLIMITED:
            yield folder, int(limit)


def _folders(controller: str) -> Iterator[Path]:
    """This process's group and those above it, whose limits hold for it too, in every hierarchy with the controller.

    A container often sees its own group at the root of the hierarchy, while /proc names the path outside: folders that
    are not there have no files to read.
    """
    for line in _read(OWN).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (ROOT / controllers, ROOT / controller) if controllers else (ROOT, ROOT / "unified"):
            group = mount / path.strip("/")
            yield group
            yield from (folder for folder in group.parents if folder.is_relative_to(mount))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
