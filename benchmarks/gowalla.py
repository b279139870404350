"""The quality table on Gowalla's published split, beside published figures.

    python benchmarks/gowalla.py [--only als,graph]

No validation list is published, so one is carved out of the training plays; every choice (settings, a graph filter's
weight, a blend's weights) is made on it. Then each model is fitted again on all training plays with what was chosen, a
VAE for all its epochs, and evaluated once on the test plays. Writes `benchmarks/results/gowalla.json` and `gowalla.md`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from recvae import report
from recvae.comparison import Comparison, ModelRun, compare
from recvae.datasets import load
from recvae.errors import RecvaeError
from recvae.evaluation import evaluate
from recvae.interactions import Interactions
from recvae.models import BLENDED, create
from recvae.models.base import Recommender
from recvae.models.blend import Blend
from recvae.models.graph_filter import GraphFilter
from recvae.splits import Split, given

HERE = Path(__file__).parent
METRICS = ("recall_full@20", "ndcg@20")
# Chosen on the carved validation plays with `recvae tune` and by hand; see results/tried.md.
SETTINGS: dict[str, dict[str, Any]] = {
    "als": {"factors": 512, "alpha": 20.0, "regularization": 20.0},
    "graph": {"factors": 512},
}
ROWS = ("popularity", "bm25", "als", "graph", "ease", "multvae", "blend")

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


def chosen(name: str, fitted: dict[str, Recommender], split: Split, seed: int) -> Recommender:
    """The model with everything that validation decides decided, ready to be fitted on all training plays."""
    settings = dict(SETTINGS.get(name, {}))
    if name == "blend":
        settings["models"] = [fitted[part] for part in BLENDED]
    elif name == "multvae":
        settings["seed"] = seed
    model = create(name, **settings)
    fitted[name] = model.fit(split.train, show_progress=False, validation=split.validation)
    figures = evaluate(model, split.validation, METRICS) if split.validation else None
    print(f"{name:12} validation " + "  ".join(f"{m} {figures.mean(m):.4f}" for m in METRICS if figures), flush=True)
    if isinstance(model, GraphFilter):
        settings["weight"] = model.weight_
    elif isinstance(model, Blend):
        settings["weights"] = [float(weight) for weight in model.weights_]
    return create(name, **settings)


def main() -> None:
    """Choose on validation, fit on everything, evaluate once, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help="models, separated by commas")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = [name for name in ROWS if name in arguments.only.split(",")]
    if "blend" in names and not set(BLENDED) <= set(names):
        sys.exit(f"a blend needs {', '.join(BLENDED)} beside it")
    try:
        dataset = load("gowalla")
    except RecvaeError as error:
        sys.exit(f"gowalla was not run: {error}")
    plays = Interactions.from_frame(dataset.ratings)
    carved, whole = given(plays, val_users=dataset.recipe.val_users), given(plays, val_users=0)
    fitted: dict[str, Recommender] = {}
    final = {name: chosen(name, fitted, carved, arguments.seed) for name in names}
    if isinstance(blend := final.get("blend"), Blend):
        blend.models = [final[part] for part in BLENDED]

    def show(name: str, run: ModelRun) -> None:
        print(f"{name:12} test " + "  ".join(f"{m} {run.result.mean(m):.4f}" for m in METRICS), flush=True)

    write(compare(final, whole, (*METRICS, "coverage@20", "popularity@20"), METRICS, on_result=show), arguments)


def write(compared: Comparison, arguments: argparse.Namespace) -> None:
    """Write the JSON and the Markdown table, and print it."""
    protocol = (
        "the published train and test lists; settings chosen on plays carved out of train; fitted on all of train"
    )
    results = compared.as_dict(dataset="gowalla", protocol=protocol, seed=arguments.seed)
    results["command"] = f"python benchmarks/gowalla.py --only {arguments.only} --seed {arguments.seed}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.write_results(arguments.out / "gowalla.json", results)
    table = report.markdown_table(results, METRICS)
    heading = f"# gowalla\n\nMade by `{results['command']}`.\n\n"
    (arguments.out / "gowalla.md").write_text(f"{heading}{table}\n{PUBLISHED}", encoding="utf8")
    Console().print(report.console_table(results, METRICS))


if __name__ == "__main__":
    main()
