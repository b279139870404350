"""`recvae show` and `recvae forget`: what an artifact is, and upkeep of one that is in use."""

from pathlib import Path
from typing import Annotated

import typer

from recvae.cli.app import Model, OwnModel, app
from recvae.cli.arguments import parse_input
from recvae.cli.output import to_json
from recvae.errors import escape_control_characters


@app.command()
def show(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's card: what it was made of, its settings, its figures, and its limits."""
    from recvae.inference.card import describe_artifact, format_card
    from recvae.models import registry

    card = describe_artifact(registry.load(model, frozen=True))
    for line in [to_json(card)] if as_json else map(escape_control_characters, format_card(card)):
        typer.echo(line)


@app.command()
def forget(
    model: OwnModel,
    users: Annotated[
        Path,
        typer.Option(help="CSV, TSV or Parquet file with a column user_id.", parser=parse_input),
    ],
) -> None:
    """Rewrite an artifact without some users: without their ids, histories and vectors.

    What training learned from them together with everybody else stays in the item weights until the next fit.
    """
    from recvae.inference.forgetting import forget_users

    for line in forget_users(model, users):
        typer.echo(line)
