"""A JSON file of benchmark results, in parts that can be measured at different times."""

import argparse
import json
import platform
import re
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from threadpoolctl import threadpool_info

from recvae.evaluation.results import write_results
from recvae.machine.cores import assigned_cores
from recvae.storage.manifest import versions

FORMAT_VERSION = 1
RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, Any]:
    """Describe the machine: processor, cores that this process may use, threads, memory, kernels of BLAS libraries."""
    cpu, memory = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    model = re.search(r"^model name\s*: (.+)$", cpu.read_text(), re.MULTILINE) if cpu.exists() else None
    total = re.search(r"^MemTotal:\s+(\d+) kB", memory.read_text(), re.MULTILINE) if memory.exists() else None
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": assigned_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(int(total[1]) * 1024 / 1e9, 1) if total else None,
        "blas": sorted({f"{found['internal_api']} {found['architecture']}" for found in _blas()}),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _blas() -> list[dict[str, Any]]:
    return [found for found in threadpool_info() if "architecture" in found]


def provenance(command: str, seed: int, *packages: str) -> dict[str, Any]:
    """Describe the origin of figures; versions of `packages` are added to those that recvae's arithmetic relies on."""
    found = {"python": platform.python_version(), **versions("implicit", *packages)}
    return {"command": command, "seed": seed, "machine": describe_machine(), "versions": found}


class Options(argparse.Namespace):
    """Options of the command line, and the command itself."""

    only: list[str]
    venvs: Path
    out: Path
    rounds: int
    seed: int
    command: str


def add_rows(file: Path, rows: Sequence[Mapping[str, Any]], *keys: str) -> list[Mapping[str, Any]]:
    """Put rows of results behind those that a file has, or in place of those with the same values of the keys."""
    old = json.loads(file.read_text(encoding="utf8"))["rows"] if file.exists() else []
    return list({tuple(row[key] for key in keys): row for row in (*old, *rows)}.values())


def split_names(text: str) -> list[str]:
    """Names in a text with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_some(known: Collection[str]) -> Callable[[str], list[str]]:
    """Make a parser of an option that takes some of the known names, with commas between them."""

    def parse(text: str) -> list[str]:
        names = split_names(text)
        if unknown := sorted({*names} - {*known}):
            raise argparse.ArgumentTypeError(f"has {', '.join(unknown)}; expected some of {', '.join(known)}")
        return names

    return parse


def parse_count(text: str) -> int:
    """Read an option that is a number of things: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a whole number of at least 1")
    return int(text)


def add_parts(parser: argparse.ArgumentParser, parts: Collection[str]) -> None:
    """Add the option that chooses some of a benchmark's parts."""
    parser.add_argument("--only", type=parse_some(parts), default=list(parts), help="parts, by commas")


def parse_options(module: str, about: str | None, parts: Collection[str], venvs: Path, rounds: int) -> Options:
    """Parse the options of a benchmark in parts; `venvs` and `rounds` are their defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_parts(parser, parts)
    parser.add_argument("--venvs", type=Path, default=venvs, help="where peers are installed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=parse_count, default=rounds, help="how often each is measured")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(namespace=Options())
    options.command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    return options


def read(path: Path) -> dict[str, Any]:
    """Read the parts measured so far; none if there is no file yet."""
    if not path.exists():
        return {"format_version": FORMAT_VERSION, "parts": {}}
    results = json.loads(path.read_text(encoding="utf8"))
    if results.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path} has format_version {results.get('format_version')!r}; expected {FORMAT_VERSION}")
    return dict(results)


def merge(path: Path, part: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Replace one part's content, keep the other parts, and return all."""
    results = read(path)
    results["parts"][part] = dict(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_results(path, results)
    return results


def spread(samples: Sequence[float]) -> dict[str, float | int]:
    """Compute median, smallest and largest of the samples, and count them."""
    return {"median": median(samples), "min": min(samples), "max": max(samples), "n": len(samples)}
