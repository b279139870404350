"""Defaults, blend and `recvae fit` on tables that no setting was ever chosen on.

    python -m benchmarks.unseen FOLDER [--fit 120] [--models ease,multvae]

Each CSV file in the folder is prepared and compared as a user's own file is: the defaults of `recvae prepare`, every
model with its defaults, and `recvae fit` within so many seconds. Test users are scored once and choose nothing; what is
seen here is not to change a default, or it is unseen no longer.

Writes `unseen.json` and `unseen.md` into `--out`, where the rows of other data sets stay. Finished runs are kept in
`--keep`, as those of `benchmarks.quality`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import kept, record
from benchmarks.pool import run
from benchmarks.quality import KEEP, Tables, measure
from benchmarks.regret_table import figure
from recvae.data.prepared import Prepared
from recvae.errors import RecvaeError
from recvae.evaluation.results import write_results
from recvae.evaluation.tables import SIGNIFICANCE_LEVEL, choose_marks
from recvae.machine.cores import assigned_cores
from recvae.models.registry import MODELS
from recvae.preparation.pipeline import Options, prepare

METRIC = "ndcg@100"


def prepare_tables(folder: Path, into: Path) -> list[str]:
    """Prepare each CSV file of a folder by the defaults, and name them, the smallest first."""
    files = sorted(folder.glob("*.csv"), key=lambda path: path.stat().st_size)
    for path in files:
        if not (into / path.stem).exists():
            for line in prepare(path, into / path.stem, Options()):
                print(line, flush=True)
    return [path.stem for path in files]


def summarise(table: Mapping[str, Any], prepared: Prepared) -> dict[str, Any]:
    """The sizes of the data, each row's figure, and which rows are as good as the best one."""
    counts = {name: prepared.manifest["counts"][name] for name in ("users", "items", "interactions")}
    return {
        "counts": {**counts, "test users": table["n_users"]},
        "sha256": prepared.manifest["source"]["sha256"],
        METRIC: {row: run["metrics"][METRIC] for row, run in table["models"].items()},
        "fit_seconds": {row: run["fit_seconds"] for row, run in table["models"].items()},
        "as_good_as_the_best": sorted(choose_marks(table, METRIC)),
        "chosen": table["models"].get(kept.OURS, {}).get("params", {}),
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a row for each data set: its sizes, then the figure of every model."""
    models = list(dict.fromkeys(model for row in rows for model in row[METRIC]))
    origins = [(row["command"], row["machine"]) for row in rows]
    made = dict.fromkeys(f"`{command}` on {machine['cpu']}, {machine['cores']} cores" for command, machine in origins)
    counts = ("users", "items", "interactions", "test users")
    lines = [
        "# Data that no setting was chosen on\n",
        f"Made by {' and '.join(made)}.",
        f"{METRIC} of test users, one seed. Bold: the best of a row, and what is not significantly behind it (paired",
        f"t-tests, Holm-corrected p ≥ {SIGNIFICANCE_LEVEL}). Empty: not run.\n",
        f"| data | {' | '.join([*counts, *models])} |",
        f"| --- {'| ---: ' * (len(counts) + len(models))}|",
    ]
    for row in rows:
        cells = [f"{row['counts'][count]:,}" for count in counts]
        for model in models:
            cell = figure(row[METRIC][model]["mean"]) if model in row[METRIC] else ""
            cells.append(f"**{cell}**" if model in row["as_good_as_the_best"] else cell)
        lines.append(f"| {row['data']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of CSV files with user_id and item_id")
    parser.add_argument("--models", type=record.parse_some(MODELS), default=list(MODELS), help="rows, by commas")
    parser.add_argument("--fit", type=float, default=120.0, help="seconds for `recvae fit`")
    parser.add_argument("--keep", type=Path, default=KEEP.with_name("unseen"), help="where finished work is kept")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    return parser.parse_args()


def main() -> None:
    """Prepare, measure and write."""
    arguments = parse_arguments()
    keep: Path = arguments.keep
    try:
        names = prepare_tables(arguments.folder, keep / "prepared")
    except RecvaeError as error:
        sys.exit(f"not run: {error}")
    tables = Tables(
        argparse.Namespace(
            names=names,
            models=arguments.models,
            fit=arguments.fit,
            data=keep / "prepared",
            keep=keep / "runs",
            out=keep / "tables",
            seeds=1,
            workers=1,
        )
    )
    run(measure, tables.take, tables.done, workers=1, cores=assigned_cores(), seconds=float("inf"))
    command = f"python -m benchmarks.unseen FOLDER --fit {arguments.fit:g}"
    if set(arguments.models) != set(MODELS):
        command += f" --models {','.join(arguments.models)}"
    summaries = [(name, summarise(table, tables.data[name])) for name in names if (table := tables.write(name))]
    file = arguments.out / "unseen.json"
    new = [{"data": name, **summary, **record.provenance(command, 0)} for name, summary in summaries]
    rows = record.add_rows(file, new, "data")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_results(file, {"format_version": 1, "rows": rows})
    (arguments.out / "unseen.md").write_text(markdown(rows), encoding="utf8")


if __name__ == "__main__":
    main()
