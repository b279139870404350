"""Real processes that form a process group over gloo, and the outcome of a fit in each of them."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.testing import assert_allclose, assert_array_equal
from torch.multiprocessing.spawn import start_processes

from recvae.models.autoencoders.base import Autoencoder
from tests.contracts import random_interactions
from tests.training.test_trainer import holdout, without_seconds

TOP = 10


def run_processes(function: Callable[..., None], size: int, folder: Path, *arguments: Any) -> None:
    """Run a module's function in `size` processes that form a process group."""
    folder.mkdir(exist_ok=True)
    multiprocessing.set_forkserver_preload([__name__, function.__module__])  # torch is imported once
    start_processes(  # type: ignore[no-untyped-call]
        _run_in_group, (size, folder, function, *arguments), nprocs=size, start_method="forkserver"
    )


def _run_in_group(rank: int, size: int, folder: Path, function: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    function(folder, *arguments)
    dist.destroy_process_group()


def fit_and_describe(make: Callable[[], Autoencoder]) -> dict[str, Any]:
    """Fit a model; its history, lists, scores and weights."""
    interactions = random_interactions()
    model = make().fit(interactions, show_progress=False, validation=holdout())
    ids, scores = model.recommend(np.arange(interactions.shape[0]), interactions, N=TOP)
    return {"history": without_seconds(model.history_), "ids": ids, "scores": scores, **get_weights(model)}


def get_weights(model: Autoencoder) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in model.module_.state_dict().items()}


def save_outcomes(folder: Path, models: Mapping[str, Callable[[], Autoencoder]]) -> None:
    """Fit every model and save its outcome in this process, for the process that started this one."""
    rank = dist.get_rank()
    for name, make in models.items():
        found = fit_and_describe(make)
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found.pop("history")))
        np.savez(folder / f"{name}.{rank}.npz", **found)


def load_same_history(folder: Path, name: str, size: int) -> Any:
    """The history of a model, which all processes must have saved alike."""
    histories = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(size)]
    assert all(history == histories[0] for history in histories)
    return histories[0]


def assert_same_as_one(folder: Path, name: str, size: int, make: Callable[[], Autoencoder]) -> None:
    """Check that all processes have saved the same weights, and the outcome of one process alone."""
    whole, history = fit_and_describe(make), load_same_history(folder, name, size)
    assert len(history) == len(whole["history"])
    for record, expected in zip(history, whole.pop("history"), strict=True):
        assert record == pytest.approx(expected, rel=1e-5)
    for rank in range(size):
        with np.load(folder / f"{name}.{rank}.npz") as found, np.load(folder / f"{name}.0.npz") as first:
            assert_array_equal(found["ids"], whole["ids"])
            assert_allclose(found["scores"], whole["scores"], rtol=1e-5, atol=1e-5)
            assert all(np.array_equal(found[weight], first[weight]) for weight in whole)


def torchrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
