"""Cornac's VAECF as a contestant."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from cornac.data import Dataset
from cornac.models import VAECF
from scipy import sparse

from benchmarks.peers.exchange import Ids, Run, best, main


def make_dataset(matrix: sparse.csr_matrix, seed: int) -> Dataset:
    """The interactions in Cornac's form, with rows and columns as ids."""
    interactions = matrix.tocoo()
    n_users, n_items = matrix.shape
    return Dataset(
        n_users,
        n_items,
        uid_map=OrderedDict(zip(range(n_users), range(n_users), strict=True)),
        iid_map=OrderedDict(zip(range(n_items), range(n_items), strict=True)),
        uir_tuple=(interactions.row, interactions.col, interactions.data),
        seed=seed,
    )


def train(run: Run) -> None:
    """Train for the given epochs; one ends when the last batch of users has been taken."""
    settings = run.settings
    data = make_dataset(run.task.train, settings.seed)
    model = VAECF(
        k=settings.latent,
        autoencoder_structure=[settings.hidden],
        n_epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        **settings.params,
    )

    def rank(fold_in: sparse.csr_matrix) -> Ids:  # its own `score` knows training users only
        with torch.no_grad():
            mu, _ = model.vae.encode(torch.from_numpy(fold_in.toarray()))
            return best(model.vae.decode(mu).numpy(), fold_in)

    def user_iter(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield from batches(*arguments, **options)
        run.epoch_done(rank)

    batches, data.user_iter = data.user_iter, user_iter
    run.start()
    model.fit(data)


if __name__ == "__main__":
    main(train, "cornac", "torch", "numpy", "scipy")
