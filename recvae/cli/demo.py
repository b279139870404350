"""`recvae demo`: the best model for MovieLens-100K, and a list."""

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
    console.print(f"saved {model}: {fitted.name}, fitted on everything; {report} has the figures", highlight=False)

    console.rule("recommend")
    user = fitted.users["user_id"].iloc[0]
    console.print(f"ten titles for user {user}: recvae recommend {model} --user {user}", highlight=False)
    for rank, item in enumerate(recommend(model, user=str(user)).items, start=1):
        title = escape_control_characters(str(item["title"] or item["id"]))
        console.print(f"{rank:3}  {title}", highlight=False, markup=False)


def _load_source(console: Console) -> Dataset:
    try:
        return load("ml-100k")
    except DownloadError as error:
        console.print(f"continuing with generated data, since {error}", highlight=False, markup=False, soft_wrap=True)
        return generate()
