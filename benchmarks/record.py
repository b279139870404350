"""One JSON file of benchmark results, in parts that are measured when one likes."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from recvae.report import write_results
from recvae.storage import versions

FORMAT_VERSION = 1


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores that this process may use, threads, memory."""
    cpu, memory = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    model = re.search(r"^model name\s*: (.+)$", cpu.read_text(), re.MULTILINE) if cpu.exists() else None
    total = re.search(r"^MemTotal:\s+(\d+) kB", memory.read_text(), re.MULTILINE) if memory.exists() else None
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(int(total[1]) * 1024 / 1e9, 1) if total else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def provenance(command: str, seed: int) -> dict[str, Any]:
    """Where a part's figures come from."""
    found = {"python": platform.python_version(), **versions("implicit")}
    return {"command": command, "seed": seed, "machine": machine(), "versions": found}


def read(path: Path) -> dict[str, Any]:
    """The parts measured so far; none where there is no file yet."""
    if not path.exists():
        return {"format_version": FORMAT_VERSION, "parts": {}}
    results = json.loads(path.read_text(encoding="utf8"))
    if results.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path} has format_version {results.get('format_version')!r}; expected {FORMAT_VERSION}")
    return dict(results)


def merge(path: Path, part: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Put one part's content in the place of its earlier one, leave the others, and return all."""
    results = read(path)
    results["parts"][part] = dict(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_results(path, results)
    return results


def spread(samples: Sequence[float]) -> dict[str, float | int]:
    """Median, smallest and largest of the samples, and their number."""
    return {"median": median(samples), "min": min(samples), "max": max(samples), "n": len(samples)}
