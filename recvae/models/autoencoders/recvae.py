"""RecVAE: I. Shenbin, A. Alekseev, E. Tutubalina, V. Malykh, S. Nikolenko, "RecVAE: A New Variational Autoencoder for
Top-N Recommendations with Implicit Feedback", WSDM 2020, and the authors' code (repository ilya-shenbin/RecVAE).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from recvae.models import hyperparameters as check
from recvae.models.autoencoders.architecture import Architecture
from recvae.models.autoencoders.base import INITIAL
from recvae.models.autoencoders.network import AutoencoderNetwork, DenseEncoder
from recvae.models.autoencoders.settings import EpochRule, MatrixSize
from recvae.models.autoencoders.variational import VariationalAutoencoder
from recvae.models.base import State
from recvae.nn.batches import Batch
from recvae.nn.parallelism import ALONE, Parallelism
from recvae.nn.sampling import draw_noise, drop_out, sample_normal
from recvae.training.schedules import SCHEDULES

WIDE_LOGVAR = 10.0
"""Log variance of the prior's wide component."""
OLD_ENCODER = "old_encoder."


class RecVAENetwork(AutoencoderNetwork):
    """The network, and its encoder as it was when the prior was last updated."""

    def __init__(
        self, architecture: Architecture, n_items: int, generator: torch.Generator, parallelism: Parallelism = ALONE
    ) -> None:
        super().__init__(architecture, n_items, generator, parallelism)
        self.old_encoder = DenseEncoder(architecture, n_items, generator, parallelism).requires_grad_(False)


class RecVAE(VariationalAutoencoder):
    """Variational autoencoder with a composite prior, a KL weight for each interaction, and alternating updates.

    An epoch is `encoder_passes` over the users that update the encoder, on inputs with dropout, then
    `decoder_passes` that update the decoder, on inputs without. Before the latter the prior gets a copy of the
    encoder. The prior of each latent dimension is a mixture of N(0, 1), the old encoder's posterior of the
    undropped input, and N(0, e¹⁰); KL is estimated from one sample and weighted γ·|x|.

    Preset "paper" (the constructor's defaults) follows the branch `master` of the authors' code. Their branch `wsdm`,
    of the time of the publication, differs in three points. There ε of layer normalisation is PyTorch's default, 1e-5
    instead of .1. The old posteriors are stored for each training user at the moment of the copy, instead of being
    computed by an old encoder in each batch, which gives the same numbers. And those of the first epoch are the initial
    encoder's own, not those of another encoder with random weights. In preset "recommended" the data decide γ, dropout,
    batches and epochs, layers start from singular vectors, and the learning rate rises and falls (one-cycle): at a
    constant one, RecVAE overfits.

    Parameters
    ----------
    hidden : int or sequence of int
        Sizes of the encoder's hidden layers, all the same.
    latent : int
    dropout : float, optional
        Probability that an interaction is left out of the encoder's input, in the encoder's passes. None chooses as for
        `MultVAE`.
    gamma : float, optional
        KL weight for each interaction of the user. None chooses as for `MultVAE`.
    prior_weights : three floats
        Weights of the mixture's components, standard, old posterior and wide; they sum to 1.
    encoder_passes, decoder_passes : int
        Passes over the users an epoch.
    epochs, batch_size : int, optional
        None chooses by the number of training users: batches as for `MultVAE`, and from 15 to 25 epochs, so that about
        450,000 histories are seen, or 15 from singular vectors on, and longer where items have few interactions.
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
        Decides weights, order of users, dropout and noise.
    device, precision, parallel, initial : str
        As for `MultVAE`.
    """

    EPOCHS: ClassVar[EpochRule] = EpochRule(histories=450_000, fewest=15, most=25)
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "recommended": {
            "initial": None,
            "gamma": None,
            "dropout": None,
            "epochs": None,
            "batch_size": None,
            "learning_rate": 1e-3,
            "schedule": "one-cycle",
            "precision": "auto",
        },
    }

    module_: RecVAENetwork

    def __init__(
        self,
        hidden: int | Sequence[int] = (600,) * 5,
        latent: int = 200,
        dropout: float | None = 0.5,
        gamma: float | None = 0.005,
        prior_weights: Sequence[float] = (3 / 20, 3 / 4, 1 / 10),
        encoder_passes: int = 3,
        decoder_passes: int = 1,
        epochs: int | None = 50,
        batch_size: int | None = 500,
        learning_rate: float = 5e-4,
        schedule: str = "constant",
        patience: int | None = None,
        metric: str = "ndcg@100",
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
        parallel: str = "users",
        initial: str | None = "random",
    ) -> None:
        super().__init__(epochs, batch_size, learning_rate, patience, metric, seed, device, precision)
        self.initial = None if initial is None else check.one_of("initial", initial, INITIAL)
        self.hidden = check.equal_sizes("hidden", hidden)
        self.latent = check.whole("latent", latent, maximum=check.LARGEST_LAYER)
        self.dropout = None if dropout is None else check.real("dropout", dropout, 0.0, 0.99)
        self.gamma = None if gamma is None else check.real("gamma", gamma)
        self.prior_weights = check.shares("prior_weights", prior_weights, 3)
        self.encoder_passes = check.whole("encoder_passes", encoder_passes, maximum=check.MOST_PASSES)
        self.decoder_passes = check.whole("decoder_passes", decoder_passes, maximum=check.MOST_PASSES)
        self.schedule = check.one_of("schedule", schedule, SCHEDULES)
        self.passes = self.encoder_passes + self.decoder_passes
        self.parallel = self._check_parallel(parallel)

    def _choose(self, size: MatrixSize) -> dict[str, Any]:
        return super()._choose(size) | ({"gamma": self._choose_gamma(size)} if self.gamma is None else {})

    def _architecture(self, n_items: int) -> Architecture:
        return Architecture("dense", self.hidden, self.latent, variational=True)

    def _build(self, n_items: int, generator: torch.Generator, parallelism: Parallelism = ALONE) -> RecVAENetwork:
        return RecVAENetwork(self._architecture(n_items), n_items, generator, parallelism)

    def begin_pass(self, number: int) -> None:
        if number == self.encoder_passes:
            self.module_.old_encoder.load_state_dict(self.module_.encoder.state_dict())

    def _loss(
        self, batch: Batch, users: slice, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        module, own = self.module_, batch[users]
        trains_encoder = number < self.encoder_passes
        module.encoder.requires_grad_(trains_encoder)
        module.output.requires_grad_(not trains_encoder)
        undropped = batch.normalise()
        inputs = drop_out(undropped, self._setting("dropout") if trains_encoder else 0.0, generator)
        noise = draw_noise(batch, module.architecture.latent, generator)
        mu, logvar = module.encoder(inputs[users]).chunk(2, dim=1)  # (n_users, latent) each
        z = sample_normal(mu, logvar, noise[users])
        nll = module.nll(z, own)
        if not trains_encoder:  # KL does not depend on the decoder
            return nll, {"nll": nll.detach()}
        kl = (_log_normal(z, mu, logvar) - self._log_prior(undropped[users], z)).sum(dim=1)  # (n_users,)
        beta = self._setting("gamma") * own.sum_weights()  # (n_users,)
        terms = {"nll": nll.detach(), "kl": kl.detach().mean(), "beta": beta.mean()}
        return nll + (beta * kl).mean(), terms

    def _log_prior(self, undropped: Batch, z: Tensor) -> Tensor:
        """Log density of the composite prior at z, (n_users, latent); equation 6, a mixture for each dimension."""
        old_mu, old_logvar = self.module_.old_encoder(undropped).chunk(2, dim=1)
        zero = torch.zeros((), dtype=z.dtype, device=z.device)
        densities = (
            _log_normal(z, zero, zero),
            _log_normal(z, old_mu, old_logvar),
            _log_normal(z, zero, zero + WIDE_LOGVAR),
        )
        weighted = [d + math.log(w) for d, w in zip(densities, self.prior_weights, strict=True) if w > 0]
        return torch.stack(weighted).logsumexp(dim=0)

    def _state(self) -> State:
        # The old encoder is only needed in training.
        return {name: array for name, array in super()._state().items() if not name.startswith(OLD_ENCODER)}

    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        old = {f"old_{name}": tensor for name, tensor in weights.items() if name.startswith("encoder.")}
        super()._load_weights({**old, **weights})


def _log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Log density of N(mu, exp(logvar)) at z."""
    return -0.5 * (logvar + math.log(2 * math.pi) + (z - mu).square() / logvar.exp())
