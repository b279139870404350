"""irspack's EDLAE, iALS, RP3beta, SLIM, item neighbours and Mult-VAE, tuned by its own tuner (Optuna) in its ranges."""

import numpy as np
import numpy.typing as npt
from irspack import recommenders
from irspack.evaluation import Evaluator
from irspack.recommenders.multvae import MultVAERecommender
from scipy import sparse

from benchmarks.peers.tuning import K, Params, Score, Search, main

MODELS = {
    "EDLAE": recommenders.EDLAERecommender,  # EASE with dropout
    "iALS": recommenders.IALSRecommender,
    "RP3beta": recommenders.RP3betaRecommender,
    "cosine": recommenders.CosineKNNRecommender,
    "SLIM": recommenders.SLIMRecommender,
    "Mult-VAE": MultVAERecommender,
}
FOR_TUNING = 0.9  # of the time; the rest is for fitting each model's best again
MOST_TRIALS = 1000


def fit(model: str, params: Params, matrix: sparse.csr_matrix) -> Score:
    """Fit a model."""
    fitted = MODELS[model](matrix, **params).learn()

    def score(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        return np.asarray(fitted.get_score(rows), dtype=np.float32)

    return score


def search(searching: Search, seed: int) -> None:
    """Let irspack tune each model for an equal share of the time, and note the best of each."""
    matrix, rows = searching.matrix, searching.rows
    held_out = searching.inputs.held_out.tocoo()
    wanted = sparse.csr_matrix((held_out.data, (rows[held_out.row], held_out.col)), shape=matrix.shape)
    evaluator = Evaluator(wanted, cutoff=K, target_metric="ndcg", masked_interactions=matrix)
    share = searching.seconds * FOR_TUNING / len(MODELS)
    best: dict[str, Params] = {}
    for name, kind in MODELS.items():
        seconds = min(share, searching.left)
        if seconds < 1:
            break
        try:
            best[name], tried = kind.tune(
                matrix, evaluator, n_trials=MOST_TRIALS, timeout=int(seconds), tuning_random_seed=seed, validate_epoch=2
            )
            print(f"{name}: {len(tried)} trials in {seconds:.0f} s", flush=True)
        except Exception as error:  # noqa: BLE001 - a model that cannot be tuned here is left out
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
    for name, params in best.items():
        searching.attempt(name, params, limited=False)


if __name__ == "__main__":
    main(fit, search, "irspack", "optuna", "jax", "numpy", "scipy")
