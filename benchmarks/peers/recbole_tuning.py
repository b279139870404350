"""RecBole's EASE, SLIM, item neighbours, MultiVAE and RecVAE, tuned by a random search in stated ranges.

The autoencoders' layers are those of RecBole. Its graph models train for hours on a processor and are not tried.
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from recbole.data import create_dataset
from recbole.data.interaction import Interaction
from recbole.data.utils import get_dataloader
from recbole.utils import get_model, init_seed
from scipy import sparse

from benchmarks.peers.recbole_adapter import find_columns, make_config, make_trainer, write_interactions
from benchmarks.peers.tuning import Params, Score, Space, at_random, main

TRAINED: Space = {
    "epochs": (10, 200, "whole log"),
    "train_batch_size": (50, 2000, "whole log"),
    "learning_rate": (1e-4, 1e-2, "log"),
    "dropout_prob": (0.2, 0.8, "linear"),
}
SPACES: dict[str, Space] = {
    "EASE": {"reg_weight": (1.0, 5000.0, "log")},
    "SLIMElastic": {"alpha": (1e-3, 1.0, "log"), "l1_ratio": (1e-3, 0.5, "log")},
    "ItemKNN": {"k": (10, 500, "whole log"), "shrink": (0.0, 100.0, "linear")},
    "MultiVAE": {**TRAINED, "latent": (32, 300, "whole log"), "anneal_cap": (0.01, 1.0, "log")},
    "RecVAE": {**TRAINED, "latent_dimension": (64, 400, "whole log"), "gamma": (0.001, 0.05, "log")},
}
DEFAULTS: dict[str, Params] = {"EASE": {"reg_weight": 250.0}, "ItemKNN": {"k": 100, "shrink": 0.0}}


def fit(model: str, params: Params, matrix: sparse.csr_matrix) -> Score:
    """Fit a model, which knows the users that it is fitted on."""
    with tempfile.TemporaryDirectory() as scratch:
        write_interactions(matrix, Path(scratch))
        settings = {name: value for name, value in params.items() if name not in ("epochs", "latent")}
        if "latent" in params:
            settings["latent_dimension"] = 2 * params["latent"]  # it counts mu and logvar together
        config = make_config(model, Path(scratch), seed=0, **settings)
        init_seed(config["seed"], True)
        dataset = create_dataset(config).build()[0]
        fitted = get_model(config["model"])(config, dataset)  # without epochs this is all
        if "epochs" in params:
            loader = get_dataloader(config, "train")(config, dataset, None, shuffle=True)
            trainer = make_trainer(config, fitted, Path(scratch))
            for epoch in range(int(params["epochs"])):
                trainer._train_epoch(loader, epoch)
    known, column = find_columns(dataset, matrix)
    fitted.eval()

    def score(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        users = torch.from_numpy(np.asarray(dataset.token2id(dataset.uid_field, rows.astype(str))))
        with torch.no_grad():
            given = fitted.full_sort_predict(Interaction({dataset.uid_field: users})).numpy()
        scores = np.full((len(rows), matrix.shape[1]), -np.inf, dtype=np.float32)
        scores[:, known] = given.reshape(len(rows), -1)[:, column]
        return scores

    return score


if __name__ == "__main__":
    main(fit, at_random(SPACES, DEFAULTS), "recbole", "torch", "numpy", "scipy")
