"""Mult-VAE and Mult-DAE: D. Liang, R. Krishnan, M. Hoffman, T. Jebara, "Variational Autoencoders for Collaborative
Filtering", WWW 2018, and the authors' notebook (repository dawenl/vae_cf).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recvae.models import parameters as check
from recvae.models.neural import Autoencoder
from recvae.nn import (
    Rows,
    SparseLinear,
    annealed_beta,
    dropout,
    kl_to_standard_normal,
    linear,
    multinomial_nll,
    truncated_normal_,
    xavier_uniform_,
)

BIAS_STD = 0.001


class MultVAENet(nn.Module):
    """items → hidden … → (mu, logvar) and z → … hidden → items; tanh between layers, none on mu, logvar or logits.

    Parameters
    ----------
    n_items : int
    hidden : sequence of int
        Sizes of the encoder's hidden layers; the decoder mirrors them.
    code : int
        Size of the encoder's output: 2·latent for a VAE, latent for a DAE.
    latent : int
        Size of the decoder's input.
    """

    def __init__(self, n_items: int, hidden: Sequence[int], code: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        down = [*hidden, code]
        up = [latent, *reversed(hidden)]
        self.input = SparseLinear(n_items, down[0])
        self.encoder = nn.ModuleList(linear(a, b) for a, b in pairwise(down))
        self.decoder = nn.ModuleList(linear(a, b) for a, b in pairwise(up))
        self.output = linear(up[-1], n_items)
        for layer in (self.input, *self.encoder, *self.decoder, self.output):
            xavier_uniform_(layer.weight, generator)
            truncated_normal_(layer.bias, BIAS_STD, generator)

    def encode(self, rows: Rows, values: Tensor) -> Tensor:
        """(n_plays,) input values → (batch, code)."""
        h: Tensor = self.input(rows, values)
        for layer in self.encoder:
            h = layer(torch.tanh(h))
        return h

    def decode(self, z: Tensor) -> Tensor:
        """(batch, latent) → (batch, size of the last hidden layer), what the output layer multiplies."""
        for layer in self.decoder:
            z = torch.tanh(layer(z))
        return z

    def nll(self, z: Tensor, rows: Rows) -> Tensor:
        """Mean negative multinomial log-likelihood of the batch, given z."""
        return multinomial_nll(self.decode(z), self.output.weight, self.output.bias, rows) / len(rows)


class MultVAE(Autoencoder):
    """Variational autoencoder with a multinomial likelihood and annealed KL.

    Loss, a mean over users: −Σ_i x_i log softmax(f(z))_i + β·KL(q(z|x) ‖ N(0, I)), equation 6, with the plays
    L2-normalised and dropped out on their way in, and β = min(anneal_cap, step / total_anneal_steps). At
    evaluation z is the posterior mean.

    Parameters
    ----------
    hidden : int or sequence of int
        Hidden layer sizes of the encoder; the decoder mirrors them.
    latent : int
        Size of z.
    dropout : float
        Share of a user's plays left out of the input in training.
    anneal_cap : float
        Largest β. The paper finds the best by annealing to 1 and keeping the β of the best validation epoch.
    total_anneal_steps : int
        Updates in which β would reach 1; 0 keeps it at the cap throughout.
    epochs, batch_size : int
        Passes over the users, and users an update.
    learning_rate : float
        Adam's step size.
    patience : int
        Stop after so many epochs without a better validation metric; 0 trains all epochs.
    metric : str
        What the best epoch is chosen by, where validation users are given.
    seed : int
        Decides weights, order of users, dropout and noise; same seed and machine, same model bit for bit.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "recommended": {}}

    module_: MultVAENet

    def __init__(
        self,
        hidden: int | Sequence[int] = (600,),
        latent: int = 200,
        dropout: float = 0.5,
        anneal_cap: float = 0.2,
        total_anneal_steps: int = 200_000,
        epochs: int = 200,
        batch_size: int = 500,
        learning_rate: float = 1e-3,
        patience: int = 0,
        metric: str = "ndcg@100",
        seed: int = 0,
    ) -> None:
        super().__init__(epochs, batch_size, learning_rate, patience, metric, seed)
        self.hidden = check.sizes("hidden", hidden)
        self.latent = check.whole("latent", latent)
        self.dropout = check.real("dropout", dropout, 0.0, 0.99)
        self.anneal_cap = check.real("anneal_cap", anneal_cap)
        self.total_anneal_steps = check.whole("total_anneal_steps", total_anneal_steps, minimum=0)

    def _build(self, n_items: int, generator: torch.Generator) -> MultVAENet:
        return MultVAENet(n_items, self.hidden, 2 * self.latent, self.latent, generator)

    def _loss(
        self, module: MultVAENet, rows: Rows, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        values = dropout(rows.normalised(), self.dropout, generator)
        mu, logvar = module.encode(rows, values).chunk(2, dim=1)  # (batch, latent) each
        z = mu + torch.randn(mu.shape, generator=generator) * torch.exp(0.5 * logvar)
        nll = module.nll(z, rows)
        kl = kl_to_standard_normal(mu, logvar).mean()
        beta = annealed_beta(step, self.anneal_cap, self.total_anneal_steps)
        return nll + beta * kl, {"nll": nll.item(), "kl": kl.item(), "beta": beta}

    def _logits(self, module: MultVAENet, rows: Rows) -> Tensor:
        mu, _ = module.encode(rows, rows.normalised()).chunk(2, dim=1)
        logits: Tensor = module.output(module.decode(mu))
        return logits


class MultDAE(Autoencoder):
    """Denoising autoencoder with a multinomial likelihood: Mult-VAE without noise and KL, with weight decay instead.

    Loss: −Σ_i x_i log softmax(f(g(x)))_i as a mean over users, + λ·Σ‖W‖² over all weight matrices.

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

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "recommended": {}}

    module_: MultVAENet

    def __init__(
        self,
        hidden: int | Sequence[int] = (),
        latent: int = 200,
        dropout: float = 0.5,
        l2: float = 0.01 / 500,
        epochs: int = 200,
        batch_size: int = 500,
        learning_rate: float = 1e-3,
        patience: int = 0,
        metric: str = "ndcg@100",
        seed: int = 0,
    ) -> None:
        super().__init__(epochs, batch_size, learning_rate, patience, metric, seed)
        self.hidden = check.sizes("hidden", hidden)
        self.latent = check.whole("latent", latent)
        self.dropout = check.real("dropout", dropout, 0.0, 0.99)
        self.l2 = check.real("l2", l2)

    def _build(self, n_items: int, generator: torch.Generator) -> MultVAENet:
        return MultVAENet(n_items, self.hidden, self.latent, self.latent, generator)

    def _loss(
        self, module: MultVAENet, rows: Rows, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        del step
        code = torch.tanh(module.encode(rows, dropout(rows.normalised(), self.dropout, generator)))
        nll = module.nll(code, rows)
        weights = [p for p in module.parameters() if p.ndim == 2]
        penalty = self.l2 * torch.stack([w.square().sum() for w in weights]).sum()
        return nll + penalty, {"nll": nll.item(), "l2": penalty.item()}

    def _logits(self, module: MultVAENet, rows: Rows) -> Tensor:
        code = torch.tanh(module.encode(rows, rows.normalised()))
        logits: Tensor = module.output(module.decode(code))
        return logits
