"""`Density`: a mixture of Gaussians with one covariance, fitted to where the users of a trained model are.

Ghosh, Sajjadi, Vergari, Black & Schölkopf, "From Variational to Deterministic Autoencoders", ICLR 2020, fit such a
density after training, since the encodings of an autoencoder are not distributed as its prior.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

from recvae.errors import ArtifactError
from recvae.models.autoencoders.architecture import DENSITY, check_state
from recvae.types import FloatArray

MOST_COMPONENTS = 32
CLUSTERING_ITERATIONS = 10
MOST_ITERATIONS, LEAST_GAIN = 50, 0.01
"""Iterations end when they raise the mean log density by less than this, in nats."""
HELD_OUT_SHARE = 0.2
RIDGE = 1e-3
"""Of the mean variance, added to all variances: points may lie in a plane."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Density:
    """Mixture of Gaussians.

    The components share their covariance: with one for each, a few hundred users in 200 dimensions would be described
    worse than by a single Gaussian.

    Attributes
    ----------
    weights : (k,)
    means : (k, d)
    cholesky : (d, d)
        Lower triangle L of the covariance L Lᵀ.
    """

    weights: Matrix
    means: Matrix
    cholesky: Matrix

    @classmethod
    def fit(cls, points: Matrix, n_components: int, generator: np.random.Generator) -> Self:
        """Expectation maximization, from the means of k-means.

        Parameters
        ----------
        points : (n, d)
        n_components : int
        generator : Generator
            Draws the first means.
        """
        middle = points.mean(axis=0)
        centred = points - middle
        total = centred.T @ centred / len(points)
        ridge = RIDGE * np.trace(total) / len(total) + 1e-12
        fitted = cls(np.ones(1), np.zeros((1, len(total))), _factorize(total, ridge))
        if n_components > 1:
            means, nearest = _cluster(centred, n_components, generator)
            counts = np.bincount(nearest, minlength=n_components) + 1
            deviations = centred - means[nearest]
            within = deviations.T @ deviations / len(points)
            fitted = cls(counts / counts.sum(), means, _factorize(within, ridge))
        density = -np.inf
        for _ in range(MOST_ITERATIONS if n_components > 1 else 0):
            log_joint = fitted._log_joint(centred)
            log_density = logsumexp(log_joint, axis=1, keepdims=True)
            if log_density.mean() < density + LEAST_GAIN:
                break
            density = log_density.mean()
            shares = np.exp(log_joint - log_density)
            counts = shares.sum(axis=0) + 1e-9
            weights, means = counts / counts.sum(), shares.T @ centred / counts[:, None]
            within = total - (means * weights[:, None]).T @ means
            fitted = cls(weights, means, _factorize(within, ridge))
        return cls(fitted.weights, fitted.means + middle, fitted.cholesky)

    @classmethod
    def choose(cls, points: Matrix, generator: np.random.Generator) -> Self:
        """Fit with as many components as describe points best that were left out.

        Of 1, 2, 4, 8, …, until two in a row do not help.
        """
        order = generator.permutation(len(points))
        n_held_out = int(HELD_OUT_SHARE * len(points))
        held_out, rest = points[order[:n_held_out]], points[order[n_held_out:]]
        best, n_components, size = -np.inf, 1, 1
        while n_held_out and size <= min(MOST_COMPONENTS, len(rest)):
            density = float(cls.fit(rest, size, generator).log_density(held_out).mean())
            if density > best:
                best, n_components = density, size
            elif size >= 4 * n_components:
                break
            size *= 2
        found = cls.fit(points, n_components, generator)
        # As an artifact keeps it, so that a loaded model gives the same samples.
        parts = (found.weights, found.means, found.cholesky)
        return cls(*(part.astype(np.float32).astype(np.float64) for part in parts))

    def log_density(self, points: Matrix) -> Matrix:
        """(n,) logarithm of the density at points, (n, d)."""
        density: Matrix = logsumexp(self._log_joint(points), axis=1)
        return density

    def sample(self, n: int, generator: np.random.Generator) -> Matrix:
        """(n, d) points."""
        component = generator.choice(len(self.weights), n, p=self.weights / self.weights.sum())
        noise = generator.standard_normal((n, self.means.shape[1]))
        return self.means[component] + noise @ self.cholesky.T

    def _log_joint(self, points: Matrix) -> Matrix:
        """(n, k) logarithm of each component's weight times its density."""
        white = solve_triangular(self.cholesky, points.T, lower=True)
        centres = solve_triangular(self.cholesky, self.means.T, lower=True)
        squares = (white**2).sum(axis=0)[:, None] - 2 * white.T @ centres + (centres**2).sum(axis=0)
        log_scale = np.log(np.diag(self.cholesky)).sum() + 0.5 * len(self.cholesky) * np.log(2 * np.pi)
        joint: Matrix = np.log(self.weights) - log_scale - 0.5 * squares
        return joint

    def state(self) -> dict[str, FloatArray]:
        """Arrays for an artifact."""
        arrays = (self.weights, self.means, self.cholesky)
        return {name: array.astype(np.float32) for name, array in zip(DENSITY, arrays, strict=True)}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]], d: int) -> Self:
        """The inverse of `state`, in d dimensions; `ArtifactError` for arrays that it cannot have given."""
        k = len(state.get(DENSITY[0], ()))
        check_state(state, dict(zip(DENSITY, ((k,), (k, d), (d, d)), strict=True)))
        weights, means, factor = (state[name].astype(np.float64) for name in DENSITY)
        finite = all(np.isfinite(part).all() for part in (weights, means, factor))
        if not (k and finite and (weights > 0).all() and (np.diag(factor) > 0).all()):
            raise ArtifactError(f"{', '.join(DENSITY)} are no mixture of Gaussians")
        return cls(weights, means, factor)


def _factorize(covariance: Matrix, ridge: float) -> Matrix:
    lower: Matrix = cholesky(covariance + ridge * np.eye(len(covariance)), lower=True)
    return lower


def _cluster(points: Matrix, k: int, generator: np.random.Generator) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """Means and nearest mean of each point by k-means; the first means as in Arthur & Vassilvitskii (2007)."""
    means = points[[generator.integers(len(points))]]
    for _ in range(k - 1):
        squares = _square_distances(points, means).min(axis=1)
        share = (squares + 1e-12) / (squares + 1e-12).sum()
        means = np.vstack([means, points[generator.choice(len(points), p=share)]])
    for _ in range(CLUSTERING_ITERATIONS):
        nearest = _square_distances(points, means).argmin(axis=1)
        members = np.eye(k)[nearest]
        counts = members.sum(axis=0)
        means = np.where(counts[:, None] > 0, members.T @ points / np.maximum(counts, 1)[:, None], means)
    return means, _square_distances(points, means).argmin(axis=1)


def _square_distances(points: Matrix, means: Matrix) -> Matrix:
    squares: Matrix = (points**2).sum(axis=1)[:, None] - 2 * points @ means.T + (means**2).sum(axis=1)
    return np.maximum(squares, 0)
