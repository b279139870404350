"""The command line: commands parse their arguments, call the library and print."""

import atexit
import gc
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from recvae.cli import generative, lists, training, upkeep
from recvae.cli.app import INTERRUPTED, app
from recvae.cli.arguments import parse_input, parse_path
from recvae.cli.failures import resource_message, usage_message
from recvae.cli.output import accept_any_encoding
from recvae.errors import RecvaeError, escape_control_characters

# Commands are registered in whatever order their modules are imported; help begins with those that lead to a model.
app.registered_commands.sort(key=lambda command: getattr(command.callback, "__module__", "") != training.__name__)

__all__ = ["app", "generative", "lists", "main", "training", "upkeep"]


def main(started: float | None = None) -> None:
    """Run the command line; a mistake that the user can mend ends with one line on standard error and exit status 2.

    Parameters
    ----------
    started : float, optional
        Time of the monotonic clock at which the process began, from which a budget is counted.
    """
    accept_any_encoding()
    atexit.register(gc.freeze)  # or torch's hundreds of thousands of objects are looked through for cycles at the end
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False, obj=started)
    except TyperException as error:
        _fail(usage_message(error.format_message(), sys.argv[1:], _command_names()))
    except RecvaeError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except UnicodeEncodeError as error:  # a name that is not UTF-8, which libraries refuse to write
        _fail(f"{error.object!r} is no text in UTF-8; expected another name")
    except (ModuleNotFoundError, OSError, MemoryError, RuntimeError) as error:
        _fail(resource_message(error))
    if status == INTERRUPTED:
        sys.stderr.write("recvae: interrupted\n")
    sys.exit(status)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="Model artifact directory, or s3://….")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(help="Number of processes; they share the weights.")] = 1,
) -> None:
    """Serve recommendations over HTTP, with a page at /, documentation at /docs and metrics at /metrics.

    Environment variables RECVAE_… set keys, limits and a store of interactions; docs/deployment.md lists them.
    """
    from recvae import serving
    from recvae.storage.object_store import follow, is_address

    path = parse_input(model)
    if is_address(model):
        follow(model)
    serving.run(path, host, port, workers)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Model artifact, prepared data or checkpoint.", parser=parse_input)],
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
    out: Annotated[str, typer.Option(help="Directory for everything the demo writes.")] = "demo",
) -> None:
    """Find the best model for MovieLens-100K in a minute, save it, and recommend."""
    from recvae.cli.demo import run

    run(parse_path(out), Console())


def _command_names() -> list[str]:
    return [command.callback.__name__ for command in app.registered_commands if command.callback]


def _fail(message: str) -> None:
    sys.stderr.write(f"recvae: {' '.join(message.split())}\n")
    sys.exit(2)
