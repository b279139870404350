"""The command line: commands parse their arguments, call the library and print."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from recvae.cli import training
from recvae.cli.app import INTERRUPTED, Model, app
from recvae.cli.arguments import parse_ids, parse_path
from recvae.cli.failures import resource_message, usage_message
from recvae.cli.output import accept_any_encoding, item_line, to_json
from recvae.errors import RecvaeError, escape_control_characters

__all__ = ["app", "main", "training"]


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
