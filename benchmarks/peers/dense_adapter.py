"""The dense reference as a contestant."""

from scipy import sparse

from benchmarks.dense import DenseTraining
from benchmarks.peers.exchange import Ids, Run, best, main


def train(run: Run) -> None:
    """Train for the given epochs."""
    settings = run.settings
    run.start()
    training = DenseTraining(
        run.task.train, settings.batch_size, settings.hidden, settings.latent, settings.seed, **settings.params
    )

    def rank(fold_in: sparse.csr_matrix) -> Ids:
        return best(training.scores(fold_in).numpy(), fold_in)

    for _ in range(settings.epochs):
        training.epoch()
        run.epoch_done(rank)


if __name__ == "__main__":
    main(train, "torch", "numpy", "scipy")
