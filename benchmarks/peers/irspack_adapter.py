"""irspack's MultVAE (JAX) as a contestant."""

import jax
import numpy as np
from irspack.recommenders.multvae import MultVAERecommender
from scipy import sparse

from benchmarks.peers.exchange import Ids, Run, best, main


def train(run: Run) -> None:
    """Train for the given epochs; each ends when JAX has finished what was asked of it."""
    settings = run.settings
    np.random.seed(settings.seed)  # noqa: NPY002 what irspack shuffles with
    model = MultVAERecommender(
        run.task.train,
        dim_z=settings.latent,
        enc_hidden_dims=settings.hidden,
        minibatch_size=settings.batch_size,
        **settings.params,
    )

    def rank(fold_in: sparse.csr_matrix) -> Ids:
        return best(model.get_score_cold_user(fold_in), fold_in)

    run.start()
    model.start_learning()
    for _ in range(settings.epochs):
        model.run_epoch()
        jax.block_until_ready(model.trainer.params)
        run.epoch_done(rank)


if __name__ == "__main__":
    main(train, "irspack", "jax", "jaxlib", "dm-haiku", "optax", "numpy", "scipy")
