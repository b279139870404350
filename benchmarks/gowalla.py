"""The quality table on Gowalla's published split, beside published figures.

    python benchmarks/gowalla.py [--only als,graph]

No validation list is published, so one is carved out of the training plays; every choice (settings, a graph filter's
weight, a blend's weights) is made on it. Then each model is fitted again on all training plays with what was chosen, a
VAE for all its epochs and with three seeds, and evaluated once on the test plays. Writes
`benchmarks/results/gowalla.json` and `gowalla.md`. Fitted models are kept, so that a run that was cut off goes on
where it stood.
"""

import argparse
import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy import sparse

from recvae import artifact, report
from recvae.comparison import Comparison, ModelRun, compare
from recvae.datasets import load
from recvae.errors import ArtifactError, RecvaeError
from recvae.evaluation import evaluate
from recvae.interactions import Interactions
from recvae.models import MODELS, create, seed_of
from recvae.models.base import Recommender
from recvae.models.blend import Blend
from recvae.models.graph_filter import GraphFilter
from recvae.models.neural import Autoencoder
from recvae.splits import Holdout, Split, given

HERE = Path(__file__).parent
METRICS = ("recall_full@20", "ndcg@20")
SEEDS = (0, 1, 2)
# Model and settings of each row, chosen on the carved validation plays; see results/tried.md.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity": ("popularity", {}),
    "bm25": ("bm25", {}),
    "als": ("als", {"factors": 512, "alpha": 20.0, "regularization": 20.0}),
    "graph": ("graph", {"factors": 512}),
    "ease": ("ease", {}),
    "ease (sparse)": ("ease", {"density": 0.0005}),
    "multvae": ("multvae", {"epochs": 30}),
}
PARTS = ("graph", "als", "ease (sparse)", "multvae")

PUBLISHED = """\
Published, BARS leaderboard gowalla_m1 unless noted, most of them tuned on the test plays: recall_full@20 / ndcg@20

| model | recall_full@20 | ndcg@20 |
| --- | ---: | ---: |
| ItemCF | .1570 | .1214 |
| Mult-VAE | .1641 | .1335 |
| SLIM | .1699 | .1382 |
| EASE | .1765 | .1467 |
| LightGCN | .1830 | .1554 |
| GF-CF | .1849 | .1518 |
| UltraGCN | .1862 | .1580 |
| SimpleX | .1872 | .1557 |
| BSPM-EM | .1920 | .1597 |
"""


def kept(model: Recommender, path: Path, train: sparse.csr_matrix, validation: Holdout | None = None) -> Recommender:
    """The model fitted, now or by an earlier run with the same settings on the same plays."""
    with contextlib.suppress(ArtifactError):  # there is none, or it was written by another version
        earlier = artifact.load(path)
        if earlier.model.get_params() == model.get_params() and earlier.model.fitted_on(train):
            return earlier.model
    state = path.with_suffix(".checkpoint") if model.resumable else None
    resume = state is not None and state.exists()
    model.fit(train, show_progress=False, validation=validation, checkpoint=state, resume=resume)
    artifact.save(model, path)
    if state is not None:
        shutil.rmtree(state, ignore_errors=True)
    return model


def made(row: str, seed: int, **decisions: Any) -> Recommender:
    """The model of a row."""
    name, settings = ROWS[row]
    return create(name, **{**settings, **seed_of(name, seed), **decisions})


def chosen(rows: Sequence[str], split: Split, models: Path) -> dict[str, dict[str, Any]]:
    """What validation decides: a graph filter's weight, a blend's weights."""
    fitted: dict[str, Recommender] = {}
    for row in rows:
        if row == "blend":
            blend = Blend([fitted[part] for part in PARTS], metric="ndcg@20")
            fitted[row] = blend.fit(split.train, show_progress=False, validation=split.validation)
        else:
            fitted[row] = kept(made(row, SEEDS[0]), models / f"carved-{row}", split.train, split.validation)
        if split.validation:
            figures = evaluate(fitted[row], split.validation, METRICS)
            print(f"{row:14} validation " + "  ".join(f"{m} {figures.mean(m):.4f}" for m in METRICS), flush=True)
    return {row: decided(model) for row, model in fitted.items()}


def decided(model: Recommender) -> dict[str, Any]:
    """The settings of a fitted model that validation chose."""
    if isinstance(model, GraphFilter):
        return {"weight": model.weight_}
    return {"weights": [float(weight) for weight in model.weights_]} if isinstance(model, Blend) else {}


def main() -> None:
    """Choose on validation, fit on everything, evaluate once, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join((*ROWS, "blend")), help="rows of the table, separated by commas")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--models", type=Path, default=HERE.parent / "data" / "gowalla-models", help="kept models")
    arguments = parser.parse_args()
    rows = [row for row in (*ROWS, "blend") if row in arguments.only.split(",")]
    if "blend" in rows and not set(PARTS) <= set(rows):
        sys.exit(f"a blend needs {', '.join(PARTS)} beside it")
    try:
        dataset = load("gowalla")
    except RecvaeError as error:
        sys.exit(f"gowalla was not run: {error}")
    plays = Interactions.from_frame(dataset.ratings)
    arguments.models.mkdir(parents=True, exist_ok=True)
    to_choose = [row for row in rows if row in (*PARTS, "blend")]
    choices = chosen(to_choose, given(plays, val_users=dataset.recipe.val_users), arguments.models)
    whole = given(plays, val_users=0)
    fitted = {row: refitted(row, choices.get(row, {}), whole.train, arguments.models) for row in rows if row in ROWS}
    if "blend" in rows:
        fitted["blend"] = [
            Blend([fitted[part][seed % len(fitted[part])] for part in PARTS], **choices["blend"]) for seed in SEEDS
        ]

    def show(row: str, run: ModelRun) -> None:
        print(f"{row:14} test " + "  ".join(f"{m} {run.result.mean(m):.4f}" for m in METRICS), flush=True)

    write(compare(fitted, whole, (*METRICS, "coverage@20", "popularity@20"), METRICS, on_result=show), arguments)


def refitted(row: str, decisions: dict[str, Any], train: sparse.csr_matrix, models: Path) -> list[Recommender]:
    """The model of a row fitted on all training plays, a neural one once a seed."""
    seeds = SEEDS if issubclass(MODELS[ROWS[row][0]], Autoencoder) else SEEDS[:1]
    return [kept(made(row, seed, **decisions), models / f"whole-{row}-{seed}", train) for seed in seeds]


def write(compared: Comparison, arguments: argparse.Namespace) -> None:
    """Write the JSON and the Markdown table, and print it."""
    protocol = (
        "the published train and test lists; settings chosen on plays carved out of train; fitted on all of train"
    )
    results = compared.as_dict(dataset="gowalla", protocol=protocol, seed=SEEDS[0])
    results["command"] = "python benchmarks/gowalla.py"
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.write_results(arguments.out / "gowalla.json", results)
    table = report.markdown_table(results, METRICS)
    heading = f"# gowalla\n\nMade by `{results['command']}`.\n\n"
    (arguments.out / "gowalla.md").write_text(f"{heading}{table}\n{PUBLISHED}", encoding="utf8")
    Console().print(report.console_table(results, METRICS))


if __name__ == "__main__":
    main()
