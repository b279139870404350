"""Quality tables: every model with its defaults on public data sets, beside published figures.

    python -m benchmarks.quality ml-100k ml-1m gowalla [--models ease,als] [--fit 600] [--workers 4]

Each data set is found as `recvae prepare` finds it, or taken from `--data`, a folder of prepared directories by name,
where it may have any name.
Every model is fitted on the training users or interactions, chooses by the validation users what its defaults leave
open, and is evaluated once on the test users; what draws numbers is fitted with several seeds. With
`--fit` a row is the model that `recvae fit` finds within so many seconds. Gowalla and Yelp2018
publish no validation list: models choose on interactions taken out of the training interactions, and are then fitted
again on all of these with the settings and epochs found.

Writes `benchmarks/results/NAME.json` and `NAME.md`. Finished runs are kept in `--keep`, and a run that was cut off goes
on where it stood; delete that folder to measure again.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from scipy import sparse

from benchmarks import kept, record
from benchmarks.pool import Task, run
from benchmarks.published import FIGURES
from recvae.data.prepared import Prepared, read_prepared
from recvae.data.splitting import Split
from recvae.errors import ParameterError, RecvaeError
from recvae.evaluation.compare import RECALL_CURVE, ModelRun, combine
from recvae.evaluation.evaluate import (
    BEYOND_ACCURACY_METRICS,
    DEFAULT_METRICS,
    PRIMARY_METRICS,
    evaluate,
    refuse_new_users,
)
from recvae.evaluation.results import write_results
from recvae.evaluation.tables import console_table, markdown_table
from recvae.machine.cores import assigned_cores
from recvae.memory import peak_memory
from recvae.models.base import Recommender
from recvae.models.blending.blend import Blend
from recvae.models.registry import MODELS, create, seed_params

HERE = Path(__file__).parent
KEEP = HERE.parent / "data" / "quality"
REFITTED = ("gowalla", "yelp2018")  # train and test lists only, and published figures are of all training interactions
LISTS_METRICS = ("recall_full@20", "ndcg@20")
METRICS = (*PRIMARY_METRICS, *DEFAULT_METRICS, *BEYOND_ACCURACY_METRICS, *RECALL_CURVE)
PAPER_ROWS = ("multdae (paper)", "multvae (paper)")
PAPER_USERS = 100_000  # from this size on the publication's own 200 epochs and 200,000 annealing steps


@dataclass(frozen=True)
class Cell:
    """One fit of one row of a table.

    Attributes
    ----------
    data : str
        Name of the data set.
    directory : Path
        Its prepared directory.
    row : str
    seed : int
    path : Path
        The file, without an ending, that the run is kept in.
    budget : float
        Seconds for `recvae fit`.
    """

    data: str
    directory: Path
    row: str
    seed: int
    path: Path
    budget: float


def paper_settings(n_users: int) -> dict[str, int]:
    """Scale the publication's epochs and annealing to data with fewer users.

    Small data get at least 100 epochs and 1,000 updates, and anneal over twice the run's updates, so that β reaches
    its cap after 40% of them.
    """
    if n_users >= PAPER_USERS:
        return {"epochs": 200, "total_anneal_steps": 200_000}
    updates = -(-n_users // 500)
    epochs = max(100, -(-1000 // updates))
    return {"epochs": epochs, "total_anneal_steps": 2 * epochs * updates}


def create_row(row: str, n_users: int, seed: int) -> Recommender:
    """Create the model of a row of the table."""
    name = kept.model_name(row)
    if row not in PAPER_ROWS:
        return create(name, None, **seed_params(name, seed))
    paper: dict[str, Any] = {"seed": seed, **paper_settings(n_users)}
    if name == "multdae":
        del paper["total_anneal_steps"]
    return create(name, "paper", **paper)


def fit(cell: Cell, model: Recommender, split: Split, train: sparse.csr_matrix) -> Recommender:
    """Fit the model of a cell, and again on all training interactions where these are more.

    A blend takes its parts from the cells that have them, so that each is fitted once.
    """
    folder = cell.path.parent
    if isinstance(model, Blend):
        parts = [kept.take_part(folder, part, cell.seed, "train") for part in kept.PARTS]
        model = Blend(parts, seed=cell.seed)
    model.fit(split.train, show_progress=False, validation=split.validation)
    kept.keep_model(model, cell.path.with_name(f"{cell.path.name}.train"), cell.row)
    if train is split.train:
        return model
    if isinstance(model, Blend):
        weights = {part: weight for part, weight in zip(kept.PARTS, model.weights_.tolist(), strict=True) if weight}
        parts = [kept.take_part(folder, part, cell.seed, "whole") for part in weights]
        return Blend(parts, list(weights.values()), seed=cell.seed).fit(train, show_progress=False)
    model = model.refit(train, show_progress=False)
    kept.keep_model(model, cell.path.with_name(f"{cell.path.name}.whole"), cell.row)
    return model


def primary_metrics(data: str) -> tuple[str, ...]:
    """Metrics of a data set's table: those of its publications."""
    return LISTS_METRICS if data in REFITTED else PRIMARY_METRICS


def describe_machines(machines: Mapping[str, str]) -> str:
    """Say which rows were measured on which machine; several may have run at once."""
    rows: dict[str, list[str]] = {}
    for row, machine in machines.items():
        rows.setdefault(machine, []).append(row)
    lines = [f"Measured on {machine}: {', '.join(sorted(names))}." for machine, names in rows.items()]
    return "\n".join(["Seconds are those of runs beside others on the same machine.", *lines]) + "\n"


def measure(cell: Cell) -> dict[str, Any]:
    """Fit and evaluate one model, and keep the run."""
    prepared = read_prepared(cell.directory)
    split, identity = prepared.split, prepared.identity["split_sha256"]
    train = kept.whole_training(split) if cell.data in REFITTED else split.train
    if cell.row == kept.OURS:
        with peak_memory() as peak:
            model, params, seconds = kept.fit_within(cell.directory, train, cell.budget, primary_metrics(cell.data)[-1])
    else:
        model = create_row(cell.row, split.train.shape[0], cell.seed)
        try:
            refuse_new_users(model, split.test)
        except ParameterError as error:
            return {"refused": str(error).removeprefix(f"{type(model).__name__} ")}
        with peak_memory() as peak:
            started = perf_counter()
            model = fit(cell, model, split, train)
            seconds, params = perf_counter() - started, model.fitted_params()
    result = evaluate(model, split.test, METRICS, train=train)
    fitted = ModelRun(result, seconds, peak.mb, params, getattr(model, "history_", ()))
    kept.write_run(cell.path, fitted, split=identity, row=cell.row, seed=cell.seed)
    return {"seconds": seconds, **{metric: result.mean(metric) for metric in primary_metrics(cell.data)}}


class Tables:
    """The cells of several tables: which are to be measured, and the tables of those that are."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.data: dict[str, Prepared] = {}
        self.cells: dict[str, list[Cell]] = {}
        self.refused: dict[str, dict[str, str]] = {}
        for name in arguments.names:
            self.data[name] = kept.open_data(name, arguments.data)
            self.cells[name] = list(self._list_cells(name))
            self.refused[name] = {}
        rows = kept.order_rows({cell.row for cells in self.cells.values() for cell in cells})
        pending = [cell for cells in self.cells.values() for cell in cells if not self._is_done(cell)]
        self.pending = sorted(pending, key=lambda cell: (cell.seed, rows.index(cell.row)))

    def _list_cells(self, name: str) -> list[Cell]:
        models = self.arguments.models or [*MODELS, *(PAPER_ROWS if name.startswith("ml-") else ())]
        models = [*models, *([kept.OURS] if self.arguments.fit else [])]
        cells = []
        for row in models:
            for seed in range(self.arguments.seeds if kept.needs_seeds(row) else 1):
                path = self.arguments.keep / name / f"{row}-{seed}"
                cells.append(Cell(name, self.data[name].path, row, seed, path, self.arguments.fit))
        return cells

    def _is_done(self, cell: Cell) -> bool:
        return kept.has_run(cell.path, self.data[cell.data].identity["split_sha256"])

    def take(self) -> Task | None:
        """Give the next cell to measure, the first seed of every model before the second of any."""
        for cell in list(self.pending):
            if cell.row not in self.refused[cell.data] and self._waits_for_parts(cell):
                continue
            self.pending.remove(cell)
            if cell.row in self.refused[cell.data]:
                continue
            n_items, workers = self.data[cell.data].split.train.shape[1], self.arguments.workers
            threads = kept.choose_threads(cell.row, n_items, assigned_cores(), workers)
            memory = kept.estimate_memory(cell.row, n_items), kept.estimate_gpu_memory(cell.row, n_items)
            return Task(cell, threads, *memory)
        return None

    def _waits_for_parts(self, cell: Cell) -> bool:
        """Tell if a cell is a blend whose parts are cells that are still to be measured."""
        return cell.row == "blend" and any(
            part.row in kept.PARTS
            and part.seed in (0, cell.seed)
            and part.row not in self.refused[cell.data]
            and not self._is_done(part)
            for part in self.cells[cell.data]
        )

    def done(self, cell: Cell, result: dict[str, Any]) -> None:
        """Report a cell, and write the table that it belongs to."""
        if "refused" in result:
            self.refused[cell.data][cell.row] = result["refused"]
        if "error" in result:
            self.refused[cell.data].setdefault(cell.row, result["error"])
        figures = "  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k}: {v}" for k, v in result.items())
        print(f"{cell.data:13} {cell.row:16} seed {cell.seed}  {figures}", flush=True)
        self.write(cell.data)

    def write(self, name: str) -> dict[str, Any] | None:
        """Write a table of the runs that there are, and return its content; None if there are no runs."""
        runs: dict[str, list[ModelRun]] = {}
        machines: dict[str, str] = {}
        for cell in self.cells[name]:
            if self._is_done(cell):
                run, facts = kept.read_run(cell.path)
                runs.setdefault(cell.row, []).append(run)
                machines[cell.row] = facts["machine"]
        if not runs:
            return None
        prepared, primary = self.data[name], primary_metrics(name)
        refused = {row: why for row, why in self.refused[name].items() if row not in runs}
        compared = combine(runs, prepared.split.test, primary, refused)
        compared = replace(compared, runs={row: compared.runs[row] for row in self._sort(compared.runs)})
        protocol = {**prepared.manifest["protocol"], "filters": prepared.manifest["filters"]}
        if name in REFITTED:
            protocol["fitted again"] = "on all training interactions, with the settings and epochs found"
        results = compared.as_dict(dataset=name, protocol=protocol, seed=0)
        fit = f" --fit {self.arguments.fit:g}" if self.arguments.fit else ""
        results["command"] = f"python -m benchmarks.quality {name} --seeds {self.arguments.seeds}{fit}"
        results["machines"] = machines
        self.arguments.out.mkdir(parents=True, exist_ok=True)
        write_results(self.arguments.out / f"{name}.json", results)
        table = f"# {name}\n\nMade by `{results['command']}`.\n\n{markdown_table(results, primary)}"
        table += f"\n{describe_machines(machines)}"
        (self.arguments.out / f"{name}.md").write_text(table + FIGURES.get(name, ""), encoding="utf8")
        return results

    def _sort(self, runs: Any) -> Sequence[str]:
        order = [cell.row for cells in self.cells.values() for cell in cells]
        return sorted(runs, key=order.index)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="a known data set, or a directory in --data")
    parser.add_argument("--data", type=Path, default=kept.PREPARED, help="prepared directories, by name")
    rows = record.parse_some([*MODELS, *PAPER_ROWS, kept.OURS])
    parser.add_argument("--models", type=rows, help="rows of the table, by commas; all by default")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where to write the tables")
    parser.add_argument("--keep", type=Path, default=KEEP, help="where finished runs are kept")
    parser.add_argument(
        "--seeds", type=record.parse_count, default=3, help="how often models that draw numbers are fitted"
    )
    parser.add_argument("--fit", type=float, default=0.0, help="add a row for `recvae fit` within so many seconds")
    parser.add_argument("--workers", type=record.parse_count, default=1, help="models fitted at once")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="limit of time for everything")
    return parser.parse_args()


def main() -> None:
    """Measure, write and print."""
    arguments = parse_arguments()
    try:
        tables = Tables(arguments)
    except RecvaeError as error:
        sys.exit(f"not run: {error}")
    limits = {"workers": arguments.workers, "cores": assigned_cores(), "seconds": arguments.seconds}
    finished = run(measure, tables.take, tables.done, **limits)
    for name in arguments.names:
        if results := tables.write(name):
            Console().print(console_table(results, primary_metrics(name)))
    if not finished:
        sys.exit("the time is over; the same command goes on from here")


if __name__ == "__main__":
    main()
