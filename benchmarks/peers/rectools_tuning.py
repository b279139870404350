"""RecTools' EASE, iALS, item neighbours and PureSVD, tuned by a random search in stated ranges."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import EASEModel, ImplicitALSWrapperModel, ImplicitItemKNNWrapperModel, PureSVDModel
from scipy import sparse

from benchmarks.peers.tuning import Params, Score, Space, at_random, main

SPACES: dict[str, Space] = {
    "EASE": {"regularization": (1.0, 5000.0, "log")},
    "iALS": {
        "factors": (32, 512, "whole log"),
        "regularization": (0.01, 300.0, "log"),
        "alpha": (0.5, 100.0, "log"),
        "iterations": (5, 25, "whole"),
    },
    "BM25": {"K": (10, 500, "whole log"), "K1": (0.5, 200.0, "log"), "B": (0.0, 1.0, "linear")},
    "TF-IDF": {"K": (10, 500, "whole log")},
    "cosine": {"K": (10, 500, "whole log")},
    "PureSVD": {"factors": (8, 512, "whole log")},
}
DEFAULTS: dict[str, Params] = {
    "EASE": {"regularization": 500.0},
    "iALS": {"factors": 128, "regularization": 1.0, "alpha": 10.0, "iterations": 15},
    "BM25": {"K": 20, "K1": 1.2, "B": 0.75},
}


def create(model: str, params: Params) -> Any:
    """Create a model of RecTools."""
    if model == "EASE":
        return EASEModel(regularization=params["regularization"])
    if model == "PureSVD":
        return PureSVDModel(factors=params["factors"])
    if model == "iALS":
        return ImplicitALSWrapperModel(AlternatingLeastSquares(**params, random_state=0))
    kinds = {"BM25": BM25Recommender, "TF-IDF": TFIDFRecommender, "cosine": CosineRecommender}
    return ImplicitItemKNNWrapperModel(kinds[model](**params))


def fit(model: str, params: Params, matrix: sparse.csr_matrix) -> Score:
    """Fit a model; RecTools makes lists, which become scores by their ranks."""
    interactions = matrix.tocoo()
    table = pd.DataFrame({Columns.User: interactions.row, Columns.Item: interactions.col})
    table[Columns.Weight], table[Columns.Datetime] = 1.0, pd.Timestamp("2000-01-01")
    dataset = Dataset.construct(table)
    fitted = create(model, params).fit(dataset)

    def score(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        found = fitted.recommend(users=rows, dataset=dataset, k=100, filter_viewed=True)
        scores = np.full((len(rows), matrix.shape[1]), -np.inf, dtype=np.float32)
        place = pd.Series(np.arange(len(rows)), index=rows)
        users = place[found[Columns.User].to_numpy()].to_numpy()
        scores[users, found[Columns.Item].to_numpy()] = -found[Columns.Rank].to_numpy()
        return scores

    return score


if __name__ == "__main__":
    main(fit, at_random(SPACES, DEFAULTS), "rectools", "pm-implicit", "numpy", "scipy")
