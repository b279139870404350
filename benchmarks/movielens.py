"""Quality table of one MovieLens size, by the protocol of Liang et al. (2018).

    python benchmarks/movielens.py ml-1m

Prepares the data (found as `recvae prepare` finds them), trains every model on the training users, neural ones with
three seeds, and evaluates them once on the test users. Writes `benchmarks/results/NAME.json` and `NAME.md`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from recvae.data.prepared import read_prepared
from recvae.datasets import NAMES
from recvae.errors import RecvaeError
from recvae.evaluation.compare import ModelRun, compare
from recvae.evaluation.results import write_results
from recvae.evaluation.tables import console_table, markdown_table
from recvae.models.base import Recommender
from recvae.models.blending.blend import DEFAULT_MODELS as BLENDED
from recvae.models.registry import create, seed_params
from recvae.preparation.pipeline import Options, prepare

HERE = Path(__file__).parent
PAPER_USERS = 100_000  # from this size on the publication's own 200 epochs and 200,000 annealing steps
BASELINES = ("popularity", "cosine", "tfidf", "bm25", "als", "bpr", "lmf", "ease", "graph")

PUBLISHED_ML_20M = """\
Published on ML-20M, strong generalization (same split where the source uses Liang et al.'s files):

| model | recall@20 | recall@50 | ndcg@100 | source |
| --- | ---: | ---: | ---: | --- |
| Mult-DAE | .3877 | .5243 | .4200 | vae_cf notebook |
| Mult-VAE | .3954 ±.0027 | .5354 ±.0028 | .4259 ±.0021 | vae_cf notebook |
| EASE | .391 | .521 | .420 | VASP, table III |
| RecVAE | .414 | .553 | .442 | VASP, table III |
"""


def paper_settings(n_users: int) -> dict[str, int]:
    """Scale the publication's epochs and annealing to data with fewer users.

    Small data get at least 100 epochs and 1,000 updates, and anneal over twice the run's updates, so that β reaches
    its cap after 40% of them.
    """
    if n_users >= PAPER_USERS:
        return {"epochs": 200, "total_anneal_steps": 200_000}
    updates = -(-n_users // 500)
    epochs = max(100, -(-1000 // updates))
    return {"epochs": epochs, "total_anneal_steps": 2 * epochs * updates}


def models(n_users: int, seeds: Sequence[int]) -> Mapping[str, Sequence[Recommender]]:
    """Create the models of every row, neural ones with each seed; settings were chosen on validation users only."""
    paper = paper_settings(n_users)
    rows = {name: [create(name, None, **seed_params(name, seeds[0]))] for name in BASELINES}
    rows["multdae (paper)"] = [create("multdae", "paper", epochs=paper["epochs"], seed=seed) for seed in seeds]
    rows["multvae (paper)"] = [create("multvae", "paper", **paper, seed=seed) for seed in seeds]
    rows["recvae"] = [create("recvae", seed=seed) for seed in seeds]
    rows["multvae"] = [create("multvae", seed=seed) for seed in seeds]
    rows["blend"] = [
        create("blend", models=[rows[part][i % len(rows[part])] for part in BLENDED]) for i in range(len(seeds))
    ]
    return rows


def main() -> None:
    """Prepare, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[name for name in NAMES if name.startswith("ml-")])
    parser.add_argument("--data", type=Path, default=HERE.parent / "data" / "prepared", help="where to prepare")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where to write the table")
    parser.add_argument("--seeds", type=int, default=3, help="how often neural models are trained")
    arguments = parser.parse_args()
    console = Console()
    if arguments.name == "ml-20m":
        print(PUBLISHED_ML_20M)
    try:
        run(arguments.name, arguments.data / arguments.name, arguments.out, arguments.seeds, console)
    except RecvaeError as error:
        sys.exit(f"{arguments.name} was not run: {error}")


def run(name: str, directory: Path, out: Path, n_seeds: int, console: Console) -> None:
    """Make one table."""
    for line in prepare(name, directory, Options()):
        print(line)
    prepared = read_prepared(directory)

    def show(model: str, fitted: ModelRun) -> None:
        print(f"{model:20} ndcg@100 {fitted.result.mean('ndcg@100'):.4f}  {fitted.fit_seconds:.1f} s", flush=True)

    compared = compare(models(prepared.split.train.shape[0], range(n_seeds)), prepared.split, on_result=show)
    protocol = {**prepared.manifest["protocol"], "filters": prepared.manifest["filters"]}
    results = compared.as_dict(dataset=name, protocol=protocol, seed=0)
    results["command"] = f"python benchmarks/movielens.py {name} --seeds {n_seeds}"
    out.mkdir(parents=True, exist_ok=True)
    write_results(out / f"{name}.json", results)
    heading = f"# {name}\n\nMade by `{results['command']}`.\n\n"
    (out / f"{name}.md").write_text(heading + markdown_table(results), encoding="utf8")
    console.print(console_table(results))


if __name__ == "__main__":
    main()
