"""`recvae demo`: prepare, compare, save and recommend on MovieLens-100K."""

from pathlib import Path

from rich.console import Console

from recvae import workflow
from recvae.data.prepared import read_prepared
from recvae.datasets import Dataset, load
from recvae.datasets.synthetic import generate
from recvae.errors import DownloadError, escape_control_characters
from recvae.evaluation.compare import ModelRun
from recvae.evaluation.evaluate import PRIMARY_METRICS
from recvae.evaluation.tables import console_table
from recvae.inference.recommend import recommend
from recvae.preparation.pipeline import Options, prepare
from recvae.storage import artifact
from recvae.storage.directories import refuse_foreign

MODELS = ("popularity", "als", "cosine", "tfidf", "bm25", "bpr", "lmf", "ease", "graph", "multdae", "multvae", "blend")


def run(out: Path, console: Console) -> None:
    """Run the demo into the directory `out`: `data`, `report` and `model` below it."""
    data, report, model = out / "data", out / "report", out / "model"
    workflow.refuse_unwritable(model)
    refuse_foreign(model, artifact.KIND)
    console.rule("prepare")
    for line in prepare(_load_source(console), data, Options()):
        console.print(line, highlight=False, soft_wrap=True)

    console.rule("compare")
    compared = workflow.compare(
        data, report, MODELS, on_result=lambda name, fitted: _print_result(console, name, fitted)
    )
    console.print(console_table(compared.results))

    console.rule("save")
    multvae, prepared = compared.models["multvae"], read_prepared(data)
    workflow.save(multvae, model, prepared, {"test": compared.results["models"]["multvae"]["metrics"]})
    console.print(f"saved {model}", highlight=False)

    console.rule("recommend")
    user = prepared.split.test.user_ids[0]
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


def _print_result(console: Console, name: str, fitted: ModelRun) -> None:
    metric = PRIMARY_METRICS[-1]
    figures = f"{metric} {fitted.result.mean(metric):.4f}"
    seconds = f", {fitted.fit_seconds:.1f} s" if fitted.fit_seconds is not None else ""
    console.print(f"{name:12} {figures}{seconds}", highlight=False)
