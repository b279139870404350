"""`sweep`: one hyperparameter over a range and the others fixed, so that one sees what it does."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy import sparse, stats

from recvae.data.csr import check_csr
from recvae.data.prepared import read_prepared
from recvae.data.splitting import Holdout, Split
from recvae.errors import MissingDependencyError, ParameterError, TrainingError
from recvae.evaluation.evaluate import PRIMARY_METRICS, evaluate, refuse_new_users
from recvae.evaluation.results import write_results
from recvae.evaluation.sweep_page import summarise, write_sweep_page
from recvae.models.base import Recommender
from recvae.models.generative.anomaly import AnomalyDetector, choose_users
from recvae.models.generative.draws import draw_by_popularity
from recvae.models.hyperparameters import RealRange, SearchSpace
from recvae.models.registry import MODELS, create, seed_params
from recvae.storage.directories import follow_link, refuse_other_files
from recvae.storage.manifest import versions
from recvae.workflow import refuse_unwritable

FORMAT_VERSION = 1
N_VALUES = 6
RESULTS, PAGE = "sweep.json", "sweep.html"
BETA = "beta"
BETA_RANGE = RealRange(0.01, 1.0)
CONSTANT_BETA = {"gamma": None, "total_anneal_steps": 0}
"""Settings of MultVAE under which `anneal_cap` is the KL weight of every user, from the first update on."""

Point = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Trainings of one model that differ in one hyperparameter and in the seed.

    Attributes
    ----------
    name, knob, metric : str
        The model, what varies, and the metric on validation users.
    fixed : mapping
        Hyperparameters that were given; the others are the model's defaults.
    trainings : sequence of (value, seed, hyperparameters)
        In their order: every value with the first seed, then with the next.
    points : list of dict
        `value`, `seed`, and what the training came to; filled by `run`.
    """

    name: str
    knob: str
    metric: str
    fixed: Mapping[str, Any]
    trainings: Sequence[tuple[float, int, Mapping[str, Any]]]
    points: list[Point] = field(default_factory=list)

    def run(self, split: Split, on_point: Callable[[Point], None] | None = None) -> None:
        """Train all models and evaluate them on the validation users; test users are never used.

        Parameters
        ----------
        split : Split
        on_point : callable, optional
            Called after each training.

        Raises
        ------
        ParameterError
            If there are no validation users, or the model cannot fold them in.
        """
        if split.validation is None:
            raise ParameterError("the split has no validation users, and tuning never uses test users")
        for value, seed, params in self.trainings:
            model = create(self.name, **params)
            refuse_new_users(model, split.validation)
            self.points.append({"value": value, "seed": seed, **_measure(model, split, split.validation, self.metric)})
            if on_point is not None:
                on_point(self.points[-1])

    def as_dict(self, dataset: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """Content of sweep.json."""
        return {
            "format_version": FORMAT_VERSION,
            "dataset": dataset,
            "protocol": dict(protocol),
            "model": self.name,
            "knob": self.knob,
            "metric": self.metric,
            "fixed": dict(self.fixed),
            "versions": versions(),
            "points": self.points,
        }


def plan_sweep(
    name: str,
    knob: str,
    values: Sequence[float] | None = None,
    *,
    seeds: int = 2,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> Sweep:
    """Check and prepare a sweep.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    knob : str
        A hyperparameter of the model's `SPACE`; or "beta", MultVAE's `anneal_cap` without annealing.
    values : sequence of numbers, optional
        Six over the range of the space when None.
    seeds, seed : int
        A model that uses random numbers is trained with so many seeds from `seed` on.
    params : mapping, optional
        Hyperparameters that are the same in all trainings; "preset" among them picks a preset.

    Raises
    ------
    ParameterError
        For a model without such a knob, fewer than two values, or a value that the model refuses.
    """
    params, known = dict(params or {}), list_knobs(name)
    if knob not in known:
        raise ParameterError(f"sweep is {knob!r}; {name} has {', '.join(known) or 'nothing to sweep'}")
    tried = sorted(set(known[knob].grid(N_VALUES) if values is None else values))
    if len(tried) < 2:
        raise ParameterError(f"values is {values}; expected at least two different numbers")
    varied = {"anneal_cap", "gamma"} if knob == BETA else {knob}
    if fixed := sorted(varied & params.keys()):
        raise ParameterError(f"{fixed[0]} is set, but sweep is {knob!r}; expected one of them")
    steady = {**(CONSTANT_BETA if knob == BETA else {}), **params}
    parameter = "anneal_cap" if knob == BETA else knob
    n_seeds = seeds if seed_params(name, seed) and "seed" not in params else 1
    trainings = [
        (value, number, {**seed_params(name, number), **steady, parameter: value})
        for number in range(seed, seed + n_seeds)
        for value in tried
    ]
    models = [create(name, **settings) for _, _, settings in trainings]  # refuses a wrong value before any training
    return Sweep(name, knob, getattr(models[0], "metric", PRIMARY_METRICS[-1]), params, trainings)


def list_knobs(name: str) -> SearchSpace:
    """The hyperparameters of a model that can be swept, with their ranges."""
    if name not in MODELS:
        raise ParameterError(f"model is {name!r}; expected one of {', '.join(MODELS)}")
    model = MODELS[name]
    beta: SearchSpace = {BETA: BETA_RANGE} if "anneal_cap" in model.parameter_names() else {}
    return {**model.SPACE, **beta}


def sweep(directory: Path, out: Path, planned: Sweep, on_point: Callable[[Point], None] | None = None) -> list[str]:
    """Run a sweep on a prepared directory; write sweep.json, and sweep.html where matplotlib is installed, into `out`.

    After Ctrl-C both show the trainings that were finished.

    Returns
    -------
    list of str
        Lines for the user.
    """
    target = follow_link(out)
    refuse_unwritable(target)
    refuse_other_files(out, "an earlier sweep", lambda file: file in (RESULTS, PAGE) and (out / RESULTS).is_file())
    prepared = read_prepared(directory)
    manifest = prepared.manifest
    try:
        planned.run(prepared.split, on_point)
    finally:
        results = planned.as_dict(manifest["dataset"], {**manifest["protocol"], "filters": manifest["filters"]})
        written = _write(target, results) if planned.points else []
    rows = summarise(results)
    lines = [f"wrote {' and '.join(str(out / name) for name in written)}"]
    if not rows:
        return ["every training diverged", *lines]
    best = max(rows, key=lambda row: row.means[planned.metric])
    return [f"best {planned.knob}: {best.value:g}, {planned.metric} {best.means[planned.metric]:.4f}", *lines]


def _write(target: Path, results: Mapping[str, Any]) -> list[str]:
    target.mkdir(parents=True, exist_ok=True)
    write_results(target / RESULTS, results)
    written = [RESULTS]
    with contextlib.suppress(MissingDependencyError):  # the figures are safe without the plots
        write_sweep_page(target / PAGE, results)
        written.append(PAGE)
    return written


def _measure(model: Recommender, split: Split, validation: Holdout, metric: str) -> Point:
    """Train a model; return its metric, cost and, for variational autoencoders, the terms of its loss."""
    started = perf_counter()
    try:
        model.fit(split.train, show_progress=False, validation=validation)
    except TrainingError as error:
        return {"diverged": str(error)}
    seconds = perf_counter() - started
    result = evaluate(model, validation, [metric])
    point: Point = {metric: result.mean(metric), "stderr": result.stderr(metric), "seconds": round(seconds, 2)}
    epochs = getattr(model, "history_", [])
    if epochs:
        point["best_epoch"] = getattr(model, "best_epoch_", len(epochs))
        epoch = epochs[point["best_epoch"] - 1]
        point |= {term: epoch[term] for term in ("kl", "nll") if term in epoch}
        use = getattr(model, "latent_use_", None)
        if use is not None:
            point |= {"active_units": use.active_units, "warnings": list(use.warnings(epoch))}
    if isinstance(model, AnomalyDetector) and model.calibration_ is not None:
        point["anomaly_auc"] = _measure_anomaly_auc(model, split.train, validation)
    return point


def _measure_anomaly_auc(model: AnomalyDetector, train: sparse.csr_matrix, validation: Holdout) -> float:
    """Measure, as an AUC, how anomaly scores tell histories drawn by popularity from real ones of the same lengths.

    The real ones are of the validation users that the scores are calibrated on.
    """
    real = choose_users(check_csr(validation.fold_in.maximum(validation.held_out), "validation"))
    drawn = draw_by_popularity(real, np.bincount(train.indices, minlength=train.shape[1]))
    larger = stats.mannwhitneyu(model.anomaly_score(drawn), model.anomaly_score(real)).statistic
    return float(larger / real.shape[0] ** 2)
