"""`recvae fit` beside the best single model that a search found: of the trials that `benchmarks.regret` keeps.

    python -m benchmarks.regret --sets ml-100k,lastfm --models ease,als --trials 30
    python -m benchmarks.tuned --sets ml-100k,lastfm [--budget 600]

The best single model of a data set is the one with the highest NDCG@100 on the validation users, of all models and
settings that were tried, the defaults among them. It stands for what a user gets from `recvae tune` for each model.
`recvae fit` searches for `--budget` seconds, and the model that it chose is fitted on the same training users. Both are
compared on the test users, which chose neither: t of the paired difference, two-sided. Writes `tuned.json` and
`tuned.md` into `--out`, where the rows of other data sets stay.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept, record, regret
from benchmarks.regret_table import figure
from recvae.data.prepared import Prepared
from recvae.errors import RecvaeError
from recvae.evaluation.compare import ModelRun
from recvae.evaluation.evaluate import evaluate
from recvae.evaluation.results import write_results
from recvae.evaluation.standard_error import standard_error
from recvae.fitting.scored_users import draw_users

METRIC = "ndcg@100"
Row = Mapping[str, Any]


def find_best(folder: Path, identity: str) -> tuple[dict[str, Any], Path]:
    """Find the trial with the highest validation figure, of all single models, and the file of its figures.

    Raises
    ------
    RecvaeError
        If there is no trial of this split.
    """
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.startswith("blend.")]
    trials = [(json.loads(path.read_text(encoding="utf8")), path) for path in paths]
    valid = [(trial, path) for trial, path in trials if trial.get("split") == identity and "validation" in trial]
    if not valid:
        raise RecvaeError(f"no trials are in {folder}; run benchmarks.regret first")
    best, path = max(valid, key=lambda pair: float(pair[0]["validation"]))
    model = path.name.split(".")[0]
    tried = sum(path.name.startswith(f"{model}.") for _, path in valid) - 1
    return {"model": model, "models": len({path.name.split(".")[0] for _, path in valid}), "trials": tried} | best, path


def fit(prepared: Prepared, path: Path, budget: float, most_users: int) -> ModelRun:
    """Run `recvae fit` on a data set, or read the run that was kept."""
    identity = prepared.identity["split_sha256"]
    if not kept.has_run(path, identity):
        split = prepared.split
        model, chosen, seconds = kept.fit_within(prepared.path, split.train, budget, METRIC)
        result = evaluate(model, draw_users(split.test, most_users), [METRIC])
        kept.write_run(path, ModelRun(result, seconds, None, chosen), split=identity, row=kept.OURS)
    return kept.read_run(path)[0]


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare both on the test users of a data set."""
    prepared = kept.open_data(name, arguments.data)
    best, path = find_best(arguments.keep / name, prepared.identity["split_sha256"])
    run = fit(
        prepared,
        arguments.keep / "fit" / f"{name}-{arguments.budget:g}-{arguments.users}",
        arguments.budget,
        arguments.users,
    )
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        difference = run.result.values(METRIC) - arrays["test"]
    single = {key: best[key] for key in ("model", "params", "validation", "test", "models", "trials")}
    return {
        "data": name,
        "single": single,
        "fit": {"test": run.result.mean(METRIC), "seconds": run.fit_seconds, "params": run.params},
        "difference": {"mean": float(difference.mean()), "stderr": standard_error(difference)},
        "n_users": len(difference),
    }


def tabulate(rows: Sequence[Row]) -> str:
    """Write the page."""
    made = "".join(f"    {command}\n" for command in dict.fromkeys(row["command"] for row in rows))
    lines = [
        "# recvae fit beside the best single model of a search\n",
        f"Made of the trials of [regret.md](regret.md) by\n\n{made}",
        f"{METRIC} of the test users. The single model has the highest figure on the validation users of all models",
        "and settings that the search tried; its trials are those of that model, beside its defaults.\n",
        "| data | users | best single model | trials | test | fit | seconds | difference | t |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        single, difference = row["single"], row["difference"]
        share = difference["mean"] / single["test"]
        t = difference["mean"] / difference["stderr"] if difference["stderr"] else 0.0  # the same model
        figures = f"{figure(single['test'])} | {figure(row['fit']['test'])} | {row['fit']['seconds']:.0f}"
        lines.append(
            f"| {row['data']} | {row['n_users']:,} | {single['model']}, of {single['models']} | {single['trials']} | "
            f"{figures} | {share:+.1%} | {t:.1f} |"
        )
    return "\n".join(lines) + "\n"


def write(rows: Sequence[Row], arguments: argparse.Namespace) -> str:
    """Write rows beside those of other data sets that there are already, and return the page."""
    sets = ",".join(arguments.sets)
    command = f"python -m benchmarks.tuned --sets {sets} --budget {arguments.budget:g} --users {arguments.users}"
    file = arguments.out / "tuned.json"
    every = record.add_rows(file, [{**row, **record.provenance(command, 0)} for row in rows], "data")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_results(file, {"format_version": 1, "rows": every})
    page = tabulate(every)
    (arguments.out / "tuned.md").write_text(page, encoding="utf8")
    return page


def main() -> None:
    """Fit, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=record.split_names, default=list(regret.SETS), help="data sets, by commas")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds for `recvae fit`")
    parser.add_argument("--users", type=record.parse_count, default=5_000, help="as given to benchmarks.regret")
    parser.add_argument("--data", type=Path, default=kept.PREPARED, help="prepared directories, by name")
    parser.add_argument("--keep", type=Path, default=regret.KEEP, help="where benchmarks.regret keeps its trials")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    arguments = parser.parse_args()
    try:
        rows = [compare(name, arguments) for name in arguments.sets]
    except RecvaeError as error:
        sys.exit(f"not run: {error}")
    print(write(rows, arguments))


if __name__ == "__main__":
    main()
