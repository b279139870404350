"""Candidates of a search: models with their defaults, and variations of settings that did well."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recvae.errors import ParameterError, shorten
from recvae.models.base import Recommender
from recvae.models.hyperparameters import RealRange, WholeRange
from recvae.models.registry import MODELS, seed_params

DEFAULT_MODELS = ("popularity", "bm25", "ease", "graph", "als", "multvae", "multdae", "recvae", "blend")
"""Candidates in the order in which they are tried, cheap ones first."""
SMALLER: Mapping[str, Mapping[str, Any]] = {"als": {"factors": 128}}
"""Settings with which a model is tried where there is no time for its defaults."""
SPREAD = 2.0
"""A variation of a setting lies between the best so far divided by this and multiplied by it."""
_DRAWS = 20


@dataclass(frozen=True)
class Candidate:
    """A model's name with its hyperparameters; defaults, such as None, are chosen in `fit`.

    Attributes
    ----------
    name : str
        A key of `MODELS`.
    params : mapping
        Hyperparameters that are set.
    varies : mapping
        Those that differ from the best so far.
    """

    name: str
    params: Mapping[str, Any]
    varies: Mapping[str, Any] = field(default_factory=dict)

    def create(self) -> Recommender:
        """Create the unfitted model."""
        return MODELS.create(self.name, None, self.params)


def check_names(models: str | Sequence[str] | None) -> tuple[str, ...]:
    """Check the names of the models to try, which may stand in one string with commas between them.

    Raises
    ------
    ParameterError
        For an unknown model, or none.
    """
    given = models.split(",") if isinstance(models, str) else models
    if not isinstance(given, Iterable | None):
        raise ParameterError(f"models is {shorten(models)}; expected some of {', '.join(MODELS)}")
    names = DEFAULT_MODELS if given is None else tuple(dict.fromkeys(str(name).strip() for name in given))
    for name in names:
        if name not in MODELS:
            raise ParameterError(f"models has {name!r}; expected some of {', '.join(MODELS)}")
    if not set(names) - {"blend"}:
        raise ParameterError(f"models is {models!r}; expected one or more models beside the blend of them")
    order = [name for name in MODELS if name not in DEFAULT_MODELS and not MODELS[name].resumable]
    order = [*DEFAULT_MODELS[:1], *order, *DEFAULT_MODELS[1:-1]]
    return tuple(sorted(names, key=lambda name: (name == "blend", order.index(name) if name in order else len(order))))


def run_params(name: str, metric: str, seed: int) -> dict[str, Any]:
    """Settings that all candidates of a run share, for a model that has them: the seed, the metric to choose by."""
    by_metric = {"metric": metric} if "metric" in MODELS[name].parameter_names() else {}
    return {**by_metric, **seed_params(name, seed)}


def train_for(name: str, metric: str, seed: int, epochs: int) -> Candidate:
    """A model's defaults with fewer epochs than it would choose."""
    return Candidate(name, {**run_params(name, metric, seed), "epochs": epochs}, {"epochs": epochs})


def shrink(candidate: Candidate) -> Candidate | None:
    """The candidate with settings that take less time; None for a model that has none."""
    if candidate.name not in SMALLER:
        return None
    return replace(candidate, params={**candidate.params, **SMALLER[candidate.name]})


def vary(name: str, best: Mapping[str, Any], generator: np.random.Generator) -> Candidate | None:
    """Draw settings around the best so far, from the ranges that the model's class declares.

    Each setting is changed with a chance of one half, at least one of them. None where there is nothing to change.
    """
    space = {key: values for key, values in MODELS[name].SPACE.items() if key in best}
    if not space:
        return None
    for _ in range(_DRAWS):
        chosen = [key for key in space if generator.random() < 0.5] or [list(space)[generator.integers(len(space))]]
        drawn = {key: _draw(space[key], best[key], generator) for key in chosen}
        varies = {key: value for key, value in drawn.items() if value != best[key]}
        if varies:
            return Candidate(name, {**best, **varies}, varies)
    return None


def describe_settings(varies: Mapping[str, Any]) -> str:
    """Write settings that were varied as they stand behind a model's name; nothing for its defaults."""
    return f" ({', '.join(f'{name} {value:.4g}' for name, value in varies.items())})" if varies else ""


def _draw(values: RealRange | WholeRange, best: Any, generator: np.random.Generator) -> float | int:
    """Draw a value of the range around `best`, or from the whole range where that is no number above 0."""
    low, high = float(values.low), float(values.high)
    if isinstance(best, int | float) and not isinstance(best, bool) and (best > 0 or not values.log):
        width = 0.25 * (high - low)
        around = (best / SPREAD, best * SPREAD) if values.log else (best - width, best + width)
        low, high = (float(np.clip(bound, low, high)) for bound in around)
    drawn = np.exp(generator.uniform(np.log(low), np.log(high))) if values.log else generator.uniform(low, high)
    return round(float(drawn)) if isinstance(values, WholeRange) else float(f"{drawn:.4g}")
