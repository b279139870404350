"""RecPack's MultVAE and RecVAE as contestants."""

from typing import Any

import torch
from recpack.algorithms import MultVAE, RecVAE
from scipy import sparse

from benchmarks.peers.exchange import Ids, Run, best, main

MODELS: dict[str, Any] = {"multvae": MultVAE, "recvae": RecVAE}


def train(run: Run) -> None:
    """Train for the given epochs, without RecPack's own evaluation after each."""
    settings = run.settings
    base = MODELS[settings.model]

    class Timed(base):  # type: ignore[misc, valid-type]
        def _train_epoch(self, train_data: Any) -> Any:
            losses = super()._train_epoch(train_data)
            run.epoch_done(rank)
            return losses

        def _evaluate(self, *validation: Any) -> None:
            """Nothing to choose by."""

    def rank(fold_in: sparse.csr_matrix) -> Ids:
        model.model_.eval()
        with torch.no_grad():
            logits, *_ = model.model_(torch.from_numpy(fold_in.toarray()))
        model.model_.train()
        return best(logits.numpy(), fold_in)

    model = Timed(
        batch_size=settings.batch_size,
        max_epochs=settings.epochs,
        dim_hidden_layer=settings.hidden,
        dim_bottleneck_layer=settings.latent,
        seed=settings.seed,
        keep_last=True,  # without it `fit` ends in an error of torch.load
        **settings.params,
    )
    run.start()
    model.fit(run.task.train, (run.task.train, run.task.train))


if __name__ == "__main__":
    main(train, "recpack", "torch", "numpy", "scipy")
