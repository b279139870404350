"""`recvae recommend`: the list of one user, or the lists of everybody."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae.cli.app import INTERRUPTED, Model, app
from recvae.cli.arguments import parse_ids, parse_input, parse_json, parse_path
from recvae.cli.output import item_line, to_json
from recvae.errors import RecvaeError

if TYPE_CHECKING:
    from recvae.inference.recommend import Recommendation

NewItems = Annotated[
    Path | None,
    typer.Option(
        help="Table of items (CSV, TSV, JSON lines, Parquet): list those too that the model does not know.",
        parser=parse_input,
    ),
]


@app.command()
def recommend(
    model: Model,
    history: Annotated[str | None, typer.Option(help="Item ids as a line of CSV: 1,2 or 'a,\"b,c\"'.")] = None,
    user: Annotated[str | None, typer.Option(help="Id of a user whose history the artifact holds.")] = None,
    users: Annotated[
        Path | None,
        typer.Option(help="Parquet file or folder of users, for whom lists are written to --out.", parser=parse_input),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --users: directory to write the lists to.", parser=parse_path)
    ] = None,
    n: Annotated[int, typer.Option("-n", help="List length.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    item_filter: Annotated[
        str | None, typer.Option("--filter", help='Items to list, as JSON: {"genre": ["Drama"], "year": {"ge": 1990}}.')
    ] = None,
    boost: Annotated[
        str | None, typer.Option(help='Items to favour, as JSON: [{"filter": {"genre": "Drama"}, "by": 0.5}].')
    ] = None,
    cap: Annotated[str | None, typer.Option(help='Most items of each value, as JSON: {"genre": 2}.')] = None,
    diversity: Annotated[float, typer.Option(help="From 0 to 1: how much items should be unlike each other.")] = 0.0,
    exclude: Annotated[str | None, typer.Option(help="Item ids to leave out, as a line of CSV.")] = None,
    only: Annotated[str | None, typer.Option(help="The only item ids to list, as a line of CSV.")] = None,
    new_items: NewItems = None,
) -> None:
    """Print the best items for a history or for a known user, or write the lists of any number of users.

    With --users, a Parquet file has the columns user_id and history (a list of item ids), or user_id and item_id
    sorted by user_id; repeating the command continues where an earlier one stopped.
    """
    from recvae.inference.recommend import recommend as recommend_one

    rules = {"boost": parse_json(boost, "--boost"), "cap": parse_json(cap, "--cap"), "diversity": diversity}
    rules = {"filter": parse_json(item_filter, "--filter"), **rules}
    if (users is None) != (out is None) or (users is not None and (history, user) != (None, None)):
        raise RecvaeError("--users and --out go together, without --history and --user")
    if users is not None and out is not None:
        if (exclude, only) != (None, None):
            raise RecvaeError("--exclude and --only are for one list; with --users expected a --filter of item_id")
        _recommend_everybody(model, users, out, n, rules, new_items)
        return
    if (history is None) == (user is None):
        found = "neither" if user is None else "both"
        raise RecvaeError(f"{found} of --history and --user given; expected one of them")
    given = {"--history": history, "--exclude": exclude, "--only": only}
    ids, left_out, candidates = (None if text is None else parse_ids(text, option) for option, text in given.items())
    choice = {"exclude": left_out or (), "only": candidates, "new_items": new_items, **rules}
    answer = recommend_one(model, history=ids, user=user, n=n, **choice)
    _print_list(answer, as_json)


def _print_list(answer: "Recommendation", as_json: bool) -> None:
    if answer.unknown:
        typer.echo(f"recvae: unknown items left out: {', '.join(map(str, answer.unknown))}", err=True)
    if as_json:
        typer.echo(to_json({"items": answer.items, "unknown": answer.unknown}))
        return
    for rank, item in enumerate(answer.items, start=1):
        typer.echo(item_line(rank, item))
    if not answer.items:
        typer.echo("recvae: no item is left by the history and by what was asked for", err=True)


def _recommend_everybody(
    model: Path, users: Path, out: Path, n: int, rules: dict[str, Any], new_items: Path | None
) -> None:
    from recvae.inference import bulk

    try:
        lines = bulk.recommend_everybody(model, users, out, n, rules=rules, new_items=new_items)
    except KeyboardInterrupt:
        typer.echo(
            f"recvae: interrupted; {bulk.count_parts(out)} part files are finished: repeat the command to continue",
            err=True,
        )
        sys.exit(INTERRUPTED)
    for line in lines:
        typer.echo(line)
