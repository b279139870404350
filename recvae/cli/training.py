"""Commands from a source to a model: fit, prepare, train, evaluate, compare, tune."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from recvae.cli.app import (
    INTERRUPTED,
    Backend,
    Directory,
    EventColumn,
    EventWeights,
    HalfLife,
    ItemColumn,
    Items,
    MinRating,
    MinUserItems,
    Model,
    Out,
    RatingColumn,
    Repeats,
    Seed,
    Set,
    TimestampColumn,
    UserColumn,
    WeightColumn,
    app,
)
from recvae.cli.arguments import (
    artifact_directory,
    parse_input,
    parse_model_settings,
    parse_numbers,
    parse_path,
    parse_settings,
    parse_source,
)
from recvae.errors import RecvaeError


@app.command()
def fit(
    context: typer.Context,
    out: Out,
    source: Annotated[
        str | None,
        typer.Argument(
            help="Data set name, folder, CSV, TSV, JSON lines or Parquet file, prepared directory, or - for stdin."
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for everything, such as 90s, 10m or 1h30m.")] = "10m",
    items: Items = None,
    models: Annotated[
        str | None, typer.Option(help="Models to try, separated by commas; the usual ones if not given.")
    ] = None,
    metric: Annotated[str, typer.Option(help="Metric on validation users that decides.")] = "ndcg@10",
    report: Annotated[
        Path | None,
        typer.Option(help="Directory for results.json and report.html; OUT.report by default.", parser=parse_path),
    ] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted search.")] = False,
    min_rating: MinRating = None,
    min_user_items: MinUserItems = None,
    user_column: UserColumn = "user_id",
    item_column: ItemColumn = "item_id",
    rating_column: RatingColumn = None,
    timestamp_column: TimestampColumn = None,
    backend: Backend = None,
    weight_column: WeightColumn = None,
    event_column: EventColumn = None,
    event_weights: EventWeights = None,
    repeats: Repeats = "once",
    half_life: HalfLife = None,
    from_store: Annotated[
        str | None, typer.Option(help="Instead of a source: database URL of a service's store, with --since.")
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(
            help="With --from-store: the artifact whose histories the store's events follow.", parser=parse_input
        ),
    ] = None,
) -> None:
    """Find the best model for your data within a time budget, and fit it on everything.

    Models from popularity to a blend are compared on validation users and measured once on test users; the best is
    fitted again on everything and saved. Ctrl-C takes the best so far.
    """
    options = locals()
    started = options.pop("context").obj
    with artifact_directory(options.pop("out")) as directory:
        _fit(started, out=directory, **options)


def _fit(started: float | None, source: str | None, out: Path, budget: str, **options: Any) -> None:
    """Fit with the options of the command, in a process that began at `started`."""
    from recvae.fitting.budget import Clock, parse_budget

    clock = Clock(parse_budget(budget))  # it runs while torch is imported
    if started is not None:
        clock.started = started
    from recvae.evaluation.results import choose_shown_metrics
    from recvae.evaluation.tables import console_table
    from recvae.fitting.fit import fit as fit_best
    from recvae.fitting.fit import search_path

    try:
        fitted = fit_best(None if source is None else parse_source(source), budget=clock, out=out, **options)
    except KeyboardInterrupt:
        hint = "; continue with the same command and --resume" if search_path(out).exists() else ""
        typer.echo(f"recvae: interrupted{hint}", err=True)
        sys.exit(INTERRUPTED)
    if fitted.results is not None:
        Console().print(console_table(fitted.results, choose_shown_metrics(fitted.results)))
    counts = fitted.data["fitted_counts"]
    everything = f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions"
    chosen = "" if fitted.results is None else ", chosen on validation users"
    typer.echo(f"saved {out}: {fitted.name}{chosen}, fitted on everything: {everything}")
    if fitted.written:
        typer.echo(f"wrote {' and '.join(map(str, fitted.written))}")


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="Data set name, folder, CSV, TSV, JSON lines or Parquet file, or - for stdin.")
    ],
    out: Annotated[Path, typer.Option(help="Directory to write.", parser=parse_path)],
    min_rating: MinRating = None,
    min_user_items: MinUserItems = None,
    min_item_users: Annotated[int, typer.Option(help="Keep items with at least this many users.")] = 0,
    split: Annotated[str | None, typer.Option(help="strong, given, temporal, leave-last, cold-items or auto.")] = None,
    val_users: Annotated[int | None, typer.Option(help="Validation users.")] = None,
    test_users: Annotated[int | None, typer.Option(help="Test users.")] = None,
    val_time: Annotated[str | None, typer.Option(help="Temporal: validation begins.")] = None,
    test_time: Annotated[str | None, typer.Option(help="Temporal: test begins.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 98765,
    user_column: UserColumn = "user_id",
    item_column: ItemColumn = "item_id",
    rating_column: RatingColumn = None,
    timestamp_column: TimestampColumn = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where to look first for a named data set.", parser=parse_path)
    ] = None,
    backend: Backend = None,
    items: Items = None,
    weight_column: WeightColumn = None,
    event_column: EventColumn = None,
    event_weights: EventWeights = None,
    repeats: Repeats = "once",
    half_life: HalfLife = None,
) -> None:
    """Filter and split a source into a prepared data directory.

    Defaults that are not shown are the data set's protocol; for your own file every row counts as an interaction, of
    users with at least 5 items, and a tenth of the users each is for validation and test.
    """
    _prepare(**locals())


def _prepare(source: str, out: Path, data_dir: Path | None, **given: Any) -> None:
    """Prepare a source with the options of the command."""
    from recvae.data.columns import Columns
    from recvae.preparation import pipeline
    from recvae.preparation.weights import WeightOptions
    from recvae.storage.directories import follow_link

    named = ("user", "item", "rating", "timestamp", "weight", "event")
    columns = Columns(*(given.pop(f"{name}_column") for name in named))
    weights = WeightOptions.parse(*(given.pop(name) for name in ("event_weights", "repeats", "half_life")))
    options = pipeline.Options(columns=columns, weights=weights, **given)
    if source == "-" and sys.stdin is None:
        raise RecvaeError("source is -, but standard input is closed; expected a table on standard input")
    for line in pipeline.prepare(parse_source(source), follow_link(out), options, data_dir=data_dir):
        typer.echo(line)
    typer.echo(f"prepared {out}")


@app.command()
def train(
    directory: Directory,
    out: Out,
    model: Annotated[str, typer.Option(help="Model name.")] = "multvae",
    settings: Set = None,
    preset: Annotated[str | None, typer.Option(help="paper, recommended (the default) or MultVAE's fast.")] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint, if there is one.")] = False,
    on: Annotated[str, typer.Option(help="train, or all: fitted again on test users too, for use.")] = "train",
) -> None:
    """Train a model and save it as an artifact."""
    params = parse_settings(settings or [])
    with artifact_directory(out) as path:
        _train(directory, path, model, preset=preset, params=params, seed=seed, resume=resume, on=on)


def _train(directory: Path, out: Path, model: str, **options: Any) -> None:
    from recvae import workflow

    try:
        lines = workflow.train(directory, out, model, **options)
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
    from recvae.storage.directories import check_output_file

    if json_file == Path("-"):
        typer.echo(format_results(workflow.evaluate(model, directory)), nl=False)
        return
    if json_file is not None:
        check_output_file("--json", json_file)
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
    context: typer.Context,
    directory: Directory,
    out: Annotated[
        Path, typer.Option(help="Artifact directory to write; with --sweep, directory of the page.", parser=parse_path)
    ],
    model: Annotated[str, typer.Option(help="Model name.")],
    trials: Annotated[int, typer.Option(help="Number of trials in the study, earlier ones included.")] = 50,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    storage: Annotated[str | None, typer.Option(help="Database URL of the study; an SQLite file by default.")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="Instead of a search: try one hyperparameter over its range, such as gamma or beta."),
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Values of --sweep, separated by commas; six over the range by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of --sweep.")] = 2,
    settings: Set = None,
    seed: Seed = 0,
) -> None:
    """Search hyperparameters on the validation users and save the best model.

    Repeating the command continues the study; processes on one or several machines share the study of one
    --storage URL. With --sweep, one hyperparameter varies and the others are fixed: sweep.json and sweep.html show
    what it does to the validation metric, to KL and reconstruction, and to the time.
    """
    params = parse_settings(settings or [])
    others = ("values", "seeds") if sweep is None else ("trials", "sampler", "storage")
    for option in others:
        source = context.get_parameter_source(option)
        if source is not None and source.name != "DEFAULT":
            raise RecvaeError(f"--{option} goes {'only with' if sweep is None else 'not with'} --sweep")
    if sweep is not None:
        _sweep(directory, out, model, sweep, values, {"seeds": seeds, "seed": seed, "params": params})
        return
    _search(directory, out, model, {"trials": trials, "sampler": sampler, "storage": storage}, params, seed)


def _search(directory: Path, out: Path, model: str, options: dict[str, Any], params: dict[str, Any], seed: int) -> None:
    from recvae import tuning, workflow

    def show(trial: tuning.Trial) -> None:
        value = "pruned" if trial.value is None else f"{trial.value:.4f}"
        best = "" if trial.best is None else f"  best {trial.best:.4f}"
        shown = ", ".join(f"{name} {tried:.4g}" for name, tried in trial.params.items())
        typer.echo(f"trial {trial.number}/{options['trials']}  {value}{best}  {shown}")

    try:
        lines = workflow.tune(directory, out, model, **options, params=params, seed=seed, on_trial=show)
    except KeyboardInterrupt:
        typer.echo("recvae: interrupted; finished trials are kept: repeat the command to continue", err=True)
        sys.exit(INTERRUPTED)
    for line in lines:
        typer.echo(line)


def _sweep(directory: Path, out: Path, model: str, knob: str, values: str | None, options: dict[str, Any]) -> None:
    from recvae.fitting import sweep

    planned = sweep.plan_sweep(model, knob, None if values is None else parse_numbers(values, "--values"), **options)

    def show(point: dict[str, Any]) -> None:
        names = {planned.metric: ".4f", "kl": ".4g", "nll": ".4g", "active_units": "d", "seconds": ".1f"}
        shown = [f"{name} {point[name]:{form}}" for name, form in names.items() if name in point]
        count = f"{len(planned.points)}/{len(planned.trainings)}"
        typer.echo("  ".join([count, f"{knob} {point['value']:g}", f"seed {point['seed']}", *(shown or ["diverged"])]))

    try:
        lines = sweep.sweep(directory, out, planned, show)
    except KeyboardInterrupt:
        hint = f"; {out / sweep.RESULTS} has the trainings that were finished" if planned.points else ""
        typer.echo(f"recvae: interrupted{hint}", err=True)
        sys.exit(INTERRUPTED)
    for line in lines:
        typer.echo(line)
