"""The command line: commands parse their arguments, call the library and print."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from recvae.cli.arguments import parse_ids, parse_model_settings, parse_path, parse_settings
from recvae.cli.failures import resource_message, usage_message
from recvae.cli.output import accept_any_encoding, item_line, to_json
from recvae.errors import RecvaeError, escape_control_characters

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


Directory = Annotated[Path, typer.Argument(help="Prepared data directory.", parser=parse_path)]
Model = Annotated[Path, typer.Argument(help="Model artifact directory.", parser=parse_path)]
Set = Annotated[list[str] | None, typer.Option("--set", help="Hyperparameter as name=value; may be repeated.")]
INTERRUPTED = 130

Items = Annotated[
    Path | None,
    typer.Option(help="CSV, TSV or Parquet file of items: item_id, title and other columns.", parser=parse_path),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers in training.")]


def main() -> None:
    """Run the command line; a mistake that the user can mend ends with one line on standard error and exit status 2."""
    accept_any_encoding()
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except TyperException as error:
        _fail(usage_message(error.format_message(), sys.argv[1:], _command_names()))
    except RecvaeError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except (ModuleNotFoundError, OSError, MemoryError, RuntimeError) as error:
        _fail(resource_message(error))
    if status == INTERRUPTED:
        sys.stderr.write("recvae: interrupted\n")
    sys.exit(status)


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="Data set name, folder, CSV, TSV or Parquet file, or - for stdin.")],
    out: Annotated[Path, typer.Option(help="Directory to write.", parser=parse_path)],
    min_rating: Annotated[float | None, typer.Option(help="Keep ratings of at least this.")] = None,
    min_user_items: Annotated[int | None, typer.Option(help="Keep users with at least this many items.")] = None,
    min_item_users: Annotated[int, typer.Option(help="Keep items with at least this many users.")] = 0,
    split: Annotated[str | None, typer.Option(help="strong, given, temporal or leave-last.")] = None,
    val_users: Annotated[int | None, typer.Option(help="Validation users.")] = None,
    test_users: Annotated[int | None, typer.Option(help="Test users.")] = None,
    val_time: Annotated[str | None, typer.Option(help="Temporal: validation begins.")] = None,
    test_time: Annotated[str | None, typer.Option(help="Temporal: test begins.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 98765,
    user_column: Annotated[str, typer.Option(help="Column of user ids.")] = "user_id",
    item_column: Annotated[str, typer.Option(help="Column of item ids.")] = "item_id",
    rating_column: Annotated[str | None, typer.Option(help="Column of ratings, if there is one.")] = None,
    timestamp_column: Annotated[str | None, typer.Option(help="Column of times, if there is one.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where to look first for a named data set.", parser=parse_path)
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="duckdb, or URL of an engine: the source is a file, Parquet folder or table.")
    ] = None,
    items: Items = None,
) -> None:
    """Filter and split a source into a prepared data directory.

    Defaults that are not shown are the data set's protocol; for your own file every row counts as an interaction, of
    users with at least 5 items, and a tenth of the users each is for validation and test.
    """
    from recvae.data.columns import Columns
    from recvae.preparation import pipeline
    from recvae.storage.directories import follow_link

    options = pipeline.Options(
        min_rating=min_rating,
        min_user_items=min_user_items,
        min_item_users=min_item_users,
        split=split,
        val_users=val_users,
        test_users=test_users,
        val_time=val_time,
        test_time=test_time,
        seed=seed,
        columns=Columns(user_column, item_column, rating_column, timestamp_column),
        backend=backend,
        items=items,
    )
    if source == "-" and sys.stdin is None:
        raise RecvaeError("source is -, but standard input is closed; expected a table on standard input")
    if source.startswith("~"):
        source = str(parse_path(source))
    for line in pipeline.prepare(source, follow_link(out), options, data_dir=data_dir):
        typer.echo(line)
    typer.echo(f"prepared {out}")


@app.command()
def train(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="Artifact directory to write.", parser=parse_path)],
    model: Annotated[str, typer.Option(help="Model name.")] = "multvae",
    settings: Set = None,
    preset: Annotated[str | None, typer.Option(help="paper, recommended (the default) or MultVAE's fast.")] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint, if there is one.")] = False,
) -> None:
    """Train a model and save it as an artifact."""
    from recvae import workflow

    params = parse_settings(settings or [])
    try:
        lines = workflow.train(directory, out, model, preset=preset, params=params, seed=seed, resume=resume)
    except KeyboardInterrupt:
        checkpoint = workflow.checkpoint_path(out)
        hint = (
            f"; continue with the same command and --resume (state is in {checkpoint})" if checkpoint.exists() else ""
        )
        typer.echo(f"recvae: interrupted{hint}", err=True)
        sys.exit(INTERRUPTED)
    for line in lines:
        typer.echo(line)


@app.command()
def evaluate(
    model: Model,
    directory: Directory,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write results.json to this file; - prints it alone.", parser=parse_path),
    ] = None,
) -> None:
    """Evaluate a saved model on the test users."""
    from recvae import workflow
    from recvae.evaluation.results import format_results, write_results
    from recvae.evaluation.tables import metrics_table

    if json_file == Path("-"):
        typer.echo(format_results(workflow.evaluate(model, directory)), nl=False)
        return
    if json_file is not None and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise RecvaeError(f"--json is {json_file}; expected a file in a directory that exists")
    results = workflow.evaluate(model, directory)
    if json_file is not None:
        write_results(json_file, results)
    Console().print(metrics_table(results))


@app.command()
def compare(
    directory: Directory,
    models: Annotated[str, typer.Option(help="Model names, separated by commas.")],
    out: Annotated[Path, typer.Option(help="Report directory to write.", parser=parse_path)],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="MODEL.name=value or MODEL.preset=…; may be repeated.")
    ] = None,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds for models that use random numbers.")] = 1,
) -> None:
    """Train several models, evaluate them on the same test users, and test every pair."""
    from recvae import workflow
    from recvae.evaluation.tables import console_table
    from recvae.models.registry import MODELS

    params, named = parse_model_settings(settings or [], set(MODELS))
    if params:
        raise RecvaeError(f"--set {next(iter(params))}=… names no model; expected MODEL.name=value")
    names = [name.strip() for name in models.split(",") if name.strip()]
    compared = workflow.compare(directory, out, names, params=named, seed=seed, n_seeds=seeds)
    Console().print(console_table(compared.results))
    typer.echo(f"wrote {' and '.join(map(str, compared.written))}")
    if len(compared.written) == 1:
        typer.echo("no report.html: it needs matplotlib, which recvae's extra 'report' brings", err=True)


@app.command()
def tune(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="Artifact directory to write.", parser=parse_path)],
    model: Annotated[str, typer.Option(help="Model name.")],
    trials: Annotated[int, typer.Option(help="Number of trials in the study, earlier ones included.")] = 50,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    storage: Annotated[str | None, typer.Option(help="Database URL of the study; an SQLite file by default.")] = None,
    settings: Set = None,
    seed: Seed = 0,
) -> None:
    """Search hyperparameters on the validation users and save the best model.

    Repeating the command continues the study; processes on one or several machines share the study of one
    --storage URL.
    """
    from recvae import tuning, workflow

    params = parse_settings(settings or [])
    best = -1.0

    def show(trial: tuning.Trial) -> None:
        nonlocal best
        best = max(best, trial.value or best)
        value = "pruned" if trial.value is None else f"{trial.value:.4f}"
        shown = ", ".join(f"{name} {tried:.4g}" for name, tried in trial.params.items())
        typer.echo(f"trial {trial.number + 1}/{trials}  {value}  best {best:.4f}  {shown}")

    search: dict[str, Any] = {"trials": trials, "sampler": sampler, "storage": storage, "params": params, "seed": seed}
    try:
        lines = workflow.tune(directory, out, model, **search, on_trial=show)
    except KeyboardInterrupt:
        typer.echo("recvae: interrupted; finished trials are kept: repeat the command to continue", err=True)
        sys.exit(INTERRUPTED)
    for line in lines:
        typer.echo(line)


@app.command()
def recommend(
    model: Model,
    history: Annotated[str | None, typer.Option(help="Item ids as a line of CSV: 1,2 or 'a,\"b,c\"'.")] = None,
    user: Annotated[str | None, typer.Option(help="Id of a user whose history the artifact holds.")] = None,
    users: Annotated[
        Path | None,
        typer.Option(help="Parquet file or folder of users, for whom lists are written to --out.", parser=parse_path),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --users: directory to write the lists to.", parser=parse_path)
    ] = None,
    n: Annotated[int, typer.Option("-n", help="List length.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the best items for a history or for a known user, or write the lists of any number of users.

    With --users, a Parquet file has the columns user_id and history (a list of item ids), or user_id and item_id
    sorted by user_id; repeating the command continues where an earlier one stopped.
    """
    from recvae.inference.recommend import recommend as recommend_one

    if (users is None) != (out is None) or (users is not None and (history, user) != (None, None)):
        raise RecvaeError("--users and --out go together, without --history and --user")
    if users is not None and out is not None:
        _recommend_everybody(model, users, out, n)
        return
    if (history is None) == (user is None):
        given = "neither" if user is None else "both"
        raise RecvaeError(f"{given} of --history and --user given; expected one of them")
    ids = None if history is None else parse_ids(history)
    answer = recommend_one(model, history=ids, user=user, n=n)
    if answer.unknown:
        typer.echo(f"recvae: unknown items left out: {', '.join(map(str, answer.unknown))}", err=True)
    if as_json:
        typer.echo(to_json({"items": answer.items, "unknown": answer.unknown}))
        return
    for rank, item in enumerate(answer.items, start=1):
        typer.echo(item_line(rank, item))


@app.command()
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(help="Number of processes; they share the weights.")] = 1,
) -> None:
    """Serve recommendations over HTTP, with a page at /, documentation at /docs and metrics at /metrics.

    Environment variables RECVAE_… set keys, limits and a store of interactions; docs/deployment.md lists them.
    """
    from recvae import serving

    serving.run(model, host, port, workers)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Model artifact, prepared data or checkpoint.", parser=parse_path)],
) -> None:
    """Check everything that can be checked of a directory; status 1 and a line for each fault if it is not sound."""
    from recvae.cli.verify import find_faults

    faults = find_faults(directory)
    for fault in faults:
        typer.echo(escape_control_characters(fault))
    if faults:
        sys.exit(1)
    typer.echo(f"{directory} is sound")


@app.command()
def doctor() -> None:
    """Show versions, extras, devices, threads, limits of the container, BLAS, and where data are."""
    from recvae.cli.doctor import report

    for line in report():
        typer.echo(line)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory for everything the demo writes.", parser=parse_path)] = Path(
        "demo"
    ),
) -> None:
    """Run everything on MovieLens-100K: prepare, compare, save the model, recommend."""
    from recvae.cli.demo import run

    run(out, Console())


def _recommend_everybody(model: Path, users: Path, out: Path, n: int) -> None:
    from recvae.inference import bulk

    try:
        lines = bulk.recommend_everybody(model, users, out, n)
    except KeyboardInterrupt:
        typer.echo(
            f"recvae: interrupted; {bulk.count_parts(out)} part files are finished: repeat the command to continue",
            err=True,
        )
        sys.exit(INTERRUPTED)
    for line in lines:
        typer.echo(line)


def _command_names() -> list[str]:
    return [command.callback.__name__ for command in app.registered_commands if command.callback]


def _fail(message: str) -> None:
    sys.stderr.write(f"recvae: {' '.join(message.split())}\n")
    sys.exit(2)
