"""Items that nobody has played: models with a map from metadata, beside EASE with side information and baselines.

    python -m benchmarks.cold_items ml-100k=data/ml-100k

Prepared data, whose interactions are split anew by `cold_items`; where `$RECVAE_DATA/ml-100k/u.user` is there, the same
data turned round too, with people as items, who have an age, a sex and an occupation; and made-up data.
"""

import argparse
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.preprocessing import normalize

from benchmarks.record import RESULTS, provenance
from recvae.data.interactions import Interactions
from recvae.data.prepared import read_prepared
from recvae.data.split import Split
from recvae.data.splitting import cold_items
from recvae.datasets.synthetic import generate
from recvae.evaluation.compare import compare
from recvae.evaluation.evaluate import evaluate
from recvae.evaluation.results import write_results
from recvae.evaluation.tables import markdown_table
from recvae.inference.new_items.cold_split import ColdItemRanker, rank_cold
from recvae.inference.new_items.scorer import RIDGE
from recvae.models.registry import MODELS
from recvae.storage.files import write_text
from recvae.topn import top_n
from recvae.types import FloatArray

MODEL_NAMES = ("popularity", "ease", "als", "graph", "multvae")
WEIGHTS, L2 = (0.1, 1.0, 10.0), (5.0, 15.0, 50.0)
"""Settings of EASE with side information, in mean interactions of an item; the best on validation are taken."""
METRICS = ("recall@20", "ndcg@10", "ndcg@100")
CHOICE = "ndcg@100"
LIST, HELD_OUT = 10, 0.2


@dataclass(frozen=True)
class Data:
    """Interactions, metadata of the items, and the column that the baseline of popularity goes by."""

    interactions: Interactions
    items: pd.DataFrame
    group: str

    def split(self, seed: int = 98765) -> tuple[Split, pd.DataFrame]:
        """The split by items, and the items of its columns."""
        split = cold_items(self.interactions, seed=seed)
        return split, pd.DataFrame({"item_id": split.item_ids}).merge(self.items, on="item_id", how="left")

    def without(self, items: pd.Index) -> Self:
        """The data without some items, which are split once more for choices."""
        kept = ~self.interactions.item_ids.isin(items)[self.interactions.item_idx]
        return replace(self, interactions=self.interactions.select(kept))


class Baseline(ABC):
    """A way to score the cold items of a split, as `compare` takes it."""

    folds_in = True

    def __init__(self, split: Split, items: pd.DataFrame, group: str) -> None:
        ranker = ColdItemRanker(MODELS.create("popularity"), split, items)
        self.cold, self.known = ranker.cold, ranker.scorer.items
        self.features, self.group = ranker.features, list(ranker.scorer.features.values[group].values())
        self.train = split.train

    def get_params(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def fit(self, user_items: Any, *, show_progress: bool = True, callback: Any = None, validation: Any = None) -> Any:
        """Do nothing: everything is there."""
        return self

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,  # noqa: N803 implicit's name
        *,
        recalculate_user: bool = False,
    ) -> Any:
        """Rank the cold items."""
        return rank_cold(self.score(user_items).astype(np.float32), self.cold, N)

    @abstractmethod
    def score(self, user_items: sparse.csr_matrix) -> npt.NDArray[Any]:
        """(n_users, n_cold) scores."""


class Random(Baseline):
    """Chance."""

    def score(self, user_items: sparse.csr_matrix) -> npt.NDArray[Any]:
        return np.random.default_rng(0).random((user_items.shape[0], len(self.cold)))


class PopularInGroup(Baseline):
    """Mean number of interactions of the known items of the same genre, or of its genres' mean; the same for all."""

    def score(self, user_items: sparse.csr_matrix) -> npt.NDArray[Any]:
        counts = np.asarray(self.train.sum(axis=0)).ravel()[self.known]
        member = self.features[:, self.group]
        known, cold = member[self.known], member[self.cold]
        means = (known.T @ counts) / np.maximum(known.getnnz(axis=0), 1)
        scores = (cold @ means) / np.maximum(cold.getnnz(axis=1), 1)
        return np.tile(scores, (user_items.shape[0], 1))


class NearestFeatures(Baseline):
    """Sum of the cosines of a cold item's features with those of the history's items."""

    def score(self, user_items: sparse.csr_matrix) -> npt.NDArray[Any]:
        rows = normalize(self.features)
        scores: npt.NDArray[Any] = (user_items @ rows @ rows[self.cold].T).toarray()
        return scores


class SideInformation(Baseline):
    """EASE with the features as further users (Jeunen et al., RecSys 2020): a cold item's column of its weights.

    With M = XᵀX + αFFᵀ + λI over the known items, the column of an item of features f is M⁻¹·αFf, up to a factor.
    """

    weight, l2 = 1.0, 15.0

    def score(self, user_items: sparse.csr_matrix) -> npt.NDArray[Any]:
        train = self.train[:, self.known]
        mean = train.nnz / len(self.known)
        known, cold = (self.features[part].toarray().astype(float) for part in (self.known, self.cold))
        matrix = (train.T @ train).toarray() + self.weight * mean * known @ known.T
        matrix[np.diag_indices(len(matrix))] += self.l2 * mean
        scores: npt.NDArray[Any] = user_items[:, self.known] @ (np.linalg.solve(matrix, known) @ cold.T)
        return scores

    def get_params(self) -> Mapping[str, Any]:
        return {"weight": self.weight, "l2": self.l2}


def choose_side_information(data: Data) -> tuple[float, float]:
    """The settings that are best on items held out of the training items."""
    split, items = data.split()
    inner = data.without(split.item_ids[np.unique(split.test.held_out.indices)])
    split, items = inner.split(seed=1)
    baseline, found = SideInformation(split, items, data.group), {}
    for baseline.weight, baseline.l2 in ((weight, l2) for weight in WEIGHTS for l2 in L2):
        found[baseline.weight, baseline.l2] = evaluate(baseline, split.test, [CHOICE]).mean(CHOICE)
    return max(found, key=lambda settings: found[settings])


def measure(data: Data) -> dict[str, Any]:
    """Every way to rank the cold items, with paired tests."""
    split, items = data.split()
    side_information = SideInformation(split, items, data.group)
    side_information.weight, side_information.l2 = choose_side_information(data)
    ways: dict[str, Any] = {
        "random": Random(split, items, data.group),
        f"popularity in {data.group}": PopularInGroup(split, items, data.group),
        "nearest features": NearestFeatures(split, items, data.group),
        "EASE with side information": side_information,
    }
    for name in MODEL_NAMES:
        ways[f"{name}, mapped"] = ColdItemRanker(MODELS.create(name), split, items)
    compared = compare(
        ways,
        split,
        METRICS,
        METRICS,
        show_progress=False,
        on_result=lambda name, run: print(name, round(run.result.mean(CHOICE), 4), flush=True),
    )
    found = compared.as_dict(dataset=data.group, protocol=split.protocol, seed=0)
    return {**found, "n_cold": len(side_information.cold), "beside_known": list(mix(data))}


def mix(data: Data) -> Iterator[dict[str, Any]]:
    """Lists of known and cold items, where a fifth of the interactions with known items is held out as well."""
    split, items = data.split()
    train = split.train.tocoo()
    held = np.random.default_rng(0).random(train.nnz) < HELD_OUT
    parts = [sparse.csr_matrix((train.data[of], (train.row[of], train.col[of])), train.shape) for of in (~held, held)]
    rows = split.test.train_rows
    history, wanted = parts[0][rows], (parts[1][rows] + split.test.held_out).toarray() > 0
    for name in MODEL_NAMES[1:]:
        model = MODELS.create(name).fit(parts[0], show_progress=False)
        ranker = ColdItemRanker(model, replace(split, train=parts[0]), items)
        known = model.score(history)
        stretched = ranker.scorer.score(known, history, ranker.features[ranker.cold])
        plain = _regress(ranker, known)
        known[history.nonzero()] = -np.inf
        for way, cold in (("without new items", None), ("regression alone", plain), ("stretched", stretched)):
            known[:, ranker.cold] = -np.inf if cold is None else cold
            ids, _ = top_n(known.copy(), LIST)
            new, hits = np.isin(ids, ranker.cold), np.take_along_axis(wanted, ids.astype(np.int64), axis=1)
            yield {
                "model": name,
                "scores": way,
                "share": float(new.mean()),
                "precision_new": float(hits[new].mean()) if new.any() else None,
                "precision_known": float(hits[~new].mean()),
                "precision": float(hits.mean()),
            }


def _regress(ranker: ColdItemRanker, scores: FloatArray) -> FloatArray:
    """Scores of the cold items by the regression, not stretched."""
    features = ranker.features.toarray().astype(float)
    known, cold = features[ranker.scorer.items], features[ranker.cold]
    known, cold = known - known.mean(axis=0), cold - known.mean(axis=0)
    scores = scores[:, ranker.scorer.items]
    means = scores.mean(axis=1, keepdims=True)
    weights = np.linalg.solve(known.T @ known + RIDGE * np.eye(known.shape[1]), known.T @ (scores - means).T)
    found: FloatArray = (means + (cold @ weights).T).astype(np.float32)
    return found


def read_data(directories: Sequence[str]) -> Iterator[tuple[str, Data]]:
    """Read the data sets, and turn MovieLens-100K round."""
    for name, _, directory in (given.partition("=") for given in directories):
        prepared = read_prepared(directory)
        interactions, items = prepared.read_interactions(), prepared.items
        items = items.assign(year=pd.to_numeric(items["title"].str.extract(r"\((\d{4})\)$")[0]))
        yield name, Data(interactions, items, "genres")
        users = Path(os.environ.get("RECVAE_DATA", "data")) / "ml-100k" / "u.user"
        if name == "ml-100k" and users.exists():
            columns = ["item_id", "age", "sex", "occupation"]
            people = pd.read_csv(users, sep="|", header=None, names=[*columns, "zip"])[columns]
            turned = {"user_id": interactions.item_idx, "item_id": interactions.user_ids[interactions.user_idx]}
            yield "people of ml-100k", Data(Interactions.from_frame(pd.DataFrame(turned)), people, "occupation")
    made_up = generate()
    if made_up.items is not None:
        titles = made_up.items["title"].str.extract(r"\((\d{4})\)$")[0]
        items = made_up.items.assign(year=pd.to_numeric(titles)).drop(columns="title")
        ratings = made_up.ratings[made_up.ratings["rating"] >= 4]
        yield "made-up", Data(Interactions.from_frame(ratings[["user_id", "item_id"]]), items, "genres")


def write_page(results: Mapping[str, Any], path: Path) -> None:
    """Write the tables as Markdown."""
    lines = [
        "# New items",
        "",
        "A fifth of the items is held out with all interactions; every user with "
        "interactions of both kinds is asked for the cold ones, and only they are ranked. A mapped model scores a cold "
        "item by a ridge regression of the user's scores on the items' features. Features: genres, words of titles, "
        "year; of people, to whom films are recommended the other way round, age, sex and occupation; of made-up "
        "films, taste and year. Settings of EASE with side information were chosen on items held out of training. One "
        f"seed. Made by `{results['provenance']['command']}`.",
    ]
    for name, found in results["data_sets"].items():
        lines += ["", f"## {name}", "", f"{found['n_users']:,} users, {found['n_cold']:,} cold items.", ""]
        lines += [markdown_table(found, METRICS)]
        lines += [
            "",
            f"Lists of {LIST} of known and cold items, where a fifth of the interactions with known items is held out "
            "too:",
            "",
            "| model | scores of cold items | share in lists | precision of cold | of known | of all |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for row in found["beside_known"]:
            new = "" if row["precision_new"] is None else f"{row['precision_new']:.3f}"
            rest = f"{row['precision_known']:.3f} | {row['precision']:.3f}"
            lines.append(f"| {row['model']} | {row['scores']} | {row['share']:.1%} | {new} | {rest} |")
    write_text(path, "\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="prepared data as NAME=DIRECTORY")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"provenance": provenance("python -m benchmarks.cold_items", 0), "data_sets": {}}
    for name, data in read_data(options.data):
        print(name, flush=True)
        results["data_sets"][name] = measure(data)
        write_results(options.out / "cold_items.json", results)
        write_page(results, options.out / "cold_items.md")


if __name__ == "__main__":
    main()
