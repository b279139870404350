"""Speed of a service with a blend of five models beside one with MultVAE alone.

    python -m benchmarks.blend_serving [--seconds 5] [--connections 32]

Models are fitted on made-up histories of ML-1M's shape with given settings and few epochs: speed depends on shapes
alone. Requests are those of `benchmarks.serving`, one after another in the library, and from wrk over HTTP, in turns.
Give it a machine with nothing else to do. Writes `benchmarks/results/blend_serving.json` and `blend_serving.md`.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks import record, serving
from benchmarks.neighbours import SHAPE
from benchmarks.shapes import histories
from recvae.inference.ranker import Query, Ranker
from recvae.models import registry
from recvae.models.blending.blend import Blend

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "ease": {"l2": 300.0, "dropout": 0.5, "user_exponent": 0.5},
    "graph": {"factors": 256},
    "als": {"factors": 128, "iterations": 3, "alpha": 5.0, "regularization": 60.0},
    "multdae": {"epochs": 1},
    "multvae": {"epochs": 1},
}
ONE, FIVE = "multvae", "blend of five"


def save_models(folder: Path) -> dict[str, Path]:
    """Fit and save MultVAE and a blend that it is a part of."""
    user_items = histories(**SHAPE)
    parts = {
        name: registry.create(name, **settings).fit(user_items, show_progress=False)
        for name, settings in SETTINGS.items()
    }
    blend = Blend(list(parts.values()), [1.0] * len(parts)).fit(user_items, show_progress=False)
    paths = {ONE: folder / "one", FIVE: folder / "five"}
    registry.save(parts[ONE], paths[ONE])
    registry.save(blend, paths[FIVE])
    return paths


def time_single_requests(paths: Mapping[str, Path], requests: list[dict[str, Any]]) -> dict[str, float]:
    """Median milliseconds of a request in the library, in turns; the first tenth only warms up."""
    rankers = {name: Ranker(registry.load(path, frozen=True)) for name, path in paths.items()}
    seconds: dict[str, list[float]] = {name: [] for name in rankers}
    for body in requests:
        query = Query(body["history"], 10)
        for name, ranker in rankers.items():
            started = perf_counter()
            ranker.rank([query])
            seconds[name].append(perf_counter() - started)
    return {name: 1000 * median(measured[len(measured) // 10 :]) for name, measured in seconds.items()}


def markdown(services: Mapping[str, Mapping[str, float]], single: Mapping[str, float], command: str, cpu: str) -> str:
    """Write a line for each model and route."""
    lines = [
        "# A blend in service\n",
        f"Made by `{command}` on {cpu}.",
        f"`POST /recommend`, histories of 50 of {SHAPE['n_items']:,} items, one worker.\n",
        "| | requests a second | p50 ms | p99 ms | one request in the library, ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in services.items():
        alone = f"{single[name]:.2f}" if name in single else ""
        figures = f"{row['requests_per_second']:,.0f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f}"
        lines.append(f"| {name} | {figures} | {alone} |")
    share = services[FIVE]["requests_per_second"] / services[ONE]["requests_per_second"]
    lines.append(f"\nThe blend answers {share:.2f} times as many requests as MultVAE alone.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=record.parse_count, default=5, help="of each measurement")
    parser.add_argument("--connections", type=record.parse_count, default=32)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    arguments = parser.parse_args()
    requests = serving.bodies(SHAPE["n_items"])
    with tempfile.TemporaryDirectory() as scratch:
        paths = save_models(Path(scratch))
        single = time_single_requests(paths, requests)
        services = serving.throughput(Path(scratch), paths, requests, arguments)
    command = f"python -m benchmarks.blend_serving --seconds {arguments.seconds} --connections {arguments.connections}"
    origin = record.provenance(command, 0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {"services": services, "single_request_ms": single, "origin": origin}
    record.merge(arguments.out / "blend_serving.json", "table", content)
    table = markdown(services, single, command, f"{origin['machine']['cpu']}, {origin['machine']['cores']} cores")
    (arguments.out / "blend_serving.md").write_text(table, encoding="utf8")


if __name__ == "__main__":
    main()
