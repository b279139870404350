"""Runs of models kept on disk, so that a table goes on where it was cut off; and what a model needs of a machine."""

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy import sparse

import recvae
from benchmarks import record
from recvae.data.prepared import Prepared, read_prepared
from recvae.data.splitting import Split
from recvae.evaluation.compare import ModelRun
from recvae.evaluation.evaluate import EvalResult
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.base import Recommender
from recvae.models.blending.blend import DEFAULT_MODELS
from recvae.models.registry import MODELS, create, load, save, seed_params
from recvae.preparation.pipeline import Options, prepare
from recvae.storage.files import write_text

PREPARED = Path(__file__).parent.parent / "data" / "prepared"
OURS = "recvae fit"
"""The row of a table that is not one model but the search for one."""
PARTS = tuple(name for name in DEFAULT_MODELS if name != "als" or find_spec("implicit"))  # of a blend
DENSE = ("ease", "blend", OURS)  # hold matrices of items by items
MANY_ITEMS = 20_000
SLOWEST_FIRST = (OURS, "blend", "ease", "recvae", "multvae", "multdae", "als", "graph", "lmf", "bpr")


def open_data(name: str, folder: Path) -> Prepared:
    """Read the prepared directory `folder`/`name`; prepare the data set if there is none."""
    directory = folder / name
    if not directory.exists():
        for line in prepare(name, directory, Options()):
            print(line, flush=True)
    return read_prepared(directory)


def model_name(row: str) -> str:
    """The registry's name of a row's model, such as "multvae" of "multvae (paper)"."""
    return row if row == OURS else row.split(" ", 1)[0]


def needs_seeds(row: str) -> bool:
    """Tell if a model differs from seed to seed by more than rounding."""
    name = model_name(row)
    return name in ("bpr", "lmf", "blend") or (name != OURS and issubclass(MODELS[name], Autoencoder))


def estimate_memory(row: str, n_items: int) -> int:
    """Bytes that a model takes at its peak, roughly."""
    matrices = 4 if model_name(row) in DENSE else 0
    return (2 << 30) + matrices * 4 * n_items**2


def estimate_gpu_memory(row: str, n_items: int) -> int:
    """Bytes of a GPU's memory that a model takes at its peak, roughly."""
    name = model_name(row)
    network = 3 << 30 if name in (OURS, "blend") or (name != OURS and issubclass(MODELS[name], Autoencoder)) else 0
    return network + (4 * 4 * n_items**2 if name in DENSE else 0)


def choose_threads(row: str, n_items: int, cores: int, workers: int) -> int:
    """Threads for a model: more for the closed forms of many items, which nothing else can shorten."""
    share = max(1, cores // workers)
    return max(share, cores // 4) if model_name(row) in DENSE and n_items > MANY_ITEMS else share


def rank_by_cost(row: str) -> int:
    """Sorting key that puts the slowest models first."""
    name = model_name(row)
    return SLOWEST_FIRST.index(name) if name in SLOWEST_FIRST else len(SLOWEST_FIRST)


def whole_training(split: Split) -> sparse.csr_matrix:
    """Training interactions together with those that validation held out of the same users."""
    if split.validation is None or (split.validation.train_rows < 0).any():
        return split.train
    held_out = split.validation.held_out.tocoo()
    rows = split.validation.train_rows[held_out.row]
    added = sparse.csr_matrix((held_out.data, (rows, held_out.col)), shape=split.train.shape)
    whole: sparse.csr_matrix = (split.train + added).tocsr()
    whole.sort_indices()
    return whole


def fit_within(
    directory: Path, train: sparse.csr_matrix, seconds: float, metric: str
) -> tuple[Recommender, dict[str, Any], float]:
    """Run `recvae fit` on a prepared directory, and fit the model that it chose again, on training interactions only.

    What it hands out is fitted on everything, test users included; the settings were chosen on the validation users.

    Returns
    -------
    model, what was chosen, and the seconds of the search
    """
    started = perf_counter()
    fitted = recvae.fit(directory, budget=seconds, metric=metric, show_progress=False)
    spent = perf_counter() - started
    model = fitted.model.refit(train, show_progress=False)
    tried = (fitted.results or {}).get("search", {}).get("candidates", [])
    chosen = {"model": fitted.name, **describe_params(model), "tried": len(tried), "budget_seconds": seconds}
    return model, chosen, spent


def describe_params(model: Recommender) -> dict[str, Any]:
    """Hyperparameters as used; the models of a blend as its parts, which were fitted for it alone."""
    params = model.fitted_params()
    if parts := params.pop("models", None):
        params["parts"] = [part["class"] for part in parts]
    return params


def describe_machine() -> str:
    """Processor, cores and GPU of this machine, in one line."""
    found = record.describe_machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{found['cpu']}, {found['cores']} cores{gpu}"


def write_run(path: Path, run: ModelRun, **facts: Any) -> None:
    """Write a run as `path`.npz, its figures for each user, and `path`.json, everything else."""
    result = run.result
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = dict(result.per_user)
    if result.history_lengths is not None:
        arrays["history_lengths"] = result.history_lengths
    np.savez_compressed(path.with_name(f"{path.name}.npz"), **arrays)
    plain = run.as_dict()
    content = {
        **facts,
        "machine": describe_machine(),
        "totals": dict(result.totals),
        "n_users": result.n_users,
        "n_without_held_out": result.n_without_held_out,
        **{name: plain[name] for name in ("fit_seconds", "score_seconds", "peak_rss_mb", "params", "history")},
    }
    write_text(path.with_name(f"{path.name}.json"), json.dumps(content, indent=1) + "\n")


def read_run(path: Path) -> tuple[ModelRun, Mapping[str, Any]]:
    """Read a run that `write_run` wrote, and its facts."""
    facts = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf8"))
    with np.load(path.with_name(f"{path.name}.npz"), allow_pickle=False) as arrays:
        per_user = {name: arrays[name] for name in arrays.files}
    lengths = per_user.pop("history_lengths", None)
    result = EvalResult(
        per_user, facts["totals"], facts["n_users"], facts["n_without_held_out"], facts["score_seconds"], lengths
    )
    run = ModelRun(result, facts["fit_seconds"], facts["peak_rss_mb"], facts["params"], facts["history"])
    return run, facts


def has_run(path: Path, identity: str) -> bool:
    """Tell if a run was kept, of the split whose digest is `identity`."""
    try:
        facts = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return False
    return bool(facts.get("split") == identity)


def keep_model(model: Recommender, path: Path, row: str) -> None:
    """Save a fitted model for a blend; one that holds a matrix of items by items is sooner fitted again than read."""
    if row in PARTS and not (row in DENSE and model.n_items_ > MANY_ITEMS):
        save(model, path)


def take_part(folder: Path, part: str, seed: int, fitted_on: str) -> Recommender:
    """A part of a blend: the model of an earlier cell, or an unfitted one with the settings that it found.

    Parameters
    ----------
    folder : Path
        Folder of the data set's runs.
    fitted_on : "train" or "whole"
        The matrix that the part was, or is to be, fitted on.
    """
    path = folder / f"{part}-{seed if needs_seeds(part) else 0}"
    saved = path.with_name(f"{path.name}.{fitted_on}")
    if saved.exists():
        return load(saved).model
    try:
        facts = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return create(part, None, **seed_params(part, seed))
    return create(part, **facts["params"])


def order_rows(rows: Iterable[str]) -> list[str]:
    """Rows with the slowest models first."""
    return sorted(rows, key=rank_by_cost)
