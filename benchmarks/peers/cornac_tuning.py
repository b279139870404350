"""Cornac's EASE, VAECF and BPR, tuned by a random search in stated ranges.

Its item neighbours predict ratings: on interactions that all count 1 every item gets the same score.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from cornac.models import BPR, EASE, VAECF
from scipy import sparse

from benchmarks.peers.cornac_adapter import make_dataset
from benchmarks.peers.tuning import Params, Score, Space, at_random, main

SPACES: dict[str, Space] = {
    "EASE": {"lamb": (1.0, 5000.0, "log")},
    "VAECF": {
        "k": (20, 300, "whole log"),
        "hidden": (100, 800, "whole log"),
        "n_epochs": (20, 200, "whole log"),
        "batch_size": (50, 500, "whole log"),
        "beta": (0.01, 1.0, "log"),
    },
    "BPR": {
        "k": (20, 300, "whole log"),
        "max_iter": (50, 500, "whole log"),
        "learning_rate": (0.003, 0.1, "log"),
        "lambda_reg": (1e-4, 0.1, "log"),
    },
}
DEFAULTS: dict[str, Params] = {"EASE": {"lamb": 500.0}}


def create(model: str, params: Params) -> Any:
    """Create a model of Cornac."""
    if model == "EASE":
        return EASE(posB=False, verbose=False, **params)
    if model == "VAECF":
        others = {name: value for name, value in params.items() if name != "hidden"}
        return VAECF(autoencoder_structure=[params["hidden"]], seed=0, verbose=False, likelihood="mult", **others)
    return BPR(seed=0, verbose=False, **params)


def fit(model: str, params: Params, matrix: sparse.csr_matrix) -> Score:
    """Fit a model, which knows the users that it is fitted on."""
    fitted = create(model, params).fit(make_dataset(matrix, 0))

    def score(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        # EASE gives a matrix of one row, the others an array.
        return np.stack([np.asarray(fitted.score(int(row)), dtype=np.float32).ravel() for row in rows])

    return score


if __name__ == "__main__":
    main(fit, at_random(SPACES, DEFAULTS), "cornac", "torch", "numpy", "scipy")
