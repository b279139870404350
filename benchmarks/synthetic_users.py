"""Made-up users in place of real ones: what a model learns from them, how like the real ones they are, what they leak.

    python -m benchmarks.synthetic_users ml-100k=data/ml-100k lastfm=data/lastfm --models /tmp/models

Directories are prepared data, models those of `benchmarks.anomalies`. As many users are made up as were trained on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from benchmarks.anomalies import fit_models
from benchmarks.copula import RANK, draw_by_copula
from benchmarks.record import provenance
from benchmarks.unusual import count_items, to_matrix
from benchmarks.whole_users import WholeUsers, hold_out_interactions, make_parser, read_whole_users
from recvae.evaluation.results import write_results
from recvae.models.generative.draws import draw_by_popularity
from recvae.models.registry import MODELS
from recvae.models.validation import validate
from recvae.storage.files import write_text

JUDGES = {"ease": "EASE", "als": "ALS"}
METRIC = "ndcg@100"
PAIRS_OF = 100
"""Items, the most popular ones, whose pairs are compared."""
MOST_COMPARED = 1000
"""Users, at most, whose nearest neighbours are looked for."""
COLUMNS = {
    **{judge: f"NDCG@100 of {name}, real = 1" for judge, name in JUDGES.items()},
    "popularity": "popularity, correlation",
    "length": "mean length",
    "length_distance": "lengths, KS distance",
    "lift": "pairs' lift, correlation",
    "coverage": "items covered",
    "nearest": "cosine to nearest training user",
    "copies": "exact copies",
    "membership_auc": "membership AUC",
}


def shuffle(train: sparse.csr_matrix, generator: np.random.Generator) -> sparse.csr_matrix:
    """Real interactions dealt out anew: lengths and popularity stay, up to items that a user would get twice."""
    items = generator.permutation(train.indices)
    rows = [np.unique(items[a:b]).astype(np.int64) for a, b in zip(train.indptr, train.indptr[1:], strict=False)]
    return to_matrix(rows, train.shape[1])


def measure(made: sparse.csr_matrix, users: WholeUsers, judged: Mapping[str, float]) -> dict[str, float]:
    """Compare made-up users with the real ones they are made after."""
    real = users.train
    counts, real_counts = count_items(made), count_items(real)
    top = np.argsort(-real_counts)[:PAIRS_OF]
    figures = {judge: _judge(judge, made, users) / judged[judge] for judge in JUDGES}
    nearest, to_members = _nearest(made, real), _nearest(real, made)
    figures |= {
        "popularity": float(np.corrcoef(counts, real_counts)[0, 1]),
        "length": float(np.diff(made.indptr).mean()),
        "length_distance": float(stats.ks_2samp(np.diff(made.indptr), np.diff(real.indptr)).statistic),
        "lift": float(np.corrcoef(_lift(made, top), _lift(real, top))[0, 1]),
        "coverage": float((counts > 0).sum() / (real_counts > 0).sum()),
        "nearest": float(np.median(nearest)),
        "copies": float((nearest > 1 - 1e-6).mean()),
        "membership_auc": _auc(to_members, _nearest(users.test, made)),
    }
    return figures


def _judge(judge: str, train: sparse.csr_matrix, users: WholeUsers) -> float:
    """NDCG@100 on test users of a model trained on `train`, whose settings are chosen on users held out of that."""
    model = MODELS.create(judge).fit(train, show_progress=False)
    generator = np.random.default_rng(0)
    return validate(model, hold_out_interactions(users.test, generator), METRIC)


def _nearest(some: sparse.csr_matrix, others: sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """The largest cosine of each of some users, at most `MOST_COMPARED`, to any of the others."""
    similarity = normalize(some[:MOST_COMPARED]) @ normalize(others).T
    largest: npt.NDArray[np.float64] = similarity.max(axis=1).toarray()[:, 0]
    return largest


def _auc(members: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> float:
    labels = np.repeat([1, 0], [len(members), len(others)])
    return float(roc_auc_score(labels, np.append(members, others)))


def _lift(user_items: sparse.csr_matrix, items: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """log of each pair's users over those expected of independent items, smoothed by one user."""
    some = user_items[:, items]
    together = (some.T @ some).toarray()
    share = np.diag(together) / some.shape[0]
    upper = np.triu_indices(len(items), 1)
    expected = np.outer(share, share)[upper] * some.shape[0]
    lift: npt.NDArray[np.float64] = np.log((together[upper] + 1) / (expected + 1))
    return lift


def compare(name: str, users: WholeUsers, folder: Path) -> dict[str, Any]:
    """Every maker of users on one data set."""
    generator = np.random.default_rng(0)
    n_users = users.train.shape[0]
    judged = {judge: _judge(judge, users.train, users) for judge in JUDGES}
    made = {
        "popularity draws": draw_by_popularity(users.train, count_items(users.train)),
        "shuffled interactions": shuffle(users.train, generator),
        "Gaussian copula": draw_by_copula(users.train, n_users, generator),
    }
    rows = {maker: measure(matrix, users, judged) for maker, matrix in made.items()}
    for contestant, model in fit_models(name, users, folder).items():
        if model.density_ is None:
            model.fit_density(users.train)
        rows[contestant] = measure(model.sample(n_users, seed=1), users, judged)
        rows[f"{contestant}, N(0, I)"] = measure(model.sample(n_users, seed=1, prior="standard"), users, judged)
        print(name, contestant, rows[contestant], flush=True)
    real = {
        **judged,
        "length": float(np.diff(users.train.indptr).mean()),
        "nearest_held_out": float(np.median(_nearest(users.test, users.train))),
    }
    return {"n_users": n_users, "real": real, "makers": rows}


def write_table(results: Mapping[str, Any], path: Path) -> None:
    """Write the figures as Markdown."""
    lines = [
        "# Made-up users",
        "",
        "Models trained on made-up users, as many as there are real training users, and tested on real users; and how "
        "like the real users they are. Membership AUC: how well one who has the made-up users tells a training user "
        "from another user, by the nearest made-up one; .5 is a coin's. Gaussian copula: items as binary columns with "
        f"tetrachoric correlations of rank {RANK} (`benchmarks/copula.py`). "
        f"Made by `{results['provenance']['command']}`.",
    ]
    for name, found in results["data_sets"].items():
        real = found["real"]
        judged = ", ".join(f"{JUDGES[judge]} {real[judge]:.4f}" for judge in JUDGES)
        lines += [
            "",
            f"## {name}",
            "",
            f"{found['n_users']:,} users of {real['length']:.1f} interactions. Trained on the real ones: {judged}. "
            f"A held-out real user has a cosine of {real['nearest_held_out']:.3f} to the nearest training user.",
            "",
            f"| | {' | '.join(COLUMNS.values())} |",
            "| --- |" + " ---: |" * len(COLUMNS),
        ]
        for maker, row in found["makers"].items():
            lines.append(f"| {maker} | {' | '.join(_format(column, row[column]) for column in COLUMNS)} |")
    write_text(path, "\n".join(lines) + "\n")


def _format(column: str, value: float) -> str:
    if column == "length":
        return f"{value:.1f}"
    return f"{value:.1%}" if column in ("coverage", "copies") else f"{value:.3f}".replace("0.", ".", 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its results."""
    options = make_parser(__doc__).parse_args(arguments)
    results: dict[str, Any] = {
        "provenance": provenance("python -m benchmarks.synthetic_users", 1, "scikit-learn"),
        "data_sets": {},
    }
    for name, directory in options.data:
        results["data_sets"][name] = compare(name, read_whole_users(directory), options.models)
        write_results(options.out / "synthetic_users.json", results)
        write_table(results, options.out / "synthetic_users.md")


if __name__ == "__main__":
    main()
