"""This project as a contestant."""

import numpy as np
from scipy import sparse

from benchmarks.peers.exchange import LIST_LENGTH, Ids, Run, main
from recvae.models.registry import create


def train(run: Run) -> None:
    """Train `model` with the preset and hyperparameters in `params`; layers and batches are those of the preset."""
    settings = run.settings
    params = dict(settings.params)
    preset = params.pop("preset", "paper")
    model = create(settings.model, preset, epochs=settings.epochs, seed=settings.seed, **params)

    def rank(fold_in: sparse.csr_matrix) -> Ids:
        ids, _ = model.recommend(np.arange(fold_in.shape[0]), fold_in, N=LIST_LENGTH)
        return ids

    def epoch_done(*report: float) -> None:
        _, seconds, _ = report
        run.epoch_done(rank, seconds)

    run.start()
    model.fit(run.task.train, show_progress=False, callback=epoch_done)


if __name__ == "__main__":
    main(train, "recvae", "torch", "numpy", "scipy")
