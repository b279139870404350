"""Every model with its defaults on a hundred users, beside popularity.

    python -m benchmarks.hundred_users [--sets ml-1m,lastfm] [--samples 3]

Samples of the data sets' training users: 120 to learn from and 15 to choose by. Up to 800 other users are scored once.

Writes `benchmarks/results/hundred_users.json` and `hundred_users.md`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.few_users import METRIC
from benchmarks.samples import Sample, make_parser, measure_samples
from recvae.data.prepared import read_prepared
from recvae.evaluation.compare import compare
from recvae.fitting.candidates import run_params
from recvae.models.registry import MODELS, create

LEARN_FROM, CHOOSE_BY = 120, 15
POPULARITY = "popularity"
LEFT_OUT = ("blend", "bpr", "lmf")  # the blend is `few_users`' matter, the others know their training users only
NAMES = [name for name in MODELS if name not in LEFT_OUT]


def measure(directory: Path, seed: int) -> dict[str, float]:
    """Fit models with their defaults, and score the test users by each."""
    models = {name: create(name, None, **run_params(name, METRIC, seed)) for name in NAMES}
    compared = compare(models, read_prepared(directory).split, [], [METRIC], show_progress=False)
    return {name: run.result.mean(METRIC) for name, run in compared.runs.items()}


def markdown(found: Mapping[str, Sequence[Mapping[str, float]]], command: str, machine: str) -> str:
    """Write a row for each model, and a line for all."""
    lines = [
        "# Defaults on a hundred users\n",
        f"Made by `{command}` on {machine}.",
        f"Samples of {LEARN_FROM} users to learn from and {CHOOSE_BY} to choose by; {METRIC} of others, scored once.\n",
        f"| | {' | '.join(found)} |",
        f"| --- |{' ---: |' * len(found)}",
    ]
    for model in NAMES:
        means = [f"{np.mean([sample[model] for sample in samples]):.4f}" for samples in found.values()]
        lines.append(f"| {model} | {' | '.join(means)} |")
    below = [
        f"{model} on {name}, sample {number + 1} ({sample[model]:.4f}, popularity {sample[POPULARITY]:.4f})"
        for name, samples in found.items()
        for number, sample in enumerate(samples)
        for model in NAMES
        if sample[model] < sample[POPULARITY]
    ]
    lines.append(f"\nMeans over the samples. Below popularity: {'; '.join(below) or 'no model on any sample'}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write, each data set as it is done."""
    arguments = make_parser(__doc__).parse_args()
    measure_samples("hundred_users", arguments, Sample(LEARN_FROM, CHOOSE_BY), measure, markdown)


if __name__ == "__main__":
    main()
