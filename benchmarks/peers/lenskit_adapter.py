"""LensKit's EASE as a contestant: what counts as an epoch is a fit."""

import numpy as np
import pandas as pd
from lenskit.data import from_interactions_df
from lenskit.knn.ease import EASEScorer
from lenskit.training import TrainingOptions
from scipy import sparse

from benchmarks.peers.exchange import Ids, Run, best, main


def train(run: Run) -> None:
    """Fit as often as there are epochs."""
    matrix = run.task.train.tocoo()
    data = from_interactions_df(pd.DataFrame({"user_id": matrix.row, "item_id": matrix.col}))
    scorer = EASEScorer(**run.settings.params)

    def rank(fold_in: sparse.csr_matrix) -> Ids:
        return best(np.asarray(fold_in @ scorer.weights), fold_in)

    run.start()
    for _ in range(run.settings.epochs):
        scorer.train(data, TrainingOptions(rng=run.settings.seed, retrain=True))
        run.epoch_done(rank)


if __name__ == "__main__":
    main(train, "lenskit", "torch", "numpy", "scipy")
