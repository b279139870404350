"""Candidates that were fitted and measured on validation users."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

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
