"""Mult-VAE: D. Liang, R. Krishnan, M. Hoffman, T. Jebara, "Variational Autoencoders for Collaborative Filtering", WWW
2018, and the authors' notebook (repository dawenl/vae_cf).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from scipy import sparse
from torch import Tensor

from recvae.errors import ParameterError
from recvae.models import hyperparameters as check
from recvae.models.autoencoders.architecture import ENCODERS, Architecture
from recvae.models.autoencoders.base import INITIAL
from recvae.models.autoencoders.network import SAMPLED_COPIES
from recvae.models.autoencoders.settings import MatrixSize
from recvae.models.autoencoders.variational import VariationalAutoencoder, kl_to_standard_normal
from recvae.nn.batches import Batch
from recvae.nn.likelihood import LIKELIHOODS
from recvae.nn.sampling import NegativeSampler, draw_noise, drop_out, sample_normal
from recvae.training.optimizers import Adam, Optimizer, RowAdam
from recvae.training.schedules import SCHEDULES, annealed_beta


class MultVAE(VariationalAutoencoder):
    """Variational autoencoder of whole histories.

    The loss is the mean over users of −log p(x|f(z)) + β·KL(q(z|x) ‖ N(0, I)), equation 6; a history is L2-normalised
    and dropped out before it enters the encoder. β is annealed, min(anneal_cap, step / total_anneal_steps), or with
    `gamma` proportional to the number of the user's interactions, γ·|x|. At evaluation z is the posterior mean.

    Preset "paper" (the constructor's defaults) is the publication's model. Its one known difference from the authors'
    TensorFlow code is Adam's ε, which there is added before the bias correction of the second moment, not after it as
    in PyTorch: it is larger in the first updates. "recommended" has RecVAE's encoder, a linear decoder, γ·|x| and a
    one-cycle learning rate: RecVAE without its alternation and composite prior; layers start from singular vectors, and
    the data decide γ, dropout, batches and epochs. "fast" trains for 15 epochs.

    Parameters
    ----------
    hidden : int or sequence of int
        Hidden layer sizes of the encoder; all the same for a dense one.
    latent : int, optional
        Size of z. None takes a hundredth of the number of items, from 200 to 400.
    encoder : "plain" or "dense"
        "plain": tanh layers, and a decoder that mirrors them. "dense": RecVAE's, where the sum of all layers before is
        added to each, with swish and LayerNorm, and a linear decoder; deep encoders train well only in this way.
    initial : "random" or "spectral", optional
        Initial weights of the first layer and of a linear decoder: random, or the leading singular vectors of the
        normalised matrix of interactions (see `recvae.nn.spectrum`), from which fewer epochs are enough, and a tenth
        has 94 to 99% of the quality. None is spectral, but random where users are fewer than the first layer's columns,
        with `n_negatives`, and with items divided among processes: catalogues so large that the vectors of all items
        are to be avoided.
    dropout : float, optional
        Probability that an interaction is left out of the input in training. None is 0.7 for sparse data, else 0.5 (see
        `recvae.models.autoencoders.settings.choose_dropout`).
    likelihood : "multinomial", "logistic" or "gaussian"
        Distribution of a history given z. Multinomial: items compete for a user's interactions, which suits ranking
        best (the paper's table 4). Logistic: each item is a yes or no, for scores that are read as probabilities.
        Gaussian: squared error.
    gamma : float, optional
        KL weight for each interaction of the user, instead of annealing (Shenbin et al. 2020, section 3.4). Better
        where histories differ much in length. None anneals, or where `total_anneal_steps` is None too, chooses γ by the
        mean numbers of interactions a user and an item, and by the epochs where these are few (see
        `recvae.models.autoencoders.settings.choose_gamma`).
    anneal_cap : float
        Largest β. The paper finds the best by annealing to 1 and keeping the β of the best validation epoch.
    total_anneal_steps : int, optional
        Updates after which β would reach 1; 0 keeps it at the cap throughout. None does not anneal: the KL weight is
        γ·|x|.
    epochs, batch_size : int, optional
        Passes over the users, and users an update. None chooses by the number of training users: batches of a fortieth
        of them, from 125 to 500, and from 30 to 100 epochs, from singular vectors on to 50, so that about 900,000
        histories are seen, and longer where items have few interactions
        (`recvae.models.autoencoders.settings.EpochRule`).
    learning_rate : float
        Adam's step size, at its peak.
    schedule : str
        Course of the learning rate; see `recvae.training.schedules.learning_rate_factor`.
    patience : int, optional
        Stop after so many epochs in a row that are behind the best; 0 trains all epochs. None is a third of the epochs,
        at least five.
    metric : str
        Metric that the epoch is chosen by, where validation users are given; see `best_epoch_`.
    seed : int
        Decides weights, order of users, dropout and noise; with the same seed, machine and number of threads the model
        is the same bit for bit.
    device : str
        "cpu", "cuda", "cuda:1", …; "auto" is the GPU where there is one.
    precision : "float32", "bfloat16" or "auto"
        Type of the matrix products in training; see `recvae.nn.device.matmul_precision`.
    parallel : "users" or "items"
        What several processes divide among themselves (see `recvae.nn.parallelism`): the users of each batch, with the
        whole network in each process; or, for catalogues too large for that, the items of the first and the last layer,
        where all processes must score together until `fit` is done. The outcome is the same.
    n_negatives : int, optional
        For catalogues of hundreds of thousands of items: estimate the multinomial likelihood on this number of items
        drawn for each batch, and update only the rows of items that the batch touches, so that the cost of an update
        does not depend on the size of the catalogue. On Gowalla, 15 epochs of the publication's network, ndcg@100 is
        .161 with 6,144 of 40,981 items, .164 with all. None uses all items, exactly.
    negatives : "popularity" or "uniform"
        Distribution that these items are drawn from: in proportion to their interactions, which needs fewer of them, or
        uniform.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "recommended": {
            "hidden": (600,) * 5,
            "latent": None,
            "encoder": "dense",
            "initial": None,
            "gamma": None,
            "dropout": None,
            "total_anneal_steps": None,
            "epochs": None,
            "batch_size": None,
            "schedule": "one-cycle",
            "precision": "auto",
        },
    }
    # In so few epochs a small KL weight is better than that of the rule: lastfm .283 and .259, ML-100K .522 and .521.
    PRESETS["fast"] = PRESETS["recommended"] | {"initial": "spectral", "epochs": 15, "gamma": 0.003, "dropout": 0.5}

    def __init__(
        self,
        hidden: int | Sequence[int] = (600,),
        latent: int | None = 200,
        encoder: str = "plain",
        initial: str | None = "random",
        dropout: float | None = 0.5,
        likelihood: str = "multinomial",
        gamma: float | None = None,
        anneal_cap: float = 0.2,
        total_anneal_steps: int | None = 200_000,
        epochs: int | None = 200,
        batch_size: int | None = 500,
        learning_rate: float = 1e-3,
        schedule: str = "constant",
        patience: int | None = None,
        metric: str = "ndcg@100",
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
        parallel: str = "users",
        n_negatives: int | None = None,
        negatives: str = "popularity",
    ) -> None:
        super().__init__(epochs, batch_size, learning_rate, patience, metric, seed, device, precision)
        self.encoder = check.one_of("encoder", encoder, ENCODERS)
        self.initial = None if initial is None else check.one_of("initial", initial, INITIAL)
        self.hidden = (check.equal_sizes if encoder == "dense" else check.sizes)("hidden", hidden)
        self.latent = None if latent is None else check.whole("latent", latent, maximum=check.LARGEST_LAYER)
        self.dropout = None if dropout is None else check.real("dropout", dropout, 0.0, 0.99)
        self.likelihood = check.one_of("likelihood", likelihood, tuple(LIKELIHOODS))
        self.gamma = None if gamma is None else check.real("gamma", gamma)
        self.anneal_cap = check.real("anneal_cap", anneal_cap)
        self.total_anneal_steps = (
            None if total_anneal_steps is None else check.whole("total_anneal_steps", total_anneal_steps, minimum=0)
        )
        self.schedule = check.one_of("schedule", schedule, SCHEDULES)
        self.n_negatives = (
            None if n_negatives is None else check.whole("n_negatives", n_negatives, maximum=check.LARGEST_SAMPLE)
        )
        self.negatives = check.one_of("negatives", negatives, ("popularity", "uniform"))
        if n_negatives is not None and likelihood != "multinomial":
            raise ParameterError(
                f"n_negatives is {n_negatives}, but likelihood is {likelihood!r}; expected multinomial"
            )
        self.parallel = self._check_parallel(parallel)
        if parallel == "items" and n_negatives is not None:
            raise ParameterError(f"n_negatives is {n_negatives}, but parallel is 'items'; expected 'users'")

    def _choose(self, size: MatrixSize) -> dict[str, Any]:
        chosen = super()._choose(size)
        if self.latent is None:
            chosen["latent"] = self._latent(self.n_items_)
        if self.gamma is None and self.total_anneal_steps is None:
            chosen["gamma"] = self._choose_gamma(size)
        return chosen

    def _choose_initial(self, size: MatrixSize) -> str:
        return super()._choose_initial(size) if self.n_negatives is None else "random"

    def _architecture(self, n_items: int) -> Architecture:
        return Architecture(self.encoder, self.hidden, self._latent(n_items), variational=True)

    def _latent(self, n_items: int) -> int:
        return self.latent or max(200, min(400, n_items // 100))

    def _prepare_training(self, user_items: sparse.csr_matrix, generator: torch.Generator) -> None:
        super()._prepare_training(user_items, generator)
        if self.n_negatives is not None:
            self.module_.encoder.input.sparse_gradient = True
            counts = torch.from_numpy(self.item_counts_).to(self._device)
            # Items without interactions are drawn too, if rarely, so that training lowers their scores.
            weights = counts.clamp(min=1) if self.negatives == "popularity" else torch.ones_like(counts)
            self._negative_sampler = NegativeSampler(self.n_negatives, weights)

    def _training_copies(self) -> float:
        return super()._training_copies() if self.n_negatives is None else SAMPLED_COPIES

    def make_optimizers(self) -> Sequence[Optimizer]:
        if self.n_negatives is None:
            return super().make_optimizers()
        module = self.module_
        by_row = [layer.get_parameter("weight") for layer in (module.encoder.input, module.output)]
        rest = [p for p in module.parameters() if all(p is not row for row in by_row)]
        return [RowAdam(by_row, self.learning_rate), Adam(rest, self.learning_rate)]

    def _loss(
        self, batch: Batch, users: slice, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = drop_out(batch.normalise(), self._setting("dropout"), generator)
        noise = draw_noise(batch, self.module_.architecture.latent, generator)
        own = batch[users]
        mu, logvar = self.module_.encoder(inputs[users]).chunk(2, dim=1)  # (n_users, latent) each
        z = sample_normal(mu, logvar, noise[users])
        if self.n_negatives is None:
            nll = self.module_.nll(z, own, self.likelihood)
        else:
            nll = self.module_.sampled_nll(z, own, batch.items, self._negative_sampler.draw(generator))
        kl = kl_to_standard_normal(mu, logvar)  # (n_users,)
        beta = self._beta(own, step)  # (n_users,)
        terms = {"nll": nll.detach(), "kl": kl.detach().mean(), "beta": beta.mean()}
        return nll + (beta * kl).mean(), terms

    def _beta(self, batch: Batch, step: int) -> Tensor:
        """(n_users,) KL weight of each user."""
        if self.gamma is not None or self.total_anneal_steps is None:
            gamma: float = self._setting("gamma")
            return gamma * batch.sum_weights()
        beta = annealed_beta(step, self.anneal_cap, self.total_anneal_steps)
        return torch.full((len(batch),), beta, dtype=batch.values.dtype, device=batch.values.device)
