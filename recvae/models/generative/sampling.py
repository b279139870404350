"""`HistorySampler`: base of the variational autoencoders as makers of new histories."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.special import ndtr, ndtri
from torch import Tensor

from recvae.errors import ArtifactError, ParameterError
from recvae.machine.blas import ONE_BLAS_THREAD
from recvae.memory import available_bytes, row_batches, rows_at_once
from recvae.models import hyperparameters as check
from recvae.models.autoencoders.architecture import DENSITY, HISTORY_LENGTHS, TEMPERATURE, check_state
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.base import State
from recvae.models.fit_context import FitContext
from recvae.models.generative.calibration import Calibration
from recvae.models.generative.density import Density
from recvae.models.generative.draws import Lengths, draw_items, take_best
from recvae.models.generative.latent_use import LatentUse
from recvae.nn.batches import Batch
from recvae.progress import write_line
from recvae.types import FloatArray, UserItems

N_QUANTILES = 101
PRIORS = ("fitted", "standard")
MOST_DENSITY_USERS = 2000
"""Users, at most, that a density is fitted to."""
LOWEST_TEMPERATURE, TEMPERATURE_STEPS, TEMPERATURE_USERS = 0.3, 4, 200
"""A temperature is searched between the lowest one and 1, in so many halves, by so many made-up users."""
BYTES_AN_INTERACTION = 20
"""Of a matrix of samples and of the arrays that it is put together from."""


class HistorySampler(Autoencoder):
    """An autoencoder with a Gaussian posterior over z, which decodes z into histories.

    Attributes
    ----------
    history_lengths_ : (101,) float32
        Quantiles of the training users' numbers of interactions, from which `sample` draws.
    density_ : Density, optional
        Of the training users' posterior means and, in the last dimension, the normal score of their history's length: 0
        for the median. None in artifacts of earlier versions.
    temperature_ : float
        Divides the decoder's logits where items are drawn: histories made up with it follow from their other parts as
        well as those of validation users do, which those made up with 1 do not. 1 where there were no such users.
    latent_use_ : LatentUse
        The latent dimensions' KL and variance at the end of `fit`; artifacts do not keep it.
    """

    history_lengths_: npt.NDArray[np.float32]
    density_: Density | None = None
    temperature_: float = 1.0
    latent_use_: LatentUse

    @abstractmethod
    def _posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x) for whole histories, (n_users, latent) each."""

    @abstractmethod
    def embed(self, user_items: UserItems) -> FloatArray:
        """The posterior mean mu of each history, (n_users, latent) float32."""

    def sample(
        self, n: int, seed: int = 0, *, prior: str = "fitted", like: UserItems | None = None
    ) -> sparse.csr_matrix:
        """Make up histories.

        z is drawn from where the training users are, and with it the length of the history; then items, without
        replacement, by the softmax of the decoder's output divided by `temperature_`.

        Parameters
        ----------
        n : int
            Users to make up.
        seed : int
        prior : "fitted" or "standard"
            Distribution of z: `density_`, or the papers' N(0, I), which is far from the users where the KL weight is
            small; lengths are then drawn by themselves, and the temperature is 1.
        like : csr_matrix or csr_array, shape (1, n_items), optional
            Draw z from the posterior of this history instead, and as many items as it has.

        Returns
        -------
        csr_matrix, float32, shape (n, n_items)

        Raises
        ------
        ParameterError
            If n histories would not fit into memory; `sample_batches` makes them piece by piece.
        UnsupportedError
            If the likelihood is not multinomial.
        """
        check.whole("n", n)
        needed, free = BYTES_AN_INTERACTION * n * float(self.history_lengths_.mean()), available_bytes()
        if free is not None and needed > free:
            raise ParameterError(
                f"n is {n:,}, whose histories take about {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free: use "
                "sample_batches, or recvae sample"
            )
        batches = list(self.sample_batches(n, seed, prior=prior, like=like))
        return sparse.csr_matrix(sparse.vstack(batches, format="csr"))

    def sample_batches(
        self, n: int, seed: int = 0, *, prior: str = "fitted", like: UserItems | None = None
    ) -> Iterator[sparse.csr_matrix]:
        """`sample` in pieces of some users, which come to the same histories."""
        self._refuse_other_likelihoods()
        check.whole("n", n)
        check.one_of("prior", prior, PRIORS)
        generator = np.random.default_rng(check.whole("seed", seed, minimum=0))
        history = None if like is None else self._one_history(like, "like")
        density = self.density_ if prior == "fitted" else None
        if density is None and prior == "fitted" and history is None:
            warnings.warn(
                "the model has no density of its users (see fit_density), since its training was interrupted or an "
                "earlier version saved it: z is from N(0, I)",
                stacklevel=2,
            )
        size = rows_at_once(4 * self.n_items_)
        for start in range(0, n, size):
            n_rows = min(size, n - start)
            if history is not None:
                z, lengths = self._draw_posterior(history, n_rows, generator), np.full(n_rows, history.nnz)
            else:
                z, lengths = self._draw_users(n_rows, generator, density)
            temperature = self.temperature_ if prior == "fitted" else 1.0
            yield draw_items(self._decode(z, temperature), lengths, generator)

    def complete(self, user_items: UserItems, n: int = 1, seed: int = 0) -> sparse.csr_matrix:
        """Make up histories that go on from one.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (1, n_items)
        n : int
            Continuations to make up.
        seed : int

        Returns
        -------
        csr_matrix, float32, shape (n, n_items)
            Each with all items of the history and at least one more, as long as longer histories of the training users
            are.
        """
        self._refuse_other_likelihoods()
        history = self._one_history(user_items, "user_items")
        if history.nnz >= self.n_items_:
            raise ParameterError(f"user_items has all {self.n_items_:,} items; expected a history that can go on")
        generator = np.random.default_rng(check.whole("seed", seed, minimum=0))
        z = self._draw_posterior(history, check.whole("n", n), generator)
        quantiles = np.linspace(0, 1, N_QUANTILES)
        shorter = np.interp(history.nnz, self.history_lengths_, quantiles)
        lengths = self._lengths(generator.uniform(shorter, 1, n)).clip(history.nnz + 1)
        logits = self._decode(z, self.temperature_)
        logits[:, history.indices] = np.inf
        return draw_items(logits, lengths, generator)

    def interpolate(self, first: UserItems, second: UserItems, n: int = 5) -> sparse.csr_matrix:
        """The likeliest histories on the straight way from one user to another.

        Parameters
        ----------
        first, second : csr_matrix or csr_array, shape (1, n_items)
            Histories of the two users.
        n : int
            Points of the way, both ends included.

        Returns
        -------
        csr_matrix, float32, shape (n, n_items)
            Nothing is drawn: at each point the items with the highest scores, as many as lie between the lengths of the
            two histories.
        """
        ends = [self._one_history(first, "first"), self._one_history(second, "second")]
        share = np.linspace(0, 1, check.whole("n", n, minimum=2))
        mu = self.embed(sparse.vstack(ends, format="csr"))
        z = (1 - share)[:, None] * mu[0] + share[:, None] * mu[1]
        lengths = np.rint((1 - share) * ends[0].nnz + share * ends[1].nnz).astype(np.int64)
        return take_best(self._decode(z), lengths)

    def _draw_users(
        self, n: int, generator: np.random.Generator, density: Density | None
    ) -> tuple[npt.NDArray[Any], Lengths]:
        if density is None:
            z = generator.standard_normal((n, self.module_.architecture.latent))
            return z, self._lengths(generator.random(n))
        points = density.sample(n, generator)
        return points[:, :-1], self._lengths(ndtr(points[:, -1]))

    def _draw_posterior(
        self, history: sparse.csr_matrix, n: int, generator: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        mu, logvar = self._posteriors(history)
        z: npt.NDArray[np.float64] = mu + np.exp(0.5 * logvar) * generator.standard_normal((n, mu.shape[1]))
        return z

    def _posteriors(self, histories: sparse.csr_matrix) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """mu and logvar, (n_users, latent) each, a batch of users at a time."""
        parts = []
        for rows in row_batches(histories.shape[0], 4 * self.n_items_):
            with torch.inference_mode():
                parts.append([part.cpu().numpy() for part in self._posterior(self._batch(histories[rows]))])
        mu, logvar = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
        return mu, logvar

    def _decode(self, z: npt.NDArray[Any], temperature: float = 1.0) -> FloatArray:
        with torch.inference_mode():
            points = torch.from_numpy(z.astype(np.float32)).to(self._device)
            logits: FloatArray = (self.module_.logits(points) / temperature).cpu().numpy()
        return logits

    def _lengths(self, quantiles: npt.NDArray[np.float64]) -> Lengths:
        lengths = np.interp(quantiles, np.linspace(0, 1, N_QUANTILES), self.history_lengths_)
        whole: Lengths = lengths.round().astype(np.int64).clip(1, self.n_items_)
        return whole

    def _one_history(self, user_items: UserItems, name: str) -> sparse.csr_matrix:
        history = self._check_histories(user_items)
        if history.shape[0] != 1 or history.nnz == 0:
            given = f"{history.shape[0]:,} rows with {history.nnz:,} interactions"
            raise ParameterError(f"{name} has {given}; expected one history, not empty")
        return history

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        lengths = np.diff(user_items.indptr)
        self.density_, self.temperature_ = None, 1.0
        self.history_lengths_ = np.quantile(lengths, np.linspace(0, 1, N_QUANTILES)).astype(np.float32)
        super()._fit(user_items, context)
        self.fit_density(user_items)
        if context.show_progress:
            for line in self.latent_use_.warnings(self.history_[-1] if self.history_ else {}):
                write_line(f"{type(self).__name__}: {line}")

    def fit_density(self, user_items: UserItems) -> None:
        """Fit `density_` and `temperature_`, as `fit` does at its end; for artifacts of versions that did not.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
            The training users' histories.

        Raises
        ------
        ParameterError
            If no user has a history.
        """
        histories = self._check_histories(user_items)
        generator, lengths = np.random.default_rng(self.seed), np.diff(histories.indptr)
        users = np.flatnonzero(lengths)
        if not len(users):
            raise ParameterError(f"user_items has {histories.shape[0]:,} rows without interactions; expected some")
        if len(users) > MOST_DENSITY_USERS:
            users = np.sort(generator.choice(users, MOST_DENSITY_USERS, replace=False))
        mu, logvar = self._posteriors(histories[users])
        self.latent_use_ = LatentUse.measure(mu, logvar)
        points = np.column_stack([mu, _normal_scores(lengths[users])])
        with ONE_BLAS_THREAD:
            self.density_ = Density.choose(points, generator)
        self.temperature_ = 1.0 if self.calibration_ is None else self._choose_temperature(self.calibration_, generator)

    def _choose_temperature(self, calibration: Calibration, generator: np.random.Generator) -> float:
        """Search, by halves, the temperature at which made-up histories misfit as much as those of real users do."""
        z, lengths = self._draw_users(TEMPERATURE_USERS, generator, self.density_)
        usual, low, high = calibration.users.misfit.mean(), LOWEST_TEMPERATURE, 1.0
        for _ in range(TEMPERATURE_STEPS):
            middle = (low + high) / 2
            noise = np.random.default_rng(self.seed)
            batches = [
                draw_items(self._decode(z[rows], middle), lengths[rows], noise)
                for rows in row_batches(len(z), 4 * self.n_items_)
            ]
            histories = sparse.csr_matrix(sparse.vstack(batches, format="csr"))
            misfit = calibration.summarize(self._predict(histories), histories.indptr).misfit.mean()
            low, high = (low, middle) if misfit > usual else (middle, high)
        return float(np.float32((low + high) / 2))  # as an artifact keeps it

    def _take_calibration(self, earlier: Self) -> None:
        super()._take_calibration(earlier)
        self.temperature_ = earlier.temperature_

    def _state(self) -> State:
        density = {} if self.density_ is None else self.density_.state()
        beside = {HISTORY_LENGTHS: self.history_lengths_, TEMPERATURE: np.array([self.temperature_], np.float32)}
        return {**super()._state(), **beside, **density}

    def _restore(self, state: State) -> None:
        state = dict(state)
        self.history_lengths_ = state.pop(HISTORY_LENGTHS)
        check_state({HISTORY_LENGTHS: self.history_lengths_}, {HISTORY_LENGTHS: (N_QUANTILES,)})
        temperature = state.pop(TEMPERATURE, np.ones(1, np.float32))  # earlier versions have none
        check_state({TEMPERATURE: temperature}, {TEMPERATURE: (1,)})
        self.temperature_ = float(temperature[0])
        if not 0 < self.temperature_ <= 1:
            raise ArtifactError(f"{TEMPERATURE} is {self.temperature_}; expected a number above 0 and at most 1")
        density = {name: state.pop(name) for name in DENSITY if name in state}
        super()._restore(state)
        self.density_ = None
        if density:
            self.density_ = Density.from_state(density, self.module_.architecture.latent + 1)


def _normal_scores(values: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """The standard normal's quantile at the share of smaller values; equal ones share the middle of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    scores: npt.NDArray[np.float64] = ndtri((np.cumsum(counts) - counts / 2)[places] / len(values))
    return scores
