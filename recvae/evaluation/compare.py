"""Compare models on the same test users: fit, evaluate, measure the cost, test every pair."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from recvae.data.csr import check_csr
from recvae.data.splitting import Split
from recvae.errors import ParameterError
from recvae.evaluation.evaluate import (
    BEYOND_ACCURACY_METRICS,
    DEFAULT_METRICS,
    PRIMARY_METRICS,
    EvalResult,
    Ranks,
    evaluate,
    mean_result,
    refuse_new_users,
)
from recvae.evaluation.metrics import CATALOGUE_METRICS, parse_metric
from recvae.evaluation.results import FORMAT_VERSION
from recvae.evaluation.significance import PairedTest, holm, paired_test
from recvae.memory import peak_memory
from recvae.storage.directories import versions

RECALL_CURVE = tuple(f"recall@{k}" for k in (1, 2, 5, 10, 20, 50, 100))


class Fits(Ranks, Protocol):
    """What `compare` asks of a model on top of `Ranks`."""

    def fit(self, user_items: Any, *, show_progress: bool = ..., callback: Any = ..., validation: Any = ...) -> Any:
        """Learn from the interactions of the training users."""

    def get_params(self) -> Mapping[str, Any]:
        """The hyperparameters by name."""


@dataclass(frozen=True)
class Pair:
    """A paired test of model `a` against model `b`; `p_value` is corrected for all pairs of the metric."""

    a: str
    b: str
    metric: str
    test: PairedTest
    p_value: float


@dataclass(frozen=True, eq=False)
class ModelRun:
    """One model in a comparison: its figures and what they cost.

    Of a model with several seeds, the means over them; `by_seed` has the primary metrics of each.
    """

    result: EvalResult
    fit_seconds: float | None
    peak_rss_mb: float | None
    params: Mapping[str, Any]
    history: Sequence[Mapping[str, float]] = ()
    by_seed: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The model's entry in results.json."""
        return {
            "metrics": self.result.as_dict(),
            "by_history_length": {
                m: self.result.by_history_length(m) for m in self.result.per_user if m in PRIMARY_METRICS
            },
            "history": _plain(self.history),
            "fit_seconds": self.fit_seconds,
            "score_seconds": self.result.score_seconds,
            "peak_rss_mb": self.peak_rss_mb,
            "params": _plain(self.params),
            **({"by_seed": _plain(self.by_seed)} if self.by_seed else {}),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several models on the same test users.

    Attributes
    ----------
    runs : mapping of model name to ModelRun
    pairs : sequence of Pair
        Every two models on each primary metric.
    refused : mapping of model name to reason
        Models that cannot take part.
    n_users, n_without_held_out : int
        Test users scored, and those without held-out items.
    """

    runs: Mapping[str, ModelRun]
    pairs: Sequence[Pair]
    refused: Mapping[str, str]
    n_users: int
    n_without_held_out: int

    def as_dict(self, *, dataset: str, protocol: str | Mapping[str, Any], seed: int | None) -> dict[str, Any]:
        """The content of results.json: plain values, ready for `recvae.evaluation.results.write_results`."""
        return {
            "format_version": FORMAT_VERSION,
            "dataset": dataset,
            "protocol": _plain(protocol),
            "seed": seed,
            "versions": _versions(),
            "n_users": self.n_users,
            "n_without_held_out": self.n_without_held_out,
            "models": {name: run.as_dict() for name, run in self.runs.items()},
            "comparisons": [_pair_as_dict(pair) for pair in self.pairs],
            "refused": dict(self.refused),
        }


def compare(
    models: Mapping[str, Fits | Sequence[Fits]],
    split: Split,
    metrics: Sequence[str] | None = None,
    primary: Sequence[str] = PRIMARY_METRICS,
    *,
    show_progress: bool = True,
    on_result: Callable[[str, ModelRun], None] | None = None,
) -> Comparison:
    """Fit every model on `split.train`, evaluate it on `split.test`, and test every pair of models.

    Parameters
    ----------
    models : mapping of name to model, or to several that differ in their seed
        A model that was fitted on `split.train` already is taken as it is. Several count as one: each user's figure
        is the mean over them, which the paired tests compare.
    split : Split
        Its validation users, if any, go to `fit`; its test users to `evaluate` only.
    metrics : sequence of str, optional
        As for `evaluate`; the primary metrics are always among them.
    primary : sequence of str
        Metrics for paired tests, corrected by `holm` over the pairs of each metric.
    show_progress : bool
        Handed to `fit`.
    on_result : callable, optional
        `on_result(name, run)` after each model.

    Raises
    ------
    ParameterError
        If `models` is empty, a metric is unknown, or a primary metric has no value a user.
    """
    if not models:
        raise ParameterError("models is empty; expected at least one")
    metrics = _comparison_metrics(metrics, primary)
    runs: dict[str, ModelRun] = {}
    refused: dict[str, str] = {}
    for name, model in models.items():
        seeds = list(model) if isinstance(model, Sequence) else [model]
        try:
            refuse_new_users(seeds[0], split.test)
        except ParameterError as error:
            refused[name] = str(error).removeprefix(f"{type(seeds[0]).__name__} ")
            continue
        runs[name] = _mean_run([_run(seed, split, metrics, show_progress) for seed in seeds], primary)
        if on_result:
            on_result(name, runs[name])
    if not runs:
        raise ParameterError("; ".join(f"{name} {reason}" for name, reason in refused.items()))
    n_users = int(np.count_nonzero(np.diff(check_csr(split.test.held_out, "held_out").indptr)))
    return Comparison(runs, _pairs(runs, primary), refused, n_users, split.test.n_users - n_users)


def _run(model: Fits, split: Split, metrics: Sequence[str], show_progress: bool) -> ModelRun:
    with peak_memory() as peak:
        fit_seconds = _fit(model, split, show_progress)
        result = evaluate(model, split.test, metrics, train=split.train)
    return ModelRun(result, fit_seconds, peak.mb, dict(_fitted_params(model)), getattr(model, "history_", ()))


def _fit(model: Fits, split: Split, show_progress: bool) -> float | None:
    """Fit a model unless it was fitted on this matrix before; returns the seconds that fitting took, now or then."""
    fitted_on = getattr(model, "fitted_on", None)  # of this package's models; another library's are fitted here
    if fitted_on and fitted_on(split.train):
        seconds: float | None = getattr(model, "fit_seconds_", None)
        return seconds
    validation = split.validation and (split.validation.fold_in, split.validation.held_out)
    started = perf_counter()
    model.fit(split.train, show_progress=show_progress, validation=validation)
    return perf_counter() - started


def _mean_run(runs: Sequence[ModelRun], primary: Sequence[str]) -> ModelRun:
    """One run for a model's seeds; the history and settings are the first one's."""
    if len(runs) == 1:
        return runs[0]
    seconds = [run.fit_seconds for run in runs if run.fit_seconds is not None]
    peaks = [run.peak_rss_mb for run in runs if run.peak_rss_mb is not None]
    return replace(
        runs[0],
        result=mean_result([run.result for run in runs]),
        fit_seconds=sum(seconds) / len(seconds) if seconds else None,
        peak_rss_mb=max(peaks, default=None),
        by_seed={metric: [run.result.mean(metric) for run in runs] for metric in primary},
    )


def _fitted_params(model: Fits) -> Mapping[str, Any]:
    """Hyperparameters as they were used, where a model says so; else as they were given."""
    fitted_params: Callable[[], Mapping[str, Any]] = getattr(model, "fitted_params", model.get_params)
    return fitted_params()


def _comparison_metrics(metrics: Sequence[str] | None, primary: Sequence[str]) -> tuple[str, ...]:
    for metric in primary:
        if parse_metric(metric)[0] in CATALOGUE_METRICS:
            raise ParameterError(f"primary has {metric!r}, which has no value a user; expected metrics that have")
    return (*primary, *((*DEFAULT_METRICS, *BEYOND_ACCURACY_METRICS, *RECALL_CURVE) if metrics is None else metrics))


def _pairs(runs: Mapping[str, ModelRun], primary: Sequence[str]) -> list[Pair]:
    names = list(combinations(runs, 2))
    pairs = []
    for metric in dict.fromkeys(primary):
        tests = [paired_test(runs[a].result, runs[b].result, metric) for a, b in names]
        corrected = holm([test.p_value for test in tests])
        pairs += [Pair(a, b, metric, test, float(p)) for (a, b), test, p in zip(names, tests, corrected, strict=True)]
    return pairs


def _pair_as_dict(pair: Pair) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        "metric": pair.metric,
        "difference": _plain(pair.test.difference),
        "ci95": _plain(pair.test.ci95),
        "p_value": pair.p_value,
        "p_value_uncorrected": pair.test.p_value,
    }


def _versions() -> dict[str, str]:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {"python": platform.python_version(), **versions("implicit"), "machine": machine}


def _plain(value: Any) -> Any:
    """`value` as JSON knows it: numbers that are not finite become None, anything unknown its text."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "get_params") and not isinstance(value, type):
        return {"class": type(value).__name__, **_plain(value.get_params())}
    return str(value)
