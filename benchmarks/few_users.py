"""The choice of `recvae fit` by few validation users, beside the single model with the highest figure on them.

    python -m benchmarks.few_users [--sets ml-1m,lastfm] [--samples 3] [--budget 60]

Samples of the data sets' training users are split as a user's own small file would be: 600 users to learn from and 75
to choose by, of whom those with fewer than five interactions fall away. Other users, up to 800, are scored once: by the
model that `recvae fit` chooses, and by the single model with the highest figure on the validation users.

Writes `benchmarks/results/few_users.json` and `few_users.md`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

import recvae
from benchmarks import kept, record
from recvae.errors import RecvaeError
from recvae.evaluation.results import write_results
from recvae.fitting.trial import BLEND
from recvae.preparation.pipeline import Options, prepare

SETS = ("ml-1m", "lastfm", "citeulike", "gowalla", "yelp2018", "ml-10m-likes")
LEARN_FROM, CHOOSE_BY, MOST_SCORED = 600, 75, 800
LEAST_USERS = 3
"""Of an item in the sample, as the catalogue would be too large for so few users."""
METRIC = "ndcg@10"


@contextmanager
def prepare_sample(
    matrix: sparse.csr_matrix, numbers: Sequence[int], learn_from: int, choose_by: int, options: Options
) -> Iterator[Path]:
    """Draw users of a training matrix with all their interactions, and prepare them as a file of their own.

    Parameters
    ----------
    matrix : csr_matrix
    numbers : sequence of int
        Seed of the draw.
    learn_from, choose_by : int
        Training and validation users; up to `MOST_SCORED` more are test users.
    options : Options
        What else to prepare them by.

    Yields
    ------
    Path
        A prepared directory, there until the block ends.
    """
    n_users = learn_from + choose_by
    users = np.random.default_rng(numbers).permutation(matrix.shape[0])[: n_users + MOST_SCORED]
    pairs = matrix[users].tocoo()
    sample = pd.DataFrame({"user_id": pairs.row, "item_id": pairs.col})
    with tempfile.TemporaryDirectory() as folder:
        file, directory = Path(folder) / "sample.csv", Path(folder) / "prepared"
        sample.to_csv(file, index=False)
        n_scored = sample["user_id"].nunique() - n_users
        prepare(file, directory, replace(options, split="strong", val_users=choose_by, test_users=n_scored))
        yield directory


def measure(directory: Path, budget: float, seed: int) -> dict[str, Any]:
    """Let `recvae fit` choose a model for a sample, and compare it with the one of the highest validation figure."""
    fitted = recvae.fit(directory, budget=budget, metric=METRIC, seed=seed, show_progress=False)
    results = fitted.results or {}
    figures = {model: run["metrics"][METRIC]["mean"] for model, run in results["models"].items()}
    singles = [one for one in results["search"]["candidates"] if one["model"] != BLEND]
    highest = max(singles, key=lambda one: one["value"])["model"]
    return {
        "chosen": fitted.name,
        "highest": highest,
        "test": {"chosen": figures[fitted.name], "highest": figures[highest], "best": max(figures.values())},
        "test_users": results["n_users"],
        "seconds": results["search"]["seconds"],
    }


def list_gains(samples: Sequence[Mapping[str, Any]]) -> list[float]:
    """Compute for each sample how much better what was chosen is than the highest single model, relative."""
    return [sample["test"]["chosen"] / sample["test"]["highest"] - 1 for sample in samples]


def markdown(found: Mapping[str, Sequence[Mapping[str, Any]]], command: str, machine: str) -> str:
    """Write a row for each data set, and a line for all."""
    lines = [
        "# Choosing by few validation users\n",
        f"Made by `{command}` on {machine}.",
        f"Samples of {LEARN_FROM} users to learn from and {CHOOSE_BY} to choose by; {METRIC} of others, scored once.\n",
        "| data | highest single | chosen | best of all | which was chosen | gains |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, samples in found.items():
        means = [f"{np.mean([s['test'][key] for s in samples]):.4f}" for key in ("highest", "chosen", "best")]
        gains = ", ".join(f"{gain:+.1%}" for gain in list_gains(samples))
        lines.append(f"| {name} | {' | '.join(means)} | {', '.join(s['chosen'] for s in samples)} | {gains} |")
    every = np.array([gain for samples in found.values() for gain in list_gains(samples)])
    better, worse = (every > 0).sum(), (every < 0).sum()
    lines += [
        f"\nOf {len(every)} samples {better} gain and {worse} lose; median {np.median(every):+.1%}.\n",
        "Highest single: the model with the highest figure on the validation users, the blend apart. Best of all: the",
        "highest figure on the test users, which nobody knows beforehand. Gains: of what was chosen over the highest",
        "single, sample by sample. The other figures are means over the samples.",
    ]
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=record.split_names, default=list(SETS), help="data sets, by commas")
    parser.add_argument("--samples", type=int, default=3, help="samples of each data set")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for `recvae fit`")
    parser.add_argument("--data", type=Path, default=kept.PREPARED, help="prepared directories, by name")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    return parser.parse_args()


def main() -> None:
    """Measure and write, each data set as it is done."""
    arguments = parse_arguments()
    given = {"--sets": ",".join(arguments.sets), "--samples": arguments.samples, "--budget": f"{arguments.budget:g}"}
    command = " ".join(["python -m benchmarks.few_users", *(f"{name} {value}" for name, value in given.items())])
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.sets:
        found[name] = []
        try:
            matrix = kept.open_data(name, arguments.data).split.train
            for number in range(arguments.samples):
                options = Options(min_item_users=LEAST_USERS, seed=number)
                with prepare_sample(matrix, [number, len(name)], LEARN_FROM, CHOOSE_BY, options) as directory:
                    found[name].append(measure(directory, arguments.budget, number))
                print(name, number, found[name][-1], flush=True)
        except RecvaeError as error:
            sys.exit(f"not run: {error}")
        write_results(arguments.out / "few_users.json", {**record.provenance(command, 0), "data": found})
        (arguments.out / "few_users.md").write_text(markdown(found, command, kept.describe_machine()), encoding="utf8")


if __name__ == "__main__":
    main()
