"""`recvae demo`: the best model for MovieLens-100K, and a list."""

import shlex
from pathlib import Path

from rich.console import Console

from recvae.datasets import Dataset, load
from recvae.datasets.synthetic import generate
from recvae.errors import DownloadError, escape_control_characters
from recvae.evaluation.results import choose_shown_metrics
from recvae.evaluation.tables import console_table
from recvae.fitting.fit import fit, refuse_occupied
from recvae.inference.recommend import recommend

BUDGET = "1m"
MODELS: tuple[str, ...] | None = None


def run(out: Path, console: Console) -> None:
    """Run the demo into the directory `out`: `model` and `report` below it."""
    model, report = out / "model", out / "report"
    refuse_occupied(model, report)
    console.rule("fit")
    fitted = fit(_load_source(console), budget=BUDGET, models=MODELS, out=model, report=report)
    if fitted.results is not None:
        console.print(console_table(fitted.results, choose_shown_metrics(fitted.results)))
    _print(console, f"saved {model}: {fitted.name}, fitted on everything; {report} has the figures")

    console.rule("recommend")
    user = fitted.users["user_id"].iloc[0]
    _print(console, f"ten titles for user {user}: recvae recommend {shlex.quote(str(model))} --user {user}")
    for rank, item in enumerate(recommend(model, user=str(user)).items, start=1):
        title = escape_control_characters(str(item["title"] or item["id"]))
        _print(console, f"{rank:3}  {title}")


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _load_source(console: Console) -> Dataset:
    try:
        return load("ml-100k")
    except DownloadError as error:
        _print(console, f"continuing with generated data, since {error}")
        return generate()
