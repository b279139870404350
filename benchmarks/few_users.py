"""The choice of `recvae fit` by few validation users, beside the single model with the highest figure on them.

    python -m benchmarks.few_users [--sets ml-1m,lastfm] [--samples 3] [--budget 60]

Samples of the data sets' training users are split as a user's own small file would be: 600 users to learn from and 75
to choose by, of whom those with fewer than five interactions fall away. Other users, up to 800, are scored once: by the
model that `recvae fit` chooses, and by the single model with the highest figure on the validation users.

Writes `benchmarks/results/few_users.json` and `few_users.md`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import recvae
from benchmarks.samples import Sample, make_parser, measure_samples
from recvae.fitting.trial import BLEND

LEARN_FROM, CHOOSE_BY = 600, 75
LEAST_USERS = 3
METRIC = "ndcg@10"


def measure(directory: Path, seed: int, budget: float) -> dict[str, Any]:
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


def main() -> None:
    """Measure and write, each data set as it is done."""
    parser = make_parser(__doc__)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for `recvae fit`")
    arguments = parser.parse_args()
    sample = Sample(LEARN_FROM, CHOOSE_BY, min_item_users=LEAST_USERS)
    measure_budget = partial(measure, budget=arguments.budget)
    measure_samples("few_users", arguments, sample, measure_budget, markdown, f"--budget {arguments.budget:g}")


if __name__ == "__main__":
    main()
