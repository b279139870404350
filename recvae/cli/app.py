"""The application that commands register with, and the arguments that several of them share."""

from pathlib import Path
from typing import Annotated

import typer

from recvae.cli.arguments import parse_path

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Directory = Annotated[Path, typer.Argument(help="Prepared data directory.", parser=parse_path)]
Model = Annotated[Path, typer.Argument(help="Model artifact directory.", parser=parse_path)]
Set = Annotated[list[str] | None, typer.Option("--set", help="Hyperparameter as name=value; may be repeated.")]
Items = Annotated[
    Path | None,
    typer.Option(help="CSV, TSV or Parquet file of items: item_id, title and other columns.", parser=parse_path),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers in training.")]

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
