"""Regret of the defaults: every model on every data set, as it comes and as well as a search can make it.

    python -m benchmarks.regret [--sets ml-100k,lastfm] [--models ease,als] [--trials 30] [--workers 8] [--seconds 600]

A model as it comes leaves the choice of its hyperparameters to `fit`, which is given the validation users. Beside it
stands the best of `--trials` settings drawn from the class's `SPACE`, by the validation metric: the first two thirds at
random, the others around the best so far. Regret is (best - default) / best, on the validation users and, for the
settings that these chose, on the test users; its standard error is that of the paired difference over users. The search
has seen the validation users more often than the default has, so that regret on validation is biased upwards.

Data sets are taken from `--data`, a folder of prepared directories by name, or prepared. Of more than `--users` test
users a random part is evaluated. Work goes first where the least time has been spent. Finished trials are kept in
`--keep`, and a run that was cut off goes on where it stood. Writes `regret.json` and `regret.md` into `--out`, where
the rows of other models and data sets stay.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np

from benchmarks import kept, record
from benchmarks.pool import Task, run
from benchmarks.regret_table import tabulate
from recvae.data.prepared import read_prepared
from recvae.errors import ParameterError, RecvaeError
from recvae.evaluation.evaluate import evaluate, refuse_new_users
from recvae.evaluation.results import write_results
from recvae.evaluation.standard_error import standard_error
from recvae.fitting.scored_users import draw_users
from recvae.machine.cores import assigned_cores
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.models.registry import MODELS, create, seed_params

HERE = Path(__file__).parent
KEEP = HERE.parent / "data" / "regret"
SETS = ("ml-100k", "ml-1m", "lastfm", "citeulike", "ml-10m-likes", "gowalla", "yelp2018")
DEFAULT = -1
AT_RANDOM = 2 / 3
STEP = 0.15  # of a range, on its scale: the standard deviation of a step from the best so far
SECONDS_BETWEEN_TABLES = 10.0


@dataclass(frozen=True)
class Fit:
    """One fit of one model: with its defaults, or a trial of the search.

    Attributes
    ----------
    data, model : str
    number : int
        The trial's number, `DEFAULT` for the defaults.
    params : mapping
        Hyperparameters that are not left to the defaults.
    directory : Path
        The prepared directory.
    path : Path
        The file, without an ending, that the figures are kept in.
    most_users : int
        Test users to evaluate.
    """

    data: str
    model: str
    number: int
    params: Mapping[str, Any]
    directory: Path
    path: Path
    most_users: int


@dataclass
class Cell:
    """One model on one data set: what is known of it and what comes next."""

    data: str
    model: str
    folder: Path
    spent: float = 0.0
    running: bool = False
    failed: str = ""
    trials: dict[int, dict[str, Any]] = field(default_factory=dict)


def measure(fit: Fit) -> dict[str, Any]:
    """Fit one model, and keep its validation and test figures for each user."""
    prepared = read_prepared(fit.directory)
    split = prepared.split
    if split.validation is None:
        return {"refused": "the split has no validation users"}
    model = create(fit.model, None, **seed_params(fit.model, 0), **fit.params)
    test = draw_users(split.test, fit.most_users)
    try:
        refuse_new_users(model, test)
        refuse_new_users(model, split.validation)
    except ParameterError as error:
        return {"refused": str(error).removeprefix(f"{type(model).__name__} ")}
    started = perf_counter()
    model.fit(split.train, show_progress=False, validation=split.validation)
    seconds = perf_counter() - started
    metric = "ndcg@100"
    values = {side: evaluate(model, users, [metric]).values(metric) for side, users in _sides(split.validation, test)}
    fit.path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(f"{fit.path}.npz", validation=values["validation"], test=values["test"])
    fitted = {name: model.fitted_params().get(name) for name in MODELS[fit.model].SPACE}
    facts = {"params": dict(fit.params), "fitted": fitted, "fit_seconds": seconds}
    return {**facts, "split": prepared.identity["split_sha256"], **{k: float(v.mean()) for k, v in values.items()}}


def _sides(validation: Any, test: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("validation", validation), ("test", test)


def draw(space: SearchSpace, generator: np.random.Generator, around: Mapping[str, Any] | None) -> dict[str, Any]:
    """Draw hyperparameters: anywhere in the space, or a step away from those of `around`."""
    params: dict[str, Any] = {}
    for name, values in space.items():
        centre = None if around is None else _share(values, around.get(name))
        share = generator.random() if centre is None else float(np.clip(generator.normal(centre, STEP), 0, 1))
        params[name] = _at(values, share)
    return params


def _at(values: RealRange | WholeRange, share: float) -> float | int:
    """The value at a share of a range, on the range's scale."""
    low, high = (max(values.low, 1e-12), values.high) if values.log else (values.low, values.high)
    found = low * (high / low) ** share if values.log else low + (high - low) * share
    return math.floor(found + 0.5) if isinstance(values, WholeRange) else float(found)


def _share(values: RealRange | WholeRange, value: Any) -> float | None:
    if not isinstance(value, int | float):
        return None
    if not values.log:
        return float((value - values.low) / (values.high - values.low))
    return float(math.log(max(value, 1e-12) / values.low) / math.log(values.high / values.low))


class Search:
    """All cells of the table: gives the next fit, takes results, writes the table."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.directories, self.sizes = dict[str, Path](), dict[str, tuple[int, int]]()
        self.cells: list[Cell] = []
        self.written = -math.inf
        for data in arguments.sets:
            prepared = kept.open_data(data, arguments.data)
            self.directories[data], self.sizes[data] = prepared.path, prepared.split.train.shape
            for model in kept.order_rows(arguments.models):
                cell = Cell(data, model, arguments.keep / data)
                self._read(cell, prepared.identity["split_sha256"])
                self.cells.append(cell)

    def _read(self, cell: Cell, identity: str) -> None:
        """Read what an earlier run kept."""
        for path in sorted(cell.folder.glob(f"{cell.model}.*.json")):
            result = json.loads(path.read_text(encoding="utf8"))
            if result.get("split") == identity:
                cell.trials[int(path.name.split(".")[1])] = result
                cell.spent += result["seconds"]

    def take(self) -> Task | None:
        """Give the next fit of the cell that the least time was spent on: a fit at a time of each."""
        free = [
            (cell.spent, kept.rank_by_cost(cell.model), place, number)
            for place, cell in enumerate(self.cells)
            if not cell.running and not cell.failed and (number := self._next(cell)) is not None
        ]
        if not free:
            return None
        *_, place, number = min(free)
        cell = self.cells[place]
        cell.running = True
        n_items, arguments = self.sizes[cell.data][1], self.arguments
        path = cell.folder / f"{cell.model}.{number}"
        params = {} if number == DEFAULT else self._draw(cell, number)
        fit = Fit(cell.data, cell.model, number, params, self.directories[cell.data], path, arguments.users)
        threads = kept.choose_threads(cell.model, n_items, assigned_cores(), arguments.workers)
        memory = kept.estimate_memory(cell.model, n_items), kept.estimate_gpu_memory(cell.model, n_items)
        return Task(fit, threads, *memory)

    def _next(self, cell: Cell) -> int | None:
        trials = self.arguments.trials if MODELS[cell.model].SPACE else 0
        return next((number for number in range(DEFAULT, trials) if number not in cell.trials), None)

    def _draw(self, cell: Cell, number: int) -> dict[str, Any]:
        generator = np.random.default_rng([self.arguments.seed, number])
        known = [trial for trial in cell.trials.values() if "validation" in trial]
        best = max(known, key=lambda trial: float(trial["validation"]), default=None)
        around = best["fitted"] if best and number >= self.arguments.trials * AT_RANDOM else None
        return draw(MODELS[cell.model].SPACE, generator, around)

    def done(self, fit: Fit, result: dict[str, Any]) -> None:
        """Keep a result, and write the table from time to time."""
        (cell,) = [cell for cell in self.cells if (cell.data, cell.model) == (fit.data, fit.model)]
        cell.running = False
        cell.spent += result["seconds"]
        cell.trials[fit.number] = result
        if fit.number == DEFAULT and "validation" not in result:
            cell.failed = result.get("refused") or result["error"]
        if "validation" in result:
            write_results(Path(f"{fit.path}.json"), result)
        figure = f"{result['validation']:.4f}" if "validation" in result else result.get("refused") or result["error"]
        trial = "default" if fit.number == DEFAULT else f"trial {fit.number}"
        print(f"{fit.data:13} {fit.model:10} {trial:8} {figure}  {result['seconds']:.1f} s", flush=True)
        if monotonic() - self.written > SECONDS_BETWEEN_TABLES:
            self.write()

    def write(self) -> None:
        """Write regret.json and regret.md of what there is."""
        out, arguments = self.arguments.out, self.arguments
        command = f"python -m benchmarks.regret --sets {','.join(arguments.sets)}"
        if set(arguments.models) != set(MODELS):
            command += f" --models {','.join(arguments.models)}"
        command += f" --trials {arguments.trials} --users {arguments.users}"
        new = [{**self._summarise(cell), "command": command} for cell in self.cells]
        file = out / "regret.json"
        rows = record.add_rows(file, new, "data", "model")
        rows.sort(key=lambda row: SETS.index(row["data"]) if row["data"] in SETS else len(SETS))
        out.mkdir(parents=True, exist_ok=True)
        content = {"format_version": 1, "metric": "ndcg@100", "rows": rows}
        write_results(file, content)
        (out / "regret.md").write_text(tabulate(content), encoding="utf8")
        self.written = monotonic()

    def _summarise(self, cell: Cell) -> dict[str, Any]:
        """Figures of one cell: the default, the best trial, regret with its standard error, seconds."""
        row: dict[str, Any] = {"data": cell.data, "model": cell.model, "failed": cell.failed}
        known = {number: trial for number, trial in cell.trials.items() if "validation" in trial}
        if DEFAULT not in known:
            return row
        default = known.pop(DEFAULT)
        row |= {"trials": len(known), "failed_trials": len(cell.trials) - len(known) - 1, "seconds": cell.spent}
        row["default"] = {key: default[key] for key in ("validation", "test", "fitted", "fit_seconds")}
        if not known:
            return row
        number = max(known, key=lambda number: float(known[number]["validation"]))
        row["best"] = {key: known[number][key] for key in ("validation", "test", "params", "fit_seconds")}
        files = [cell.folder / f"{cell.model}.{which}.npz" for which in (DEFAULT, number)]
        with np.load(files[0]) as of_default, np.load(files[1]) as of_best:
            for side in ("validation", "test"):
                difference = of_best[side] - of_default[side]
                mean, error = difference.mean(), standard_error(difference)
                best = of_best[side].mean()
                row[f"regret_{side}"] = {"share": float(mean / best), "stderr": float(error / best)}
        return row


def main() -> None:
    """Search, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=record.split_names, default=list(SETS), help="data sets, by commas")
    parser.add_argument("--models", type=record.parse_some(MODELS), default=list(MODELS), help="models, by commas")
    parser.add_argument("--trials", type=int, default=30, help="settings to try of each model on each data set")
    parser.add_argument(
        "--users", type=record.parse_count, default=5_000, help="test users to evaluate, if there are more"
    )
    parser.add_argument("--data", type=Path, default=kept.PREPARED, help="prepared directories, by name")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--keep", type=Path, default=KEEP, help="where finished trials are kept")
    parser.add_argument("--workers", type=record.parse_count, default=1, help="models fitted at once")
    parser.add_argument("--seconds", type=float, default=math.inf, help="limit of time for everything")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search")
    arguments = parser.parse_args()
    try:
        search = Search(arguments)
    except RecvaeError as error:
        sys.exit(f"not run: {error}")
    limits = {"workers": arguments.workers, "cores": assigned_cores(), "seconds": arguments.seconds}
    finished = run(measure, search.take, search.done, **limits)
    search.write()
    print((arguments.out / "regret.md").read_text(encoding="utf8"))
    if not finished:
        sys.exit("the time is over; the same command goes on from here")


if __name__ == "__main__":
    main()
