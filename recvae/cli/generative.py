"""Commands of generative models: anomalies and sample."""

from pathlib import Path
from typing import Annotated

import typer

from recvae.cli.app import Model, app
from recvae.cli.arguments import parse_input, parse_path

Out = Annotated[Path, typer.Option(help="Parquet file to write.", parser=parse_path)]


@app.command()
def anomalies(
    model: Model,
    users: Annotated[Path, typer.Option(help="Parquet file or folder of users.", parser=parse_input)],
    out: Out,
    level: Annotated[float, typer.Option(help="Largest p-value that counts as unusual.")] = 0.01,
) -> None:
    """Say how unusual the history of each user is, and which of its items do not fit.

    A Parquet file of users has the columns user_id and history (a list of item ids), or user_id and item_id sorted by
    user_id. The p-value is the share of real users, of the model's validation, whose history is at least as unusual.
    """
    from recvae.inference.anomalies import find_anomalies

    for line in find_anomalies(model, users, out, level):
        typer.echo(line)


@app.command()
def sample(
    model: Model,
    users: Annotated[int, typer.Option(help="Number of users to make up.")],
    out: Out,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
) -> None:
    """Make up users with the taste of real ones: a Parquet file with the columns user_id and item_id.

    Their ids begin with "made-up-".
    """
    from recvae.inference.samples import write_samples

    for line in write_samples(model, users, out, seed):
        typer.echo(line)
