"""Base of the variational autoencoders: likelihood of a history, synthetic histories, vectors of users."""

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recvae.errors import UnsupportedError
from recvae.memory import row_batches
from recvae.models import hyperparameters as check
from recvae.models.autoencoders.settings import MatrixSize, choose_gamma
from recvae.models.generative.sampling import HistorySampler
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.nn.batches import Batch
from recvae.nn.likelihood import user_nll
from recvae.types import FloatArray, UserItems


class VariationalAutoencoder(HistorySampler):
    """An autoencoder with a Gaussian posterior over z; attributes are those of `HistorySampler`."""

    SPACE: ClassVar[SearchSpace] = {
        "gamma": RealRange(5e-4, 0.05),
        "dropout": RealRange(0.2, 0.8, log=False),
        "latent": WholeRange(64, 400),
        "learning_rate": RealRange(2e-4, 4e-3),
        "batch_size": WholeRange(50, 500),
    }

    def _choose_gamma(self, size: MatrixSize) -> float:
        return choose_gamma(size, 1.0 if self.epochs is None else self.epochs / self.EPOCHS.choose(size))

    def _posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x) for whole histories, (n_users, latent) each."""
        mu, logvar = self.module_.encoder(batch.normalise()).chunk(2, dim=1)
        return mu, logvar

    def _code(self, batch: Batch) -> Tensor:
        return self._posterior(batch)[0]

    @torch.inference_mode()
    def embed(self, user_items: UserItems) -> FloatArray:
        """The posterior mean mu of each history, (n_users, latent) float32."""
        histories = self._check_histories(user_items)
        mu = np.empty((histories.shape[0], self.module_.architecture.latent), dtype=np.float32)
        for rows in row_batches(len(mu), 4 * self.n_items_):
            mu[rows] = self._posterior(self._batch(histories[rows]))[0].cpu().numpy()
        return mu

    @torch.inference_mode()
    def log_likelihood(
        self, user_items: UserItems, n_samples: int | None = None, seed: int = 0
    ) -> npt.NDArray[np.float64]:
        """A lower bound of the log-likelihood of each history, (n_users,), without the multinomial coefficient.

        The encoder has seen the whole history, which a model with a small KL weight reproduces whatever it is:
        `anomaly_score` is what tells unusual ones.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
        n_samples : int, optional
            Samples of the importance-weighted bound of Burda, Grosse & Salakhutdinov (2016), equation 8, which rises to
            the log-likelihood with their number. None gives log p(x|f(mu)) − KL(q(z|x) ‖ N(0, I)): Liang et al. (2018),
            equation 5, at the posterior mean instead of a sample, so that it is deterministic.
        seed : int
            Of the samples.
        """
        histories = self._check_histories(user_items)
        if n_samples is not None:
            check.whole("n_samples", n_samples)
        generator = torch.Generator(self._device).manual_seed(check.whole("seed", seed, minimum=0))
        bounds = np.zeros(histories.shape[0])
        for rows in row_batches(histories.shape[0], 4 * self.n_items_):
            batch = self._batch(histories[rows])
            if n_samples is None:
                mu, logvar = self._posterior(batch)
                nll = user_nll(self.module_.logits(mu), batch, self.likelihood)
                bounds[rows] = -(nll + kl_to_standard_normal(mu, logvar)).cpu().numpy()
            else:
                bounds[rows] = self._importance_weighted_bound(batch, n_samples, generator).cpu().numpy()
        return bounds

    def _importance_weighted_bound(self, batch: Batch, n_samples: int, generator: torch.Generator) -> Tensor:
        """log 1/k Σ p(x|z) p(z) / q(z|x) over k samples z from q(z|x), (n_users,)."""
        mu, logvar = self._posterior(batch)
        total = torch.full((len(batch),), -torch.inf, dtype=torch.float64, device=self._device)
        for _ in range(n_samples):
            noise = torch.randn(mu.shape, generator=generator, device=self._device)
            z = mu + noise * (0.5 * logvar).exp()
            log_prior_to_posterior = 0.5 * (noise.square() + logvar - z.square()).sum(dim=1)
            log_weight = log_prior_to_posterior - user_nll(self.module_.logits(z), batch, self.likelihood)
            total = torch.logaddexp(total, log_weight.double())
        return total - math.log(n_samples)

    def _user_vectors(self, user_items: sparse.csr_matrix | None) -> FloatArray:
        if user_items is None:
            raise UnsupportedError(f"{type(self).__name__} stores no users; give user_items, everybody's histories")
        return self.embed(user_items)


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) ‖ N(0, I)) of each row, (n_users,); Kingma & Welling (2014), appendix B."""
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(dim=1)
