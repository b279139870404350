"""Mult-VAE and Mult-DAE: D. Liang, R. Krishnan, M. Hoffman, T. Jebara, "Variational Autoencoders for Collaborative
Filtering", WWW 2018, and the authors' notebook (repository dawenl/vae_cf).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from scipy import sparse
from torch import Tensor

from recvae.errors import ParameterError
from recvae.models import hyperparameters as check
from recvae.models.autoencoders.base import PARALLEL, Autoencoder
from recvae.models.autoencoders.network import AutoencoderNet
from recvae.models.autoencoders.variational import VariationalAutoencoder
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.nn.batches import Rows
from recvae.nn.layers import (
    DenseEncoder,
    Negatives,
    PlainEncoder,
    dropout,
    kl_to_standard_normal,
    sampled,
)
from recvae.nn.likelihood import LIKELIHOODS
from recvae.nn.sharding import ItemShard
from recvae.nn.spectrum import item_vectors
from recvae.training.optimizers import Adam, Optimizer, RowAdam
from recvae.training.schedules import SCHEDULES, annealed_beta

INPUT_SCALE = 4.0  # of the random weights' norm, where a layer starts from singular vectors


class MultVAE(VariationalAutoencoder):
    """Variational autoencoder of whole histories.

    Loss, a mean over users: −log p(x|f(z)) + β·KL(q(z|x) ‖ N(0, I)), equation 6, with the interactions L2-normalised
    and dropped out on their way in. β is annealed, min(anneal_cap, step / total_anneal_steps), or with `gamma` grows
    with the user's interactions, γ·|x|. At evaluation z is the posterior mean.

    Preset "paper" (the constructor's defaults) is the publication's model. "recommended" takes RecVAE's encoder, a
    linear decoder, γ·|x| and a one-cycle learning rate: RecVAE without its alternation and composite prior. "fast"
    starts it from singular vectors and trains for 15 epochs.

    Parameters
    ----------
    hidden : int or sequence of int
        Hidden layer sizes of the encoder; all the same for a dense one.
    latent : int, optional
        Size of z. None takes a hundredth of the number of items, from 200 to 400.
    encoder : "plain" or "dense"
        "plain": tanh layers, and a decoder that mirrors them. "dense": RecVAE's, where each layer sees the sum of
        all before it, with swish and LayerNorm, and a linear decoder; deep ones train well only so.
    initial : "random" or "spectral"
        Where the first layer, and a linear decoder, start: at random, or at the leading singular vectors of the
        normalised matrix of interactions (see `recvae.nn.spectrum`), from which few epochs are enough.
    dropout : float
        Share of a user's interactions left out of the input in training.
    likelihood : "multinomial", "logistic" or "gaussian"
        How interactions are explained. Multinomial: items compete for a user's interactions, which suits ranking best
        (the paper's table 4). Logistic: each item is a yes or no, for scores that are to be read as probabilities.
        Gaussian: squared error.
    gamma : float, optional
        KL weight for each interaction of the user, instead of annealing (Shenbin et al. 2020, section 3.4). Best where
        histories differ much in length.
    anneal_cap : float
        Largest β. The paper finds the best by annealing to 1 and keeping the β of the best validation epoch.
    total_anneal_steps : int
        Updates in which β would reach 1; 0 keeps it at the cap throughout.
    epochs, batch_size : int, optional
        Passes over the users, and users an update. None takes what fits the number of training users: batches of a
        fortieth of them, from 125 to 500, and 20 to 100 epochs, in which about 900,000 histories are seen.
    learning_rate : float
        Adam's step size, at its peak.
    schedule : str
        How the learning rate moves; see `recvae.training.schedules.scheduled`.
    patience : int
        Stop after so many epochs without a better validation metric; 0 trains all epochs.
    metric : str
        What the best epoch is chosen by, where validation users are given.
    seed : int
        Decides weights, order of users, dropout and noise; same seed and machine, same model bit for bit.
    device : str
        "cpu", "cuda", "cuda:1", …; "auto" is the GPU where there is one.
    precision : "float32", "bfloat16" or "auto"
        Of matrix products in training; see `recvae.nn.device.multiplying`.
    parallel : "users" or "items"
        What several processes divide among themselves: the users of each batch, where each process holds the whole
        network; or the items of the first and the last layer, for catalogues too large for that (see
        `recvae.nn.sharding`), where all must score together until `fit` is done. The outcome is the same, and a process
        alone has all of both.
    n_negatives : int, optional
        For catalogues of hundreds of thousands of items: estimate the multinomial likelihood on so many items drawn
        for each batch, and update only the rows of items that the batch touches, so that an update costs the same
        whatever the catalogue's size. None takes all items, exactly.
    negatives : "popularity" or "uniform"
        How these items are drawn: in proportion to their interactions, which needs fewer of them, or all alike.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "recommended": {
            "hidden": (600,) * 5,
            "latent": None,
            "encoder": "dense",
            "gamma": 0.003,
            "epochs": None,
            "batch_size": None,
            "schedule": "one-cycle",
            "precision": "auto",
        },
    }
    PRESETS["fast"] = PRESETS["recommended"] | {"initial": "spectral", "epochs": 15}

    def __init__(
        self,
        hidden: int | Sequence[int] = (600,),
        latent: int | None = 200,
        encoder: str = "plain",
        initial: str = "random",
        dropout: float = 0.5,
        likelihood: str = "multinomial",
        gamma: float | None = None,
        anneal_cap: float = 0.2,
        total_anneal_steps: int = 200_000,
        epochs: int | None = 200,
        batch_size: int | None = 500,
        learning_rate: float = 1e-3,
        schedule: str = "constant",
        patience: int = 0,
        metric: str = "ndcg@100",
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
        parallel: str = "users",
        n_negatives: int | None = None,
        negatives: str = "popularity",
    ) -> None:
        super().__init__(epochs, batch_size, learning_rate, patience, metric, seed, device, precision)
        self.encoder = check.one_of("encoder", encoder, ("plain", "dense"))
        self.initial = check.one_of("initial", initial, ("random", "spectral"))
        self.hidden = (check.equal_sizes if encoder == "dense" else check.sizes)("hidden", hidden)
        self.latent = None if latent is None else check.whole("latent", latent, maximum=check.LARGEST_LAYER)
        self.dropout = check.real("dropout", dropout, 0.0, 0.99)
        self.likelihood = check.one_of("likelihood", likelihood, tuple(LIKELIHOODS))
        self.gamma = None if gamma is None else check.real("gamma", gamma)
        self.anneal_cap = check.real("anneal_cap", anneal_cap)
        self.total_anneal_steps = check.whole("total_anneal_steps", total_anneal_steps, minimum=0)
        self.schedule = check.one_of("schedule", schedule, SCHEDULES)
        self.n_negatives = None if n_negatives is None else check.whole("n_negatives", n_negatives)
        self.negatives = check.one_of("negatives", negatives, ("popularity", "uniform"))
        if n_negatives is not None and likelihood != "multinomial":
            raise ParameterError(
                f"n_negatives is {n_negatives}, but likelihood is {likelihood!r}; expected multinomial"
            )
        self.parallel = check.one_of("parallel", parallel, PARALLEL)
        if parallel == "items" and n_negatives is not None:
            raise ParameterError(f"n_negatives is {n_negatives}, but parallel is 'items'; expected 'users'")
        if parallel == "items" and initial == "spectral":
            raise ParameterError("initial is 'spectral', but parallel is 'items'; expected 'users'")

    def _build(self, shard: ItemShard, generator: torch.Generator) -> AutoencoderNet:
        latent = self._latent(shard.total)
        if self.encoder == "dense":
            dense = DenseEncoder(shard, self.hidden[0], len(self.hidden), 2 * latent, generator)
            return AutoencoderNet(dense, latent, (), shard, generator)
        plain = PlainEncoder(shard, self.hidden, 2 * latent, generator)
        return AutoencoderNet(plain, latent, self.hidden[::-1], shard, generator)

    def _begin(self, module: AutoencoderNet, user_items: sparse.csr_matrix, generator: torch.Generator) -> None:
        if self.initial == "random":
            return
        vectors = item_vectors(user_items, module.encoder.input.weight.shape[1], generator)
        _start(module.encoder.input.weight, vectors, INPUT_SCALE)
        if not module.decoder:
            _start(module.output.weight, vectors, 1.0)

    def _latent(self, n_items: int) -> int:
        return self.latent or max(200, min(400, n_items // 100))

    def fitted_params(self) -> dict[str, Any]:
        latent = self._latent(self.n_items_) if hasattr(self, "item_counts_") else self.latent
        return {**super().fitted_params(), "latent": latent}

    def _optimizers(self, module: AutoencoderNet) -> Sequence[Optimizer]:
        if self.n_negatives is None:
            return super()._optimizers(module)
        module.encoder.input.sparse_gradient = True
        by_row = [layer.get_parameter("weight") for layer in (module.encoder.input, module.output)]
        rest = [p for p in module.parameters() if all(p is not row for row in by_row)]
        counts = torch.from_numpy(self.item_counts_).to(module.output.weight.device)
        self._drawn = Negatives(
            self.n_negatives, counts.clamp(min=1) if self.negatives == "popularity" else counts * 0 + 1
        )
        return [RowAdam(by_row, self.learning_rate), Adam(rest, self.learning_rate)]

    def _loss(
        self, module: AutoencoderNet, rows: Rows, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        values = dropout(rows.normalised(), self.dropout, generator, rows.of_interactions)
        mu, logvar = module.encoder(rows, values).chunk(2, dim=1)  # (batch, latent) each
        z = sampled(mu, logvar, generator, rows.of_users)
        if self.n_negatives is None:
            nll = module.nll(z, rows, self.likelihood)
        else:
            nll = module.sampled_nll(z, rows, *self._drawn.draw(generator))
        kl = kl_to_standard_normal(mu, logvar)  # (batch,)
        beta = self._beta(rows, step)  # (batch,)
        parts = {"nll": nll.detach(), "kl": kl.detach().mean(), "beta": beta.mean()}
        return nll + (beta * kl).mean(), parts

    def _beta(self, rows: Rows, step: int) -> Tensor:
        if self.gamma is not None:
            return self.gamma * rows.sums()
        beta = annealed_beta(step, self.anneal_cap, self.total_anneal_steps)
        return torch.full((len(rows),), beta, dtype=rows.values.dtype, device=rows.values.device)


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

    SPACE: ClassVar[SearchSpace] = {
        "l2": RealRange(1e-7, 1e-3),
        "dropout": RealRange(0.2, 0.8, log=False),
        "latent": WholeRange(64, 600),
        "learning_rate": RealRange(2e-4, 4e-3),
        "batch_size": WholeRange(50, 500),
    }
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "recommended": {"precision": "auto"}}

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
        device: str = "auto",
        precision: str = "float32",
    ) -> None:
        super().__init__(epochs, batch_size, learning_rate, patience, metric, seed, device, precision)
        self.hidden = check.sizes("hidden", hidden)
        self.latent = check.whole("latent", latent, maximum=check.LARGEST_LAYER)
        self.dropout = check.real("dropout", dropout, 0.0, 0.99)
        self.l2 = check.real("l2", l2)

    def _build(self, shard: ItemShard, generator: torch.Generator) -> AutoencoderNet:
        encoder = PlainEncoder(shard, self.hidden, self.latent, generator)
        return AutoencoderNet(encoder, self.latent, self.hidden[::-1], shard, generator)

    def _loss(
        self, module: AutoencoderNet, rows: Rows, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        values = dropout(rows.normalised(), self.dropout, generator, rows.of_interactions)
        code = torch.tanh(module.encoder(rows, values))
        nll = module.nll(code, rows)
        weights = [p for p in module.parameters() if p.ndim == 2]
        penalty = self.l2 * torch.stack([w.square().sum() for w in weights]).sum()
        return nll + penalty, {"nll": nll.detach(), "l2": penalty.detach()}

    def _code(self, module: AutoencoderNet, rows: Rows) -> Tensor:
        return torch.tanh(module.encoder(rows, rows.normalised()))


@torch.no_grad()
def _start(weight: Tensor, vectors: Tensor, scale: float) -> None:
    """Put singular vectors, `scale` times as large, in the place of the random columns of an (n_items, size) weight."""
    random = weight[:, : vectors.shape[1]]
    used = vectors[:, : random.shape[1]]
    random.copy_(used * (scale * random.norm() / used.norm()))
