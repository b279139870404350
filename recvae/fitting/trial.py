"""Trials: candidates fitted and measured on the validation users within their time, and the best of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import sparse

from recvae.data.splitting import Holdout
from recvae.errors import RecvaeError, first_line
from recvae.evaluation.evaluate import evaluate
from recvae.fitting.candidates import Candidate
from recvae.fitting.epochs import EpochWatch
from recvae.fitting.interruption import interrupt_after
from recvae.models.base import Recommender
from recvae.models.blending.weights import MOST_USERS

BLEND = "blend"


@dataclass(frozen=True)
class Trial:
    """A fitted candidate: its settings, its figure and its cost.

    Attributes
    ----------
    name : str
        The model's name.
    params : dict
        Hyperparameters as fitted.
    varies : dict
        Those that were varied; empty for a model's defaults.
    value : float
        The metric on the validation users.
    seconds : float
        Time to fit.
    refit_seconds, score_seconds : float
        Estimated time to fit the model on everything, and time to rank for the validation users.
    epochs : int, optional
        Number of the best epoch, for models that train in epochs.
    planned_epochs : int, optional
        Epochs that the model would choose, where fewer were trained.
    """

    name: str
    params: dict[str, Any]
    varies: dict[str, Any]
    value: float
    seconds: float
    refit_seconds: float
    score_seconds: float
    epochs: int | None = None
    planned_epochs: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Trial":
        """Create from plain data.

        Raises
        ------
        TypeError, ValueError
            If entries are missing or of another type.
        """
        trial = cls(**entry)
        if not isinstance(trial.name, str) or not isinstance(trial.params, dict):
            raise TypeError(f"trial is {entry!r}")
        for figure in (trial.value, trial.seconds, trial.refit_seconds, trial.score_seconds):
            float(figure)
        return trial


@dataclass(frozen=True, eq=False)
class Leader:
    """The best trial of a model so far, with the fitted model; of a blend, the names of the parts with a weight."""

    trial: Trial
    model: Recommender
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Attempt:
    """A fitted model, its figure on the validation users, and the seconds to fit it and to rank for them."""

    model: Recommender
    value: float
    seconds: float
    score_seconds: float


class FailedAttemptError(Exception):
    """Raised for a candidate that cannot be fitted, with the reason."""


def attempt(
    candidate: Candidate,
    train: sparse.csr_matrix,
    validation: Holdout,
    metric: str,
    *,
    allowed: float,
    watched: float,
    now: Callable[[], float],
    report: Callable[[int, int | None], None],
) -> Attempt:
    """Fit a candidate and measure it.

    Parameters
    ----------
    candidate : Candidate
    train : csr_matrix, shape (n_users, n_items)
    validation : Holdout
    metric : str
    allowed : float
        Seconds after which the attempt is ended.
    watched : float
        Seconds that training in epochs may be expected to take.
    now : callable
        Seconds of a clock.
    report : callable
        Called with the number of epochs done and of epochs in all, where the model knows it.

    Raises
    ------
    OutOfTimeError
        After the seconds allowed.
    TooManyEpochsError
        In training that would take longer than `watched`.
    FailedAttemptError
        If the model cannot be fitted to these data, or not on this machine.
    """
    try:
        model = candidate.create()
        watch = EpochWatch(model, watched, allowed, now, report)
        started = now()
        with interrupt_after(allowed):
            model.fit(
                train,
                show_progress=False,
                callback=watch if model.resumable else None,
                validation=validation,
            )
            fitted = now()
            value = measure(model, validation, metric)
    except (RecvaeError, MemoryError, ModuleNotFoundError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise FailedAttemptError(first_line(error)) from None
    return Attempt(model, value, fitted - started, now() - fitted)


def measure(model: Recommender, validation: Holdout, metric: str) -> float:
    """Measure a model on the validation users; a blend, while they are few, by weights chosen without each user."""
    cross_fitted: float | None = getattr(model, "cross_fitted_", None)
    if cross_fitted is not None and validation.n_users <= MOST_USERS:
        n_parts = np.count_nonzero(model.weights_)  # type: ignore[attr-defined]  # of a blend
        if n_parts > 1:
            return cross_fitted
    return evaluate(model, validation, [metric]).mean(metric)


def rank(leaders: Iterable[Leader], n_users: int) -> list[Leader]:
    """Order models by their figure on so many users, best first, but by few a blend before its parts.

    By few users a single model's figure is the highest of many, a blend's that of users who had no part in its weights;
    had a model been clearly better, the blend would be that model alone
    (`recvae.models.blending.weights.choose_weights`). Of more than `MOST_USERS` the others may say otherwise.
    """
    ranked = sorted(leaders, key=lambda leader: -leader.trial.value)
    if n_users > MOST_USERS:
        return ranked
    for blend in [leader for leader in ranked if leader.trial.name == BLEND]:
        ranked.remove(blend)
        parts = {id(model) for model in blend.model.models}  # type: ignore[attr-defined]
        after = (n for n, one in enumerate(ranked) if id(one.model) in parts or one.trial.value < blend.trial.value)
        ranked.insert(next(after, len(ranked)), blend)
    return ranked


def name_parts(blend: Recommender, leaders: Mapping[str, Leader]) -> tuple[str, ...]:
    """Name the models that have a weight in a blend."""
    weights = zip(blend.models, blend.weights_, strict=True)  # type: ignore[attr-defined]
    used = {id(model) for model, weight in weights if weight}
    return tuple(name for name, leader in leaders.items() if id(leader.model) in used)


def to_plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON has them."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in plain.items()}
