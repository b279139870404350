"""Mult-DAE: D. Liang, R. Krishnan, M. Hoffman, T. Jebara, "Variational Autoencoders for Collaborative Filtering", WWW
2018, and the authors' notebook (repository dawenl/vae_cf).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from recvae.models import hyperparameters as check
from recvae.models.autoencoders.architecture import Architecture
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.nn.batches import Batch
from recvae.nn.sampling import drop_out


class MultDAE(Autoencoder):
    """Denoising autoencoder with a multinomial likelihood: Mult-VAE without noise and KL, with weight decay instead.

    Loss: −Σ_i x_i log softmax(f(g(x)))_i as a mean over users, + λ·Σ‖W‖² over all weight matrices.

    Preset "paper" (the constructor's defaults) is the publication's model; in "recommended" the data decide dropout,
    batches and epochs.

    Parameters
    ----------
    hidden : int or sequence of int
        Hidden layer sizes between the items and the code; the decoder mirrors them.
    latent : int
        Size of the code, which goes through tanh.
    l2 : float
        λ; the notebook's 0.01 / 500.

    The others are those of `MultVAE`.
    """

    SPACE: ClassVar[SearchSpace] = {
        "l2": RealRange(1e-7, 1e-3),
        "dropout": RealRange(0.2, 0.8, log=False),
        "latent": WholeRange(64, 600),
        "learning_rate": RealRange(2e-4, 4e-3),
        "batch_size": WholeRange(50, 500),
    }
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "recommended": {"dropout": None, "epochs": None, "batch_size": None, "precision": "auto"},
    }

    def __init__(
        self,
        hidden: int | Sequence[int] = (),
        latent: int = 200,
        dropout: float | None = 0.5,
        l2: float = 0.01 / 500,
        epochs: int | None = 200,
        batch_size: int | None = 500,
        learning_rate: float = 1e-3,
        patience: int | None = None,
        metric: str = "ndcg@100",
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
    ) -> None:
        super().__init__(epochs, batch_size, learning_rate, patience, metric, seed, device, precision)
        self.hidden = check.sizes("hidden", hidden)
        self.latent = check.whole("latent", latent, maximum=check.LARGEST_LAYER)
        self.dropout = None if dropout is None else check.real("dropout", dropout, 0.0, 0.99)
        self.l2 = check.real("l2", l2)

    def _architecture(self, n_items: int) -> Architecture:
        return Architecture("plain", self.hidden, self.latent, variational=False)

    def _loss(
        self, batch: Batch, users: slice, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = drop_out(batch.normalise(), self._setting("dropout"), generator)
        code = torch.tanh(self.module_.encoder(inputs[users]))
        nll = self.module_.nll(code, batch[users])
        weights = [p for p in self.module_.parameters() if p.ndim == 2]
        penalty = self.l2 * torch.stack([w.square().sum() for w in weights]).sum()
        return nll + penalty, {"nll": nll.detach(), "l2": penalty.detach()}

    def _code(self, batch: Batch) -> Tensor:
        return torch.tanh(self.module_.encoder(batch.normalise()))
