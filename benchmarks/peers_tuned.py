"""`recvae fit` in ten minutes against the best model of each peer, tuned for an hour.

    python -m benchmarks.peers_tuned ml-100k lastfm [--peers irspack,rectools] [--hours 1] [--budget 10m] [--workers 2]

Each peer is installed in a virtual environment of its own under `--venvs` and tunes several of its models on the
validation users: irspack with its own tuner, the others by a random search in the ranges that stand in
`benchmarks/peers/NAME_tuning.py`, the last third of it around the best so far. Its best model is fitted with the test
users' histories and ranks for them once; what is held out of them never reaches the peer. All lists are scored by the
same metrics, and `recvae fit` is given the same training and validation users for `--budget`.

Writes `benchmarks/results/peers-NAME.json` and `peers-NAME.md`. Finished peers are kept in `--keep`.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import kept, record
from benchmarks.contestants import VENVS, Track
from benchmarks.peers.exchange import Ids
from benchmarks.peers.tuning import Inputs
from benchmarks.pool import Task, run
from recvae.data.prepared import read_prepared
from recvae.data.splitting import Split
from recvae.datasets import NAMES
from recvae.errors import ParameterError, RecvaeError
from recvae.evaluation.compare import ModelRun, combine
from recvae.evaluation.evaluate import Ranks, evaluate
from recvae.evaluation.results import write_results
from recvae.evaluation.tables import console_table, markdown_table
from recvae.machine.cores import assigned_cores
from recvae.models.popularity import Popularity

HERE = Path(__file__).parent
KEEP = HERE.parent / "data" / "peers-tuned"
PEERS = ("irspack", "rectools", "lenskit", "cornac", "recbole")
METRICS = ("recall@20", "recall@50", "ndcg@100")


@dataclass(frozen=True)
class Entry:
    """One row of one table, and what it may cost."""

    data: str
    directory: Path
    row: str
    path: Path
    seconds: float
    venvs: Path


class Lists:
    """Lists that were made before, as a model that `evaluate` asks for them."""

    folds_in = True

    def __init__(self, ids: Ids) -> None:
        self.ids = ids

    def recommend(self, userid: Any, user_items: Any, N: int = 10, **_: Any) -> tuple[Ids, None]:  # noqa: N803
        """Give the lists of users by their rows."""
        del user_items
        return self.ids[userid, :N], None


def measure(entry: Entry) -> dict[str, Any]:
    """Tune a peer, or run `recvae fit`, and keep the figures of the test users."""
    prepared = read_prepared(entry.directory)
    split = prepared.split
    params: dict[str, Any] = {}
    seconds = 0.0
    ranks: Ranks
    if entry.row == kept.OURS:
        ranks, params, seconds = kept.fit_within(entry.directory, split.train, entry.seconds, METRICS[-1])
    elif entry.row == "popularity":
        ranks = Popularity().fit(split.train, show_progress=False)
    else:
        lists, params, seconds = tune_peer(entry, split)
        ranks = Lists(lists)
    result = evaluate(ranks, split.test, METRICS, train=split.train)
    fitted = ModelRun(result, seconds, None, params)
    kept.write_run(entry.path, fitted, split=prepared.identity["split_sha256"], row=entry.row)
    return {metric: result.mean(metric) for metric in METRICS}


def tune_peer(entry: Entry, split: Split) -> tuple[Ids, dict[str, Any], float]:
    """Run a peer's search in its own environment."""
    validation = split.validation
    if validation is None:
        raise ParameterError("the split has no validation users")
    inputs = Inputs(
        split.train,
        validation.fold_in,
        validation.held_out,
        split.test.fold_in,
        validation.train_rows,
        split.test.train_rows,
    )
    with tempfile.TemporaryDirectory() as scratch:
        inputs.write(Path(scratch) / "inputs.npz")
        arguments = [str(Path(scratch) / "inputs.npz"), scratch, str(entry.seconds), "0"]
        Track(entry.venvs).call(entry.row, f"{entry.row}_tuning", arguments)
        found = json.loads((Path(scratch) / "found.json").read_text(encoding="utf8"))
        with np.load(Path(scratch) / "lists.npz", allow_pickle=False) as arrays:
            lists: Ids = arrays["test"]
    tried = [trial for trial in found["trials"] if "validation" in trial]
    params = {"model": found["model"], **found["params"], "validation": found["validation"], "trials": len(tried)}
    if failed := {trial["model"] for trial in found["trials"]} - {trial["model"] for trial in tried}:
        params["failed"] = " and ".join(sorted(failed))
    return lists, {**params, "versions": found["versions"]}, float(found["seconds"])


def list_entries(arguments: argparse.Namespace) -> list[Entry]:
    """List the rows of all tables."""
    entries = []
    for name in arguments.names:
        directory = kept.open_data(name, arguments.data).path
        for row in ("popularity", kept.OURS, *arguments.peers):
            seconds = arguments.budget if row == kept.OURS else 3600 * arguments.hours
            entries.append(Entry(name, directory, row, arguments.keep / name / row, seconds, arguments.venvs))
    return entries


def write(name: str, entries: list[Entry], failed: dict[str, str], arguments: argparse.Namespace) -> None:
    """Write the table of a data set."""
    prepared = kept.open_data(name, arguments.data)
    identity = prepared.identity["split_sha256"]
    rows = [entry for entry in entries if entry.data == name]
    runs = {entry.row: [kept.read_run(entry.path)[0]] for entry in rows if kept.has_run(entry.path, identity)}
    if not runs:
        return
    compared = combine(runs, prepared.split.test, METRICS, {row: failed[row] for row in failed if row not in runs})
    protocol = {**prepared.manifest["protocol"], "filters": prepared.manifest["filters"]}
    results = compared.as_dict(dataset=name, protocol=protocol, seed=0)
    results["command"] = (
        f"python -m benchmarks.peers_tuned {name} --hours {arguments.hours:g} --budget {arguments.budget:g}"
    )
    write_results(arguments.out / f"peers-{name}.json", results)
    chosen = "".join(f"- {_describe(row, results['models'][row]['params'])}\n" for row in runs if row != "popularity")
    heading = f"# {name}: recvae fit against tuned peers\n\nMade by `{results['command']}`.\n\n"
    text = f"{heading}{markdown_table(results, METRICS)}\nChosen on the validation users:\n\n{chosen}"
    (arguments.out / f"peers-{name}.md").write_text(text, encoding="utf8")
    Console().print(console_table(results, METRICS))


def _describe(row: str, params: dict[str, Any]) -> str:
    """Say what was chosen, of how many trials."""
    shown = {
        key: value for key, value in params.items() if key not in ("versions", "model", "models", "budget_seconds")
    }
    settings = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
    library = params.get("versions", {}).get(row)
    return f"{row}{f' {library}' if library else ''}: {params.get('model')} ({settings})"


def parse(options: Sequence[str]) -> argparse.Namespace:
    """Parse the options of the command line."""
    parser = argparse.ArgumentParser(
        "benchmarks.peers_tuned", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--peers", type=record.parse_some(PEERS), default=list(PEERS), help="by commas")
    parser.add_argument("--hours", type=float, default=1.0, help="time for tuning each peer; a part of an hour too")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds for `recvae fit`")
    parser.add_argument("--data", type=Path, default=kept.PREPARED, help="prepared directories, by name")
    parser.add_argument("--venvs", type=Path, default=VENVS, help="where peers are installed")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--keep", type=Path, default=KEEP, help="where finished peers are kept")
    parser.add_argument("--workers", type=record.parse_count, default=1, help="peers tuned at once")
    return parser.parse_args(options)


def main() -> None:
    """Tune, write and print."""
    arguments = parse(sys.argv[1:])
    try:
        entries = list_entries(arguments)
    except RecvaeError as error:
        sys.exit(f"not run: {error}")
    directories = {entry.data: entry.directory for entry in entries}
    identities = {name: read_prepared(path).identity["split_sha256"] for name, path in directories.items()}
    pending = [entry for entry in entries if not kept.has_run(entry.path, identities[entry.data])]
    failed: dict[str, dict[str, str]] = {name: {} for name in arguments.names}
    threads = max(1, assigned_cores() // arguments.workers)

    def take() -> Task | None:
        return Task(pending.pop(0), threads) if pending else None

    def done(entry: Entry, result: dict[str, Any]) -> None:
        if "error" in result:
            failed[entry.data][entry.row] = result["error"]
        print(entry.data, entry.row, result, flush=True)

    arguments.out.mkdir(parents=True, exist_ok=True)
    run(measure, take, done, workers=arguments.workers, cores=assigned_cores(), seconds=math.inf)
    for name in arguments.names:
        write(name, entries, failed[name], arguments)


if __name__ == "__main__":
    main()
