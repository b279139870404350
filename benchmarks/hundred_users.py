"""Every model with its defaults on a hundred users, beside popularity.

    python -m benchmarks.hundred_users [--sets ml-1m,lastfm] [--samples 3]

Samples of the data sets' training users: 120 to learn from and 15 to choose by. Up to 800 other users are scored once.

Writes `benchmarks/results/hundred_users.json` and `hundred_users.md`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import kept, record
from benchmarks.few_users import METRIC, SETS, prepare_sample
from recvae.data.prepared import read_prepared
from recvae.errors import RecvaeError
from recvae.evaluation.evaluate import evaluate
from recvae.evaluation.results import write_results
from recvae.fitting.candidates import run_params
from recvae.models.registry import MODELS, create
from recvae.preparation.pipeline import Options

LEARN_FROM, CHOOSE_BY = 120, 15
POPULARITY = "popularity"
LEFT_OUT = ("blend", "bpr", "lmf")  # the blend is `few_users`' matter, the others know their training users only
NAMES = [name for name in MODELS if name not in LEFT_OUT]


def measure(directory: Path, seed: int) -> dict[str, float]:
    """Fit models with their defaults, and score the test users by each."""
    split = read_prepared(directory).split
    figures = {}
    for name in NAMES:
        model = create(name, None, **run_params(name, METRIC, seed))
        model.fit(split.train, show_progress=False, validation=split.validation)
        figures[name] = evaluate(model, split.test, [METRIC]).mean(METRIC)
    return figures


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


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=record.split_names, default=list(SETS), help="data sets, by commas")
    parser.add_argument("--samples", type=int, default=3, help="samples of each data set")
    parser.add_argument("--data", type=Path, default=kept.PREPARED, help="prepared directories, by name")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    return parser.parse_args()


def main() -> None:
    """Measure and write, each data set as it is done."""
    arguments = parse_arguments()
    command = f"python -m benchmarks.hundred_users --sets {','.join(arguments.sets)} --samples {arguments.samples}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {}
    for name in arguments.sets:
        found[name] = []
        try:
            matrix = kept.open_data(name, arguments.data).split.train
            for number in range(arguments.samples):
                with prepare_sample(matrix, [number], LEARN_FROM, CHOOSE_BY, Options(seed=number)) as directory:
                    found[name].append(measure(directory, number))
                print(name, number, found[name][-1], flush=True)
        except RecvaeError as error:
            sys.exit(f"not run: {error}")
        write_results(arguments.out / "hundred_users.json", {**record.provenance(command, 0), "data": found})
        text = markdown(found, command, kept.describe_machine())
        (arguments.out / "hundred_users.md").write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()
