"""LensKit's implicit ALS, EASE and item neighbours, tuned by a random search in stated ranges."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from lenskit.als import ImplicitMFScorer
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.knn import ItemKNNScorer
from lenskit.knn.ease import EASEScorer
from lenskit.training import TrainingOptions
from scipy import sparse

from benchmarks.peers.tuning import Params, Score, Space, at_random, main

SPACES: dict[str, Space] = {
    "EASE": {"regularization": (1.0, 5000.0, "log")},
    "ALS": {
        "embedding_size": (16, 512, "whole log"),
        "regularization": (0.01, 300.0, "log"),
        "weight": (0.5, 100.0, "log"),
        "epochs": (5, 25, "whole"),
    },
    "neighbours": {"max_nbrs": (5, 500, "whole log"), "min_sim": (1e-6, 0.1, "log")},
}
DEFAULTS: dict[str, Params] = {"EASE": {"regularization": 500.0}, "ALS": {}, "neighbours": {"max_nbrs": 20}}


def create(model: str, params: Params) -> Any:
    """Create a scorer of LensKit."""
    if model == "EASE":
        return EASEScorer(**params)
    if model == "ALS":
        return ImplicitMFScorer(**params)
    return ItemKNNScorer(feedback="implicit", **params)


def fit(model: str, params: Params, matrix: sparse.csr_matrix) -> Score:
    """Fit a model; a user's scores are asked for with the user's history, as its pipelines do."""
    interactions = matrix.tocoo()
    table = pd.DataFrame({"user_id": interactions.row, "item_id": interactions.col})
    items = np.arange(matrix.shape[1])
    scorer = create(model, params)
    scorer.train(from_interactions_df(table), TrainingOptions(rng=0))
    everything = ItemList(item_ids=items)

    def score(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        scores = np.full((len(rows), len(items)), -np.inf, dtype=np.float32)
        for place, row in enumerate(rows):
            history = ItemList(item_ids=matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]])
            found = scorer(query=RecQuery(user_id=row, history_items=history), items=everything)
            scores[place] = np.nan_to_num(np.asarray(found.scores()), nan=-np.inf)
        return scores

    return score


if __name__ == "__main__":
    main(fit, at_random(SPACES, DEFAULTS), "lenskit", "numpy", "scipy")
