"""Unusual histories told from test users': every model's anomaly score beside detectors of other kinds.

    python -m benchmarks.anomalies ml-100k=data/ml-100k lastfm=data/lastfm --models /tmp/models

Directories are prepared data. Models are trained on the training users, or read from --models where they lie already.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import normalize

from benchmarks.record import provenance
from benchmarks.unusual import ATTACKS, Attack, count_items, make_unusual
from benchmarks.whole_users import WholeUsers, make_parser, read_whole_users
from recvae.evaluation.results import write_results
from recvae.models.autoencoders.variational import VariationalAutoencoder
from recvae.models.registry import MODELS
from recvae.storage.files import write_text

CONTESTANTS = {
    "MultVAE, recommended": ("multvae", "recommended"),
    "MultVAE, fast": ("multvae", "fast"),
    "MultVAE, paper": ("multvae", "paper"),
    "RecVAE": ("recvae", "recommended"),
}
LEVELS = 0.01, 0.05, 0.1, 0.2
NEIGHBOURS, COMPONENTS, TREES, BOOTSTRAPS = 10, 50, 200, 100
INJECTED_SHARE, INJECTED_SIZE, CUTOFF = 0.05, 50, 10
MOST_USERS = 600
"""Test users, at most, and as many unusual histories of each kind."""

Score = Callable[[sparse.csr_matrix], npt.NDArray[np.float64]]


def fit_peers(train: sparse.csr_matrix) -> dict[str, Score]:
    """Detectors of other kinds, on rows of length 1 unless they count popularity; higher is more unusual."""
    rows = normalize(train)
    counts = count_items(train) + 1
    surprise = -np.log(counts / counts.sum())
    svd = TruncatedSVD(COMPONENTS, random_state=0).fit(rows)
    forest = IsolationForest(n_estimators=TREES, random_state=0).fit(rows)
    factor = LocalOutlierFactor(20, metric="cosine", algorithm="brute", novelty=True).fit(rows)

    def neighbours(histories: sparse.csr_matrix) -> npt.NDArray[np.float64]:
        similarity = (normalize(histories) @ rows.T).toarray()
        best = -np.partition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        distance: npt.NDArray[np.float64] = 1 - best.mean(axis=1)
        return distance

    return {
        "popularity unigram": lambda histories: histories @ surprise / np.diff(histories.indptr),
        "nearest neighbours": neighbours,
        "PCA reconstruction": lambda histories: 1 - (svd.transform(normalize(histories)) ** 2).sum(axis=1),
        "IsolationForest": lambda histories: -forest.score_samples(normalize(histories)),
        "LocalOutlierFactor": lambda histories: -factor.score_samples(normalize(histories)),
    }


def fit_models(name: str, users: WholeUsers, folder: Path) -> dict[str, VariationalAutoencoder]:
    """The contestants, fitted or read."""
    models = {}
    for contestant, (model_name, preset) in CONTESTANTS.items():
        path = folder / f"{name}-{model_name}-{preset}"
        if path.exists():
            model = VariationalAutoencoder.load(path)
        else:
            model = fit_model(contestant, users, users.train)
            model.save(path)
        if model.calibration_ is None:
            fold_in, held_out = users.validation
            model.calibrate_anomalies(fold_in + held_out)
        models[contestant] = model
    return models


def fit_model(contestant: str, users: WholeUsers, train: sparse.csr_matrix) -> VariationalAutoencoder:
    """Fit a contestant on a training matrix."""
    model = MODELS.create(*CONTESTANTS[contestant])
    if not isinstance(model, VariationalAutoencoder):
        raise TypeError(f"{contestant} is no variational autoencoder")
    return model.fit(train, validation=users.validation, show_progress=False)


def compare(real: npt.NDArray[np.float64], unusual: npt.NDArray[np.float64]) -> dict[str, float]:
    """AUC and average precision, each with its standard error by the bootstrap over users."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [len(real), len(unusual)])
    scores = np.append(real, unusual)
    figures: dict[str, float] = {}
    draws = []
    for _ in range(BOOTSTRAPS):
        chosen = (generator.integers(len(part), size=len(part)) for part in (real, unusual))
        draws.append(np.concatenate([next(chosen), len(real) + next(chosen)]))
    for metric, measure in (("auc", roc_auc_score), ("ap", average_precision_score)):
        figures[metric] = float(measure(labels, scores))
        figures[f"{metric}_error"] = float(np.std([measure(labels[draw], scores[draw]) for draw in draws]))
    return figures


def detect(users: WholeUsers, models: Mapping[str, VariationalAutoencoder]) -> dict[str, Any]:
    """Every detector on every kind of unusual history, and the p-values of real users."""
    generator = np.random.default_rng(1)
    test = users.test
    if test.shape[0] > MOST_USERS:
        test = test[np.sort(generator.choice(test.shape[0], MOST_USERS, replace=False))]
    unusual = make_unusual(test, users.train, generator)
    detectors: dict[str, Score] = {name: model.anomaly_score for name, model in models.items()}
    for name, model in models.items():
        detectors[f"{name}: lower bound"] = _lower_bound(model)
    detectors |= fit_peers(users.train)
    rows: dict[str, dict[str, dict[str, float]]] = {kind: {} for kind in unusual}
    for detector, score in detectors.items():
        real = score(test)
        for kind, histories in unusual.items():
            rows[kind][detector] = compare(real, score(histories))
        print(detector, {kind: round(row[detector]["auc"], 3) for kind, row in rows.items()}, flush=True)
    p_values = {name: model.anomaly_p_value(test) for name, model in models.items()}
    share = {name: {str(level): float((p <= level).mean()) for level in LEVELS} for name, p in p_values.items()}
    calibration = {name: len(model._calibration()) for name, model in models.items()}
    return {"n_test": test.shape[0], "kinds": rows, "share_at_level": share, "n_calibration": calibration}


def _lower_bound(model: VariationalAutoencoder) -> Score:
    def score(histories: sparse.csr_matrix) -> npt.NDArray[np.float64]:
        bound: npt.NDArray[np.float64] = -model.log_likelihood(histories) / np.diff(histories.indptr)
        return bound

    return score


def inject(users: WholeUsers, contestant: str) -> dict[str, Any]:
    """Train on injected profiles too: are they found, and how far does the target move?"""
    figures: dict[str, dict[str, float]] = {}
    for kind in ATTACKS:
        attack = Attack.prepare(users.train, np.random.default_rng(2))
        profiles = attack.profiles(kind, INJECTED_SIZE, max(1, int(INJECTED_SHARE * users.train.shape[0])))
        attacked = sparse.csr_matrix(sparse.vstack([users.train, profiles], format="csr"))
        found: dict[str, float] = {"profiles": profiles.shape[0]}
        for when, train in (("before", users.train), ("after", attacked)):
            model = fit_model(contestant, users, train)
            scores = model.score(users.test)
            rank = 1 + (scores > scores[:, [attack.target]]).sum(axis=1)
            found[f"median_rank_{when}"] = float(np.median(rank))
            found[f"in_top_{CUTOFF}_{when}"] = float((rank <= CUTOFF).mean())
        figures[kind] = found | compare(model.anomaly_score(users.train), model.anomaly_score(profiles))
    return figures


def write_table(results: Mapping[str, Any], path: Path) -> None:
    """Write the AUCs as Markdown."""
    lines = [
        "# Unusual histories",
        "",
        "Area under the ROC curve (in brackets its standard error, by the bootstrap over users) of test users' "
        "histories against as many unusual ones of each kind; .5 is a coin's. The models' score is `anomaly_score`, "
        "the lower bound `log_likelihood` for each interaction. "
        f"Made by `{results['provenance']['command']}`; `benchmarks/unusual.py` defines the kinds.",
    ]
    for name, found in results["data_sets"].items():
        lines += _data_set_lines(name, found)
    write_text(path, "\n".join(lines) + "\n")


def _data_set_lines(name: str, found: Mapping[str, Any]) -> list[str]:
    kinds = found["kinds"]
    detectors = list(next(iter(kinds.values())))
    lines = ["", f"## {name}", "", f"{found['n_test']:,} test users.", ""]
    lines += [f"| | {' | '.join(detectors)} |", "| --- |" + " ---: |" * len(detectors)]
    for kind, row in kinds.items():
        best = max(round(figures["auc"], 3) for figures in row.values())
        cells = []
        for figures in row.values():
            text = f"{figures['auc']:.3f}".removeprefix("0")
            cells.append(f"{f'**{text}**' if round(figures['auc'], 3) == best else text} ({figures['auc_error']:.3f})")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += ["", "Share of real test users whose p-value is at most the level:", ""]
    lines += [
        f"| level | {' | '.join(found['share_at_level'])} |",
        "| --- |" + " ---: |" * len(found["share_at_level"]),
    ]
    for level in map(str, LEVELS):
        lines.append(f"| {level} | {' | '.join(f'{row[level]:.3f}' for row in found['share_at_level'].values())} |")
    for contestant, attacks in found.get("injected", {}).items():
        lines += [
            "",
            f"Profiles of {INJECTED_SIZE} items injected before the training of {contestant}, {INJECTED_SHARE:.0%} of "
            "the training users, told from real training users, and the target item among test users' lists:",
            "",
            "| attack | AUC | median rank before | after | in the top 10 before | after |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for kind, row in attacks.items():
            ranks = f"{row['median_rank_before']:,.0f} | {row['median_rank_after']:,.0f}"
            tops = f"{row['in_top_10_before']:.1%} | {row['in_top_10_after']:.1%}"
            lines.append(f"| {kind} | {row['auc']:.3f} ({row['auc_error']:.3f}) | {ranks} | {tops} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its results."""
    parser = make_parser(__doc__)
    parser.add_argument("--inject", nargs="*", default=(), help="data sets on which attacks are trained on too")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {
        "provenance": provenance("python -m benchmarks.anomalies", 1, "scikit-learn"),
        "data_sets": {},
    }
    for name, directory in options.data:
        users = read_whole_users(directory)
        found = detect(users, fit_models(name, users, options.models))
        if name in options.inject:
            found["injected"] = {"MultVAE, fast": inject(users, "MultVAE, fast")}
        results["data_sets"][name] = found
        write_results(options.out / "anomalies.json", results)
        write_table(results, options.out / "anomalies.md")


if __name__ == "__main__":
    main()
