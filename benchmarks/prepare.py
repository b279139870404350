"""Time and memory of `recvae prepare` on a ratings file of MovieLens-20M's shape.

    python -m benchmarks.prepare [--seed 0] [--repeat 3]

Writes the file as `benchmarks/synthetic.py` does, prepares it in a process of its own, and writes the median of the
seconds and the largest peak of resident memory to `benchmarks/results/prepare.json`. Bounds on two cores: 30 s, 3 GB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import record
from benchmarks.synthetic import Shape, fit_laws, write
from recvae.evaluation.results import write_results

COMMAND = "import sys; from recvae.cli.main import main; sys.argv[0] = 'recvae'; main()"


def time_prepare(ratings: Path, out: Path) -> tuple[float, float]:
    """Measure seconds and peak megabytes of one run of the command."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, "prepare", str(ratings), "--out", str(out)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("recvae prepare failed")
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Generate, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=record.parse_count, default=3)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    arguments = parser.parse_args()
    shape = Shape()
    with tempfile.TemporaryDirectory() as scratch:
        ratings = Path(scratch) / "ratings.csv"
        write(ratings, shape, fit_laws(), arguments.seed)
        runs = [time_prepare(ratings, Path(scratch) / "prepared") for _ in range(arguments.repeat)]
        size = ratings.stat().st_size
    seconds, megabytes = zip(*runs, strict=True)
    results = {
        **record.provenance(
            f"python -m benchmarks.prepare --seed {arguments.seed} --repeat {arguments.repeat}",
            arguments.seed,
            "pyarrow",
        ),
        "file": {**vars(shape), "megabytes": size / 1e6},
        "seconds": {"median": median(seconds), "all": list(seconds)},
        "peak_rss_mb": max(megabytes),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_results(arguments.out / "prepare.json", results)
    print(f"prepare: {median(seconds):.1f} s, {max(megabytes):,.0f} MB at its peak")


if __name__ == "__main__":
    main()
