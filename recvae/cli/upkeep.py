"""`recvae forget`: upkeep of an artifact that is in use."""

from pathlib import Path
from typing import Annotated

import typer

from recvae.cli.app import Model, app
from recvae.cli.arguments import parse_path


@app.command()
def forget(
    model: Model,
    users: Annotated[
        Path,
        typer.Option(help="CSV, TSV or Parquet file with a column user_id.", parser=parse_path),
    ],
) -> None:
    """Rewrite an artifact without some users: without their ids, histories and vectors.

    What training learned from them together with everybody else stays in the item weights until the next fit.
    """
    from recvae.inference.forgetting import forget_users

    for line in forget_users(model, users):
        typer.echo(line)
