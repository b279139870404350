"""`Calibration`: what histories of real users look like, to which others are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from recvae.errors import ArtifactError
from recvae.models.generative.held_out_likelihood import HeldOutLikelihood
from recvae.types import FloatArray

FEWEST_USERS, MOST_USERS = 20, 1000
"""Users that a calibration needs, and the most that it looks at."""
CAP = 0.9
"""Quantile of the gains of real users' interactions to which larger ones are cut, so that a few well-predicted
interactions cannot make up for many that do not fit."""
SHORTEST, LONGEST = 0.05, 0.95
"""Quantiles of the history lengths between which location and scale follow the length."""
LEAST_WEIGHT = 0.01
"""Of the model in a mixture with popularity."""
RARE = 2.0
"""Mean deviations above the usual from which on the rarity of a history's items counts."""
USERS, GAIN = "calibration_users", "calibration_gain"

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Summary:
    """Averages over the interactions of each history.

    Attributes
    ----------
    lengths : (n_users,)
        Numbers of interactions.
    misfit : (n_users,)
        Nats by which popularity predicts the interactions better than the calibration's mixture of the model and
        popularity does, where that predicts them well at most its cap.
    rarity : (n_users,)
        Nats of surprise for one who knows the items' popularity only.
    """

    lengths: Vector
    misfit: Vector
    rarity: Vector


@dataclass(frozen=True, eq=False)
class Calibration:
    """Histories of users that the model was not trained on.

    Attributes
    ----------
    users : Summary
    cap : float
        Largest gain, in nats, that an interaction contributes.
    weight : float
        Of the model in its mixture with popularity, the one that predicts these users' interactions best. Below 1 where
        the model is surer than it should be: items that it rules out for real users would then count too much.
    """

    users: Summary
    cap: float
    weight: float = 1.0

    @classmethod
    def measure(cls, likelihood: HeldOutLikelihood, indptr: npt.NDArray[np.int32]) -> Self:
        """Summarize real users' histories, of at least one interaction each."""
        gains = likelihood.model - likelihood.popularity
        cap, weight = float(np.quantile(gains, CAP)), _fit_weight(gains)
        return cls(_summarize(likelihood, indptr, cap, weight), cap, weight)

    def summarize(self, likelihood: HeldOutLikelihood, indptr: npt.NDArray[np.int32]) -> Summary:
        """Average over the interactions of each history, none of which is empty."""
        return _summarize(likelihood, indptr, self.cap, self.weight)

    def __len__(self) -> int:
        return len(self.users.lengths)

    def scores(self, histories: Summary) -> Vector:
        """Misfit of each history beside those of real users of its length, (n_users,); higher is more unusual.

        The unit is the mean deviation among the real users, 0 is their middle. Rarity of the items is added where it
        exceeds that of real users by more than `RARE`.
        """
        misfit = self._standardise(self.users.misfit, histories.misfit, histories.lengths)
        rarity = self._standardise(self.users.rarity, histories.rarity, histories.lengths)
        return misfit + np.maximum(rarity - RARE, 0)

    def p_values(self, scores: Vector) -> Vector:
        """The share of real users with at least this score, the history itself counted among them, (n_users,).

        Conformal (Vovk, Gammerman & Shafer 2005): for a history drawn as those of the calibration, a p-value of at most
        α has probability at most α. The smallest one is 1 / (calibration users + 1).
        """
        ordered = np.sort(self.scores(self.users))
        at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
        return (at_least + 1) / (len(ordered) + 1)

    def _standardise(self, reference: Vector, values: Vector, lengths: Vector) -> Vector:
        """Deviations from the mean at a length, in mean absolute deviations there; both are linear in log length."""
        x = np.log(self.users.lengths)
        at = np.clip(np.log(lengths), *np.quantile(x, [SHORTEST, LONGEST]))
        location = _fit_line(x, reference)
        deviations = np.abs(reference - location(x))
        floor = max(deviations.mean() / 2, 1e-6)  # against a line that falls to zero at one end
        scale = _fit_line(x, deviations)
        standardised: Vector = (values - location(at)) / np.maximum(scale(at), floor)
        return standardised

    def state(self) -> dict[str, FloatArray]:
        """Arrays for an artifact."""
        users = np.stack([self.users.lengths, self.users.misfit, self.users.rarity])
        return {USERS: users.astype(np.float32), GAIN: np.array([self.cap, self.weight], dtype=np.float32)}

    @classmethod
    def from_state(cls, users: FloatArray, gain: FloatArray) -> Self:
        """The inverse of `state`; `ArtifactError` for arrays that it cannot have given."""
        sound = users.ndim == 2 and len(users) == 3 and users.shape[1] >= FEWEST_USERS and gain.shape == (2,)
        sound = sound and np.isfinite(users).all() and np.isfinite(gain).all() and (users[0] >= 1).all()
        if not sound or not 0 < gain[1] <= 1:
            raise ArtifactError(f"{USERS} and {GAIN} are {users.shape} and {gain.shape}; expected finite numbers")
        lengths, misfit, rarity = users.astype(np.float64)
        return cls(Summary(lengths, misfit, rarity), *map(float, gain))


def _summarize(likelihood: HeldOutLikelihood, indptr: npt.NDArray[np.int32], cap: float, weight: float) -> Summary:
    lengths = np.diff(indptr).astype(np.float64)
    gains = _mix(np.minimum(likelihood.model - likelihood.popularity, cap), weight)
    misfit, rarity = (-np.add.reduceat(part, indptr[:-1]) / lengths for part in (gains, likelihood.popularity))
    return Summary(lengths, misfit, rarity)


def _mix(gains: Vector, weight: float) -> Vector:
    """Gains over popularity of a mixture in which the model, whose gains are given, has a weight."""
    with np.errstate(divide="ignore"):
        mixed: Vector = np.logaddexp(np.log(weight) + gains, np.log1p(-weight))
    return mixed


def _fit_weight(gains: Vector) -> float:
    """The weight of the largest likelihood."""
    found = minimize_scalar(lambda weight: -_mix(gains, weight).mean(), bounds=(LEAST_WEIGHT, 1), method="bounded")
    return float(found.x)


def _fit_line(x: Vector, y: Vector) -> Callable[[Vector], Vector]:
    """Fit a line by least squares; level where all x are the same."""
    x_middle, middle = float(x.mean()), float(y.mean())
    centred = x - x_middle
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread if spread > 1e-9 else 0.0
    return lambda at: middle + slope * (at - x_middle)
