"""Comparison of models on the same test users: fit, evaluate, measure the cost, test every pair."""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from recvae.data.csr import check_csr
from recvae.data.splitting import Holdout, Split
from recvae.errors import ParameterError, shorten
from recvae.evaluation.evaluate import (
    BEYOND_ACCURACY_METRICS,
    DEFAULT_METRICS,
    PRIMARY_METRICS,
    EvalResult,
    Ranks,
    average_results,
    evaluate,
    refuse_new_users,
)
from recvae.evaluation.metrics import CATALOGUE_METRICS, parse_metric
from recvae.evaluation.results import FORMAT_VERSION
from recvae.evaluation.significance import PairedTest, holm, paired_test
from recvae.memory import peak_memory
from recvae.storage.manifest import versions

RECALL_CURVE = tuple(f"recall@{k}" for k in (1, 2, 5, 10, 20, 50, 100))


class Fits(Ranks, Protocol):
    """Methods of a model that `compare` calls beside those of `Ranks`."""

    def fit(self, user_items: Any, *, show_progress: bool = ..., callback: Any = ..., validation: Any = ...) -> Any:
        """Learn from the interactions of the training users."""

    def get_params(self) -> Mapping[str, Any]:
        """Get the hyperparameters by name."""


@dataclass(frozen=True)
class Pair:
    """Paired test of model `a` against model `b`; `p_value` is corrected for all pairs of the metric."""

    a: str
    b: str
    metric: str
    test: PairedTest
    p_value: float


@dataclass(frozen=True, eq=False)
class ModelRun:
    """One model in a comparison: its figures, and their cost in seconds and memory.

    With several seeds the figures are means over them, and `by_seed` has the primary metrics of each.
    """

    result: EvalResult
    fit_seconds: float | None
    peak_rss_mb: float | None
    params: Mapping[str, Any]
    history: Sequence[Mapping[str, float]] = ()
    by_seed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    latent_use: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self, primary: Iterable[str] = PRIMARY_METRICS) -> dict[str, Any]:
        """Convert to the model's entry in results.json, with the primary metrics by length of the history."""
        return {
            "metrics": self.result.as_dict(),
            "by_history_length": {m: self.result.by_history_length(m) for m in self.result.per_user if m in primary},
            "history": _to_plain(self.history),
            "fit_seconds": self.fit_seconds,
            "score_seconds": self.result.score_seconds,
            "peak_rss_mb": self.peak_rss_mb,
            "params": _to_plain(self.params),
            **({"by_seed": _to_plain(self.by_seed)} if self.by_seed else {}),
            **({"latent_use": _to_plain(self.latent_use)} if self.latent_use else {}),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results of several models on the same test users.

    Attributes
    ----------
    runs : mapping of model name to ModelRun
    pairs : sequence of Pair
        Every two models on each primary metric.
    refused : mapping of model name to reason
        Models that cannot take part.
    n_users, n_without_held_out : int
        Scored test users, and test users without held-out items.
    """

    runs: Mapping[str, ModelRun]
    pairs: Sequence[Pair]
    refused: Mapping[str, str]
    n_users: int
    n_without_held_out: int

    def as_dict(self, *, dataset: str, protocol: str | Mapping[str, Any], seed: int | None) -> dict[str, Any]:
        """Convert to the content of results.json: plain values for `recvae.evaluation.results.write_results`."""
        primary = {*PRIMARY_METRICS, *(pair.metric for pair in self.pairs)}
        return {
            "format_version": FORMAT_VERSION,
            "dataset": dataset,
            "protocol": _to_plain(protocol),
            "seed": seed,
            "versions": _list_versions(),
            "n_users": self.n_users,
            "n_without_held_out": self.n_without_held_out,
            "models": {name: run.as_dict(primary) for name, run in self.runs.items()},
            "comparisons": [_pair_to_dict(pair) for pair in self.pairs],
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
        A model that was fitted on `split.train` before is not fitted again. Several count as one model: each user's
        figure is the mean over them, and the paired tests compare these means.
    split : Split
        Its validation users, if any, go to `fit`; its test users to `evaluate` only.
    metrics : sequence of str, optional
        As for `evaluate`; the primary metrics are always included.
    primary : sequence of str
        Metrics of the paired tests, corrected by `holm` over the pairs of each metric.
    show_progress : bool
        Passed to `fit`.
    on_result : callable, optional
        `on_result(name, run)` after each model.

    Raises
    ------
    ParameterError
        If `models` is empty or holds something else, `split` is no `Split`, a metric is unknown, or a primary metric
        has no value for each user.
    """
    listed = _list_models(models)
    if not isinstance(split, Split):
        raise ParameterError(f"split is a {type(split).__name__}; expected a Split")
    metrics = _list_metrics(metrics, primary)
    runs: dict[str, ModelRun] = {}
    refused: dict[str, str] = {}
    for name, seeds in listed.items():
        try:
            refuse_new_users(seeds[0], split.test)
        except ParameterError as error:
            refused[name] = str(error).removeprefix(f"{type(seeds[0]).__name__} ")
            continue
        runs[name] = _average_runs([_run(seed, split, metrics, show_progress) for seed in seeds], primary)
        if on_result:
            on_result(name, runs[name])
    if not runs:
        raise ParameterError("; ".join(f"{name} {reason}" for name, reason in refused.items()))
    return _summarise(runs, refused, split.test, primary)


def _list_models(models: Mapping[str, Fits | Sequence[Fits]]) -> dict[str, list[Fits]]:
    """List the models under each name, one for each seed."""
    if not isinstance(models, Mapping):
        raise ParameterError(f"models is a {type(models).__name__}; expected a mapping of names to models")
    if not models:
        raise ParameterError("models is empty; expected at least one")
    listed = {name: list(given) if isinstance(given, Sequence) else [given] for name, given in models.items()}
    for name, seeds in listed.items():
        if not seeds or not all(hasattr(model, "fit") and not isinstance(model, type) for model in seeds):
            raise ParameterError(
                f"models has {shorten(models[name])} as {name!r}; expected a model, or one for each seed"
            )
    return listed


def combine(
    runs: Mapping[str, Sequence[ModelRun]],
    holdout: Holdout,
    primary: Sequence[str] = PRIMARY_METRICS,
    refused: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare runs that were made apart, in other processes or on other days.

    Parameters
    ----------
    runs : mapping of model name to ModelRun
        One for each seed of the model, all evaluated on `holdout`.
    holdout : Holdout
    primary : sequence of str
        Metrics of the paired tests.
    refused : mapping of model name to reason, optional
        Models that could not take part.
    """
    averaged = {name: _average_runs(of_seeds, primary) for name, of_seeds in runs.items()}
    return _summarise(averaged, refused or {}, holdout, primary)


def _summarise(
    runs: Mapping[str, ModelRun], refused: Mapping[str, str], holdout: Holdout, primary: Sequence[str]
) -> Comparison:
    n_users = int(np.count_nonzero(np.diff(check_csr(holdout.held_out, "held_out").indptr)))
    return Comparison(runs, _test_pairs(runs, primary), refused, n_users, holdout.n_users - n_users)


def _run(model: Fits, split: Split, metrics: Sequence[str], show_progress: bool) -> ModelRun:
    with peak_memory() as peak:
        fit_seconds = _fit(model, split, show_progress)
        result = evaluate(model, split.test, metrics, train=split.train)
    params, history = dict(_fitted_params(model)), getattr(model, "history_", ())
    use = getattr(model, "latent_use_", None)  # of models with a posterior over latent dimensions
    latent_use = {} if use is None else use.as_dict(history[-1] if history else {})
    return ModelRun(result, fit_seconds, peak.mb, params, history, latent_use=latent_use)


def _fit(model: Fits, split: Split, show_progress: bool) -> float | None:
    """Fit a model unless it was fitted on this matrix before; return the seconds that fitting took, now or then."""
    fitted_on = getattr(model, "fitted_on", None)  # of this package's models; another library's are fitted here
    if fitted_on and fitted_on(split.train):
        seconds: float | None = getattr(model, "fit_seconds_", None)
        return seconds
    validation = split.validation and (split.validation.fold_in, split.validation.held_out)
    started = perf_counter()
    model.fit(split.train, show_progress=show_progress, validation=validation)
    return perf_counter() - started


def _average_runs(runs: Sequence[ModelRun], primary: Sequence[str]) -> ModelRun:
    """Average the runs of a model's seeds; history, latent dimensions and hyperparameters are those of the first."""
    if len(runs) == 1:
        return runs[0]
    seconds = [run.fit_seconds for run in runs if run.fit_seconds is not None]
    peaks = [run.peak_rss_mb for run in runs if run.peak_rss_mb is not None]
    return replace(
        runs[0],
        result=average_results([run.result for run in runs]),
        fit_seconds=sum(seconds) / len(seconds) if seconds else None,
        peak_rss_mb=max(peaks, default=None),
        by_seed={metric: [run.result.mean(metric) for run in runs] for metric in primary},
    )


def _fitted_params(model: Fits) -> Mapping[str, Any]:
    """Hyperparameters as they were used, where a model says so; else as they were given."""
    fitted_params: Callable[[], Mapping[str, Any]] = getattr(model, "fitted_params", model.get_params)
    return fitted_params()


def _list_metrics(metrics: Sequence[str] | None, primary: Sequence[str]) -> tuple[str, ...]:
    for metric in primary:
        if parse_metric(metric)[0] in CATALOGUE_METRICS:
            raise ParameterError(
                f"primary has {metric!r}, which has no value for each user; expected metrics that have one"
            )
    return (*primary, *((*DEFAULT_METRICS, *BEYOND_ACCURACY_METRICS, *RECALL_CURVE) if metrics is None else metrics))


def _test_pairs(runs: Mapping[str, ModelRun], primary: Sequence[str]) -> list[Pair]:
    names = list(combinations(runs, 2))
    pairs = []
    for metric in dict.fromkeys(primary):
        tests = [paired_test(runs[a].result, runs[b].result, metric) for a, b in names]
        corrected = holm([test.p_value for test in tests])
        pairs += [Pair(a, b, metric, test, float(p)) for (a, b), test, p in zip(names, tests, corrected, strict=True)]
    return pairs


def _pair_to_dict(pair: Pair) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        "metric": pair.metric,
        "difference": _to_plain(pair.test.difference),
        "ci95": _to_plain(pair.test.ci95),
        "p_value": pair.p_value,
        "p_value_uncorrected": pair.test.p_value,
    }


def _list_versions() -> dict[str, str]:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {"python": platform.python_version(), **versions("implicit"), "machine": machine}


def _to_plain(value: Any) -> Any:
    """Convert a value to JSON types: numbers that are not finite become None, other objects their text."""
    if isinstance(value, np.generic | np.ndarray):
        return _to_plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(entry) for entry in value]
    if hasattr(value, "get_params") and not isinstance(value, type):
        return {"class": type(value).__name__, **_to_plain(value.get_params())}
    return str(value)
