"""Steps of the commands: from a prepared directory to an artifact or to evaluation results."""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recvae import tuning
from recvae.data.everything import Everything, read_everything
from recvae.data.prepared import Prepared, read_prepared
from recvae.data.splitting import Split
from recvae.errors import ArtifactError, MissingDependencyError, ParameterError
from recvae.evaluation import compare as comparison
from recvae.evaluation import evaluate as ev
from recvae.evaluation.report import render_report
from recvae.evaluation.results import format_results
from recvae.inference.new_items.cold_split import rank_cold_items
from recvae.memory import peak_memory
from recvae.models import registry
from recvae.models.autoencoders.decoder import Decoder
from recvae.models.base import Recommender
from recvae.models.generative.maps import draw_maps
from recvae.models.registry import MODELS, seed_params
from recvae.nn.parallelism import join_process_group
from recvae.storage import artifact
from recvae.storage.directories import follow_link, refuse_foreign, refuse_other_files
from recvae.storage.files import write_together
from recvae.training import checkpoint

RESULTS, REPORT = "results.json", "report.html"
SIDES = ("train", "all")


@dataclass(frozen=True)
class ComparisonRun:
    """Outcome of `compare`.

    Attributes
    ----------
    results : dict
        Content of results.json.
    models : dict
        Fitted models by name; those of the first seed.
    written : list of Path
        Files that were written.
    """

    results: dict[str, Any]
    models: dict[str, Recommender]
    written: list[Path]


def checkpoint_path(out: Path) -> Path:
    """Return the directory where training towards the artifact `out` keeps its state."""
    path = follow_link(out).absolute()
    return path.with_name(f"{path.name}.checkpoint")


def refuse_unwritable(out: Path) -> None:
    """Raise `ArtifactError` before long work, not after it, if its result cannot be written."""
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ArtifactError(f"{out} cannot be written: {parent} is not a directory that can be written to")


def train(
    directory: Path,
    out: Path,
    name: str,
    *,
    preset: str | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    resume: bool = False,
    on: str = "train",
) -> list[str]:
    """Train a model on a prepared directory and save it; return lines for the user.

    Processes started by torchrun train together; the first one saves the model and returns the lines.

    Parameters
    ----------
    on : "train" or "all"
        With "all" the model that was trained on the training users, and chose its settings on the validation users, is
        fitted again with these settings on all interactions, those of the test users too.

    Raises
    ------
    ParameterError
        For an unknown model, preset or hyperparameter, two different presets, or several processes for a model that
        one process trains.
    ArtifactError
        If `out` holds other files, or the data are damaged.
    TrainingError
        If the loss is no longer finite.
    """
    if on not in SIDES:
        raise ParameterError(f"on is {on!r}; expected one of {', '.join(SIDES)}")
    target, state = follow_link(out), checkpoint_path(out)
    refuse_unwritable(target)
    refuse_foreign(target, artifact.KIND)
    refuse_foreign(state, checkpoint.KIND)
    model = _create(name, _with_preset(params or {}, preset), seed)
    with join_process_group() as parallelism:
        if parallelism.size > 1 and not model.resumable:
            raise ParameterError(
                f"torchrun started {parallelism.size} processes, but {name} is trained by one; expected 1"
            )
        if parallelism.size > 1 and on == "all":
            raise ParameterError(f"on is 'all', which one process does; torchrun started {parallelism.size}")
        prepared = read_prepared(directory)
        split = prepared.split
        model.fit(split.train, validation=split.validation, checkpoint=state, resume=resume)
    if not parallelism.is_first:
        return []
    metrics, line = _validate(model, split)
    if on == "all":
        everything = read_everything(prepared)
        model = model.refit(everything.user_items)
        save_fitted_on_all(model, target, everything, prepared.identity, metrics)
    else:
        save(model, target, prepared, metrics)
    shutil.rmtree(state, ignore_errors=True)
    used = ", ".join(f"{name}={value}" for name, value in model.fitted_params().items() if name != "models")
    return [f"saved {out}: {type(model).__name__}({used})", line]


def tune(
    directory: Path,
    out: Path,
    name: str,
    *,
    trials: int,
    sampler: str = "tpe",
    storage: str | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_trial: Callable[[tuning.Trial], None] | None = None,
) -> list[str]:
    """Search hyperparameters on the validation users, train and save the best; return lines for the user.

    Parameters
    ----------
    storage : str, optional
        Database URL of the study; an SQLite file beside `out` when None. Repeating the command continues the study.

    Raises
    ------
    ParameterError
        For an unknown model, sampler or hyperparameter, or a storage that cannot be opened.
    """
    target = follow_link(out)
    refuse_unwritable(target)
    refuse_foreign(target, artifact.KIND)
    refuse_foreign(checkpoint_path(out), checkpoint.KIND)
    prepared = read_prepared(directory)
    found = tuning.tune(
        name,
        prepared.split,
        trials=trials,
        storage=storage or _make_study_url(target),
        study=f"{name} {prepared.identity['split_sha256'][:12]}",
        sampler=sampler,
        params={**(params or {}), **seed_params(name, seed)},
        seed=seed,
        on_trial=on_trial,
    )
    summary = f"best of {found.n_trials} trials, {found.n_pruned} of them pruned: {found.value:.4f} with {found.params}"
    return [summary, *train(directory, out, name, params=found.params, seed=seed)]


def _make_study_url(target: Path) -> str:
    """Name the SQLite file of a study, beside the model that will be written, and make the directory of both."""
    file = target.absolute().with_name(f"{target.name}.study.db")
    if found := set("?{}") & set(str(file)):
        raise ParameterError(f"out is {target}; expected a path without {found.pop()}, or a storage for the study")
    file.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{file}"


def save(model: Recommender, out: Path, prepared: Prepared, metrics: Mapping[str, Any]) -> None:
    """Save a model with the items and users of the data that it was trained on."""
    users = prepared.histories()
    if not model.folds_in:
        users = users[: prepared.split.train.shape[0]]
    registry.save(model, out, items=prepared.items, users=users, data=prepared.identity, metrics=metrics)


def save_fitted_on_all(
    model: Recommender, out: Path, everything: Everything, data: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Save a model that was fitted on everything, with the metrics of the one whose settings it has."""
    data = {**data, **everything.describe()}
    registry.save(model, out, items=everything.items, users=everything.users, data=data, metrics=metrics)


def evaluate(model_path: Path, directory: Path) -> dict[str, Any]:
    """Evaluate a saved model on the test users; return the content of results.json.

    Raises
    ------
    ArtifactError
        If either directory is damaged, or the model was trained on other items or another split.
    ParameterError
        If the model cannot fold in the test users.
    """
    loaded, prepared = registry.load(model_path), read_prepared(directory)
    if loaded.manifest["data"].get("fitted_on") == "all":
        raise ArtifactError(
            f"{model_path} was fitted on everything, so it has seen every test user; its manifest has the metrics of "
            "the model that it is fitted like"
        )
    if not loaded.items["item_id"].equals(prepared.items["item_id"]):
        raise ArtifactError(f"{model_path} was trained on other items than {directory} holds; prepare and train alike")
    if loaded.manifest["data"].get("split_sha256") not in (None, prepared.identity["split_sha256"]):
        raise ArtifactError(
            f"{model_path} was trained on another split than {directory} holds, so it may have seen what it "
            "would be tested on; expected the directory that it was trained on"
        )
    with peak_memory() as peak:
        ranks = rank_cold_items(loaded.model, prepared.split, prepared.items)
        result = ev.evaluate(ranks, prepared.split.test, train=prepared.split.train)
    run = comparison.ModelRun(result, None, peak.mb, loaded.model.fitted_params())
    compared = comparison.Comparison(
        {type(loaded.model).__name__: run}, [], {}, result.n_users, result.n_without_held_out
    )
    return describe_results(compared, prepared, loaded.manifest["hyperparameters"].get("seed"))


def compare(
    directory: Path,
    out: Path,
    names: Sequence[str],
    *,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    n_seeds: int = 1,
    on_result: Callable[[str, comparison.ModelRun], None] | None = None,
) -> ComparisonRun:
    """Train models, evaluate them on the same test users, and write `results.json` into the directory `out`.

    Parameters
    ----------
    names : sequence of str
    params : mapping, optional
        Hyperparameters by model name; "preset" among them picks a preset.
    seed, n_seeds : int
        Models that use random numbers are trained with `n_seeds` seeds from `seed` on; results are means over them.

    Raises
    ------
    ParameterError
        For an unknown model or hyperparameter, or for settings of a model that is not compared.
    ArtifactError
        If `out` holds other files, or the data are damaged.
    """
    settings = {name: dict(values) for name, values in (params or {}).items()}
    for name in settings:
        if name not in names:
            raise ParameterError(
                f"params (--set) has settings of {name}, which is not among those compared: {', '.join(names)}"
            )
    models: dict[str, list[Recommender]] = {}
    # A model that consists of others comes last and shares those beside it, so that each is fitted once.
    for name in sorted(names, key=lambda name: name in MODELS and MODELS[name].consists_of_models):
        models[name] = [
            _create(name, settings.get(name, {}), seed + i, {n: made[i % len(made)] for n, made in models.items()})
            for i in range(n_seeds if seed_params(name, seed) and "seed" not in settings.get(name, {}) else 1)
        ]
    refuse_other_report(out)
    prepared = read_prepared(directory)
    split, items = prepared.split, prepared.items
    ranks = {name: [rank_cold_items(model, split, items) for model in made] for name, made in models.items()}
    compared = comparison.compare(ranks, split, on_result=on_result)
    first = {name: made[0] for name, made in models.items()}
    results = {**describe_results(compared, prepared, seed), **_draw_maps(first, compared, prepared)}
    return ComparisonRun(results, first, write_results_and_report(out, results))


def refuse_other_report(out: Path) -> None:
    """Raise `ArtifactError` unless a report can be written into the directory `out`."""
    refuse_unwritable(follow_link(out))
    own = (RESULTS, REPORT) if (out / RESULTS).is_file() else ()
    refuse_other_files(out, "an earlier report", lambda file: file in own)


def write_results_and_report(out: Path, results: Mapping[str, Any]) -> list[Path]:
    """Write results.json, and report.html where matplotlib is installed, into a directory; return what was written."""
    follow_link(out).mkdir(parents=True, exist_ok=True)
    texts = {out / RESULTS: format_results(results)}
    with contextlib.suppress(MissingDependencyError):  # the figures are safe without the plots
        texts[out / REPORT] = render_report(results)
    write_together(texts)
    return list(texts)


def _draw_maps(
    models: Mapping[str, Recommender], compared: comparison.Comparison, prepared: Prepared
) -> dict[str, Any]:
    """Map items and users by the best autoencoder; nothing where there is none."""
    metric, items = ev.PRIMARY_METRICS[-1], prepared.items
    of = max(
        (name for name in compared.runs if isinstance(models[name], Decoder)),
        key=lambda name: compared.runs[name].result.mean(metric),
        default=None,
    )
    model = models.get(of) if of is not None else None
    if not isinstance(model, Decoder):
        return {}
    titles = items["title"].fillna(items["item_id"]) if "title" in items else items["item_id"]
    maps = draw_maps(model, prepared.split.train, titles.astype(str).tolist())
    return {name: {"model": of, **placed} for name, placed in maps.items()}


def _with_preset(params: Mapping[str, Any], preset: str | None) -> dict[str, Any]:
    """Return the settings with the preset; `ParameterError` if they name another one."""
    if preset is not None and params.get("preset", preset) != preset:
        raise ParameterError(f"--set preset={params['preset']} and --preset {preset} differ; expected one of them")
    return dict(params) if preset is None else {**params, "preset": preset}


def _create(
    name: str, settings: Mapping[str, Any], seed: int, beside: Mapping[str, Recommender] | None = None
) -> Recommender:
    """Create a model with the run's seed; "preset" among the settings picks a preset."""
    params = {**seed_params(name, seed), **settings}
    return MODELS.create(name, params.pop("preset", None), params, beside)


def _validate(model: Recommender, split: Split) -> tuple[dict[str, Any], str]:
    """Evaluate on the validation users; return the metrics for the artifact, and a line for the user."""
    if split.validation is None:
        return {}, "not validated: the split has no validation users"
    try:
        ev.refuse_new_users(model, split.validation)
    except ParameterError as error:
        return {}, f"not validated: {error}"
    figures = ev.evaluate(model, split.validation, ev.PRIMARY_METRICS)
    means = "  ".join(f"{metric} {figures.mean(metric):.4f}" for metric in ev.PRIMARY_METRICS)
    return {"validation": figures.as_dict()}, f"validation: {means}"


def describe_results(compared: comparison.Comparison, prepared: Prepared, seed: int | None) -> dict[str, Any]:
    """Make the content of results.json."""
    protocol = {**prepared.manifest["protocol"], "filters": prepared.manifest["filters"]}
    return compared.as_dict(dataset=prepared.manifest["dataset"], protocol=protocol, seed=seed)
