"""The application that commands register with, and the arguments that several of them share."""

from pathlib import Path
from typing import Annotated

import typer

from recvae.cli.arguments import parse_input, parse_path

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Directory = Annotated[Path, typer.Argument(help="Prepared data directory.", parser=parse_input)]
Model = Annotated[Path, typer.Argument(help="Model artifact directory, or s3://….", parser=parse_input)]
OwnModel = Annotated[Path, typer.Argument(help="Model artifact directory.", parser=parse_path)]
Out = Annotated[str, typer.Option(help="Artifact directory to write, or s3://….")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Hyperparameter as name=value; may be repeated.")]
Items = Annotated[
    Path | None,
    typer.Option(
        help="CSV, TSV, JSON lines or Parquet file of items: item_id, title and other columns.", parser=parse_input
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers in training.")]

MinRating = Annotated[float | None, typer.Option(help="Keep ratings of at least this.")]
MinUserItems = Annotated[int | None, typer.Option(help="Keep users with at least this many items.")]
UserColumn = Annotated[str, typer.Option(help="Column of user ids.")]
ItemColumn = Annotated[str, typer.Option(help="Column of item ids.")]
RatingColumn = Annotated[str | None, typer.Option(help="Column of ratings, if there is one.")]
TimestampColumn = Annotated[str | None, typer.Option(help="Column of times, if there is one.")]
WeightColumn = Annotated[str | None, typer.Option(help="Column of weights, if there is one.")]
EventColumn = Annotated[str | None, typer.Option(help="Column of kinds of events, if there is one.")]
EventWeights = Annotated[
    str | None, typer.Option(help="Weight of each kind of event, such as view=1,buy=5; 0 drops a kind.")
]
Repeats = Annotated[str, typer.Option(help="Weight of a repeated pair: once (its highest), or sum.")]
HalfLife = Annotated[
    str | None, typer.Option(help="Time in which weights halve, back from the latest interaction: 90d, 12h.")
]
Backend = Annotated[
    str | None, typer.Option(help="duckdb, or URL of an engine: the source is a file, Parquet folder or table.")
]

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
