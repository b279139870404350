"""Hyperparameter search with Optuna, on the validation users; test users are never used."""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recvae.data.splitting import Holdout, Split
from recvae.errors import MissingDependencyError, ParameterError, TrainingError, first_line, redact_url
from recvae.evaluation.evaluate import evaluate, refuse_new_users
from recvae.models.base import Recommender
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange, one_of, whole
from recvae.models.registry import MODELS, create

SAMPLERS = ("tpe", "random", "grid")


@dataclass(frozen=True)
class Trial:
    """Finished trial of a study.

    Attributes
    ----------
    number : int
        Finished trials of the study, this one included.
    params : mapping
    value : float, optional
        Validation metric; None if it was pruned.
    best : float, optional
        The highest of the study so far; None while every trial was pruned.
    """

    number: int
    params: Mapping[str, Any]
    value: float | None
    best: float | None


@dataclass(frozen=True)
class SearchResult:
    """Best hyperparameters of a study, their validation metric, and the numbers of finished and of pruned trials."""

    params: dict[str, Any]
    value: float
    n_trials: int
    n_pruned: int


def tune(
    name: str,
    split: Split,
    *,
    trials: int,
    storage: str | None = None,
    study: str = "recvae",
    sampler: str = "tpe",
    metric: str = "ndcg@100",
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Search a model's hyperparameters until the study has a number of finished trials.

    Parameters
    ----------
    name : str
        A key of `MODELS` whose class declares a `SPACE`.
    split : Split
        Only `train` and `validation` are used.
    trials : int
        Finished trials of the study to reach, trials of earlier and of other processes included.
    storage : str, optional
        Database URL, such as `postgresql+psycopg://user@host/database`; a study in it is resumed, and processes that
        name the same study share it. None keeps the study in memory.
    study : str
        Name of the study in the storage.
    sampler : "tpe", "random" or "grid"
    metric : str
        Metric to maximise on the validation users.
    params : mapping, optional
        Hyperparameters that are not searched.
    seed : int
        Seed of the sampler.
    on_trial : callable, optional
        Called after each trial.

    Raises
    ------
    ParameterError
        If the model has no space or refuses `params`, the split has no validation users or users whom the model
        cannot rank for, or the storage cannot be opened.
    MissingDependencyError
        If Optuna or the database's driver is not installed.
    """
    optuna = _import_optuna()
    validation = _get_validation(split)
    space = _choose_space(name, params or {}, validation)
    trials, seed, sampler = whole("trials", trials), whole("seed", seed, 0), one_of("sampler", sampler, SAMPLERS)
    fixed = {**_metric_parameter(name, metric), **(params or {})}
    refuse_new_users(create(name, **fixed), validation)
    identity = {"model": name, "metric": metric, "fixed": json.loads(json.dumps(fixed))}
    shared = _open_study(optuna, storage, study, identity)
    shared.sampler = _create_sampler(optuna, sampler, space, [seed, len(shared.trials), os.getpid() if storage else 0])
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    def objective(trial: Any) -> float:
        chosen = {parameter: _suggest(trial, parameter, values) for parameter, values in space.items()}
        model = create(name, **{**fixed, **chosen})
        callback = _pruning_callback(optuna, trial, model)
        try:
            model.fit(split.train, show_progress=False, callback=callback, validation=validation)
        except TrainingError as error:
            raise optuna.TrialPruned from error
        return evaluate(model, validation, [metric]).mean(metric)

    def stop_when_done(study: Any, trial: Any) -> None:
        done = study.get_trials(deepcopy=False, states=finished)
        if on_trial is not None:
            on_trial(_describe_trial(trial, done))
        if len(done) >= trials:
            study.stop()

    if len(shared.get_trials(deepcopy=False, states=finished)) < trials:
        shared.optimize(objective, n_trials=trials, callbacks=[stop_when_done])
    done = shared.get_trials(deepcopy=False, states=finished)
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in done)
    if pruned == len(done):
        raise TrainingError(f"none of {pruned} trials has a result; every one diverged or was pruned")
    return SearchResult({**shared.best_params, **fixed}, shared.best_value, len(done), pruned)


def _describe_trial(trial: Any, done: list[Any]) -> Trial:
    values = {one.number: one.value for one in done if one.state.name == "COMPLETE"}  # pruned ones have values, too
    return Trial(len(done), trial.params, values.get(trial.number), max(values.values(), default=None))


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError("tuning needs Optuna; install recvae with the extra 'tune'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of a failed trial with a traceback, and raises it too
    return optuna


def _choose_space(name: str, fixed: Mapping[str, Any], validation: Holdout) -> SearchSpace:
    if name not in MODELS:
        raise ParameterError(f"model is {name!r}; expected one of {', '.join(MODELS)}")
    space = {parameter: values for parameter, values in MODELS[name].SPACE.items() if parameter not in fixed}
    if not space and (given := MODELS[name].SPACE):
        raise ParameterError(f"{', '.join(given)} of {name} are set, and it has no other to search; leave one out")
    if not space:
        only_known = bool((validation.train_rows >= 0).all())
        tunable = ", ".join(key for key, model in MODELS.items() if model.SPACE and (model.folds_in or only_known))
        raise ParameterError(f"{name} has no hyperparameter to search; models that have are {tunable}")
    return space


def _get_validation(split: Split) -> Holdout:
    if split.validation is None:
        raise ParameterError("the split has no validation users, and tuning never uses test users")
    return split.validation


def _metric_parameter(name: str, metric: str) -> dict[str, str]:
    """Pass the metric to models that choose their best epoch by one, so that they choose it by the tuned metric."""
    return {"metric": metric} if "metric" in inspect.signature(MODELS[name]).parameters else {}


def _create_sampler(optuna: Any, sampler: str, space: SearchSpace, entropy: list[int]) -> Any:
    """Create a sampler that does not repeat the draws of earlier or other processes of the study."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    if sampler == "grid":
        return optuna.samplers.GridSampler({name: values.grid() for name, values in space.items()}, seed=seed)
    return {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler](seed=seed)


def _open_study(optuna: Any, storage: str | None, study: str, identity: Mapping[str, Any]) -> Any:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=5)
    try:
        opened = optuna.create_study(
            storage=_open_database(optuna, storage),
            study_name=study,
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
    except ImportError as error:
        driver = getattr(error.__cause__ or error.__context__, "name", None) or "of its database"
        raise MissingDependencyError(
            f"storage is {redact_url(storage or '')!r}, which needs the driver {driver}; for PostgreSQL "
            "install 'psycopg[binary]' and begin the URL with postgresql+psycopg://"
        ) from None
    except Exception as error:  # noqa: BLE001  (each driver has errors of its own)
        raise ParameterError(
            f"storage is {redact_url(storage or '')!r}, which cannot be opened: {first_line(error)}"
        ) from None
    for key, value in identity.items():
        if opened.user_attrs.setdefault(key, value) != value:
            raise ParameterError(
                f"study {study!r} has {key} {opened.user_attrs[key]!r}, not {value!r}; "
                "expected another storage for a new study"
            )
        opened.set_user_attr(key, value)
    return opened


def _open_database(optuna: Any, storage: str | None) -> Any:
    """Open the study's database without a connection pool: a study may wait for hours between two uses."""
    from sqlalchemy.pool import NullPool  # comes with Optuna

    return None if storage is None else optuna.storages.RDBStorage(storage, engine_kwargs={"poolclass": NullPool})


def _suggest(trial: Any, name: str, values: RealRange | WholeRange) -> Any:
    suggest = trial.suggest_float if isinstance(values, RealRange) else trial.suggest_int
    return suggest(name, values.low, values.high, log=values.log)


def _pruning_callback(optuna: Any, trial: Any, model: Recommender) -> Callable[[int, float, float], None]:
    """Make a callback that reports the validation metric of each epoch, and ends the trial if Optuna prunes it."""

    def callback(epoch: int, seconds: float, loss: float) -> None:
        del seconds, loss
        history = getattr(model, "history_", None)
        metric = getattr(model, "metric", None)
        if history and metric in history[-1]:
            trial.report(history[-1][metric], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

    return callback
