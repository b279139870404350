"""Tests that take longer than `make test` may, or need engines that it does not install.

    make long

Real training is killed 20 times at random moments, each single open, write, sync, rename and allocation of a command
fails once, each reader gets 1,000 damaged inputs, and Spark and Ray run in
local sessions (extras `spark`, `ray`; Java). A test that is skipped fails the run. Writes
`benchmarks/results/long_tests.json`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from recvae.evaluation.results import write_results

ROOT = Path(__file__).parent.parent
GROUPS: dict[str, tuple[dict[str, str], list[str]]] = {
    "20 kills of training": ({"RECVAE_KILLS": "20"}, ["tests/test_faults.py", "tests/nn/test_parallelism.py"]),
    "every failing call": ({"RECVAE_FAILING_CALLS": "100000"}, ["tests", "-k", "failing_calls"]),
    "1,000 inputs for each reader": (
        {"RECVAE_FUZZ_INPUTS": "1000"},
        ["tests/test_fuzz.py", "tests/preparation/test_staging.py"],
    ),
    "Spark": ({}, ["tests/preparation/test_engine.py", "tests/inference/test_batch_recommender.py", "-k", "spark"]),
    "Ray": ({}, ["tests/inference/test_batch_recommender.py", "-k", "ray"]),
}
"""Environment variables and arguments of pytest for each group of tests."""


def run_group(environment: dict[str, str], arguments: list[str]) -> dict[str, Any]:
    """Run a group; returns how many tests passed, failed or were skipped, and in how many seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-rs", "-o", "addopts=--strict-markers", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, flush=True)
    summary = done.stdout.splitlines()[-1]
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", summary)}
    seconds = round(time.perf_counter() - started, 1)
    return {"ok": done.returncode == 0 and set(counts) == {"passed"}, **counts, "seconds": seconds}


def main() -> None:
    """Run every group and write the results; exit status 1 unless all tests passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    arguments = parser.parse_args()
    found = {name: run_group(*group) for name, group in GROUPS.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {**record.provenance("make long", 0), "groups": found}
    write_results(arguments.out / "long_tests.json", results)
    print(json.dumps(found, indent=1))
    sys.exit(not all(group["ok"] for group in found.values()))


if __name__ == "__main__":
    main()
