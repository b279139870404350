"""Real processes that form a process group over gloo, and what came out of a fit in each of them."""

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


def start(function: Callable[..., None], size: int, folder: Path, *arguments: Any) -> None:
    """Run a module's function in so many processes that form a process group."""
    folder.mkdir(exist_ok=True)
    multiprocessing.set_forkserver_preload([__name__, function.__module__])  # torch is imported once
    start_processes(  # type: ignore[no-untyped-call]
        _joined, (size, folder, function, *arguments), nprocs=size, start_method="forkserver"
    )


def _joined(rank: int, size: int, folder: Path, function: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    function(folder, *arguments)
    dist.destroy_process_group()


def outcome(make: Callable[[], Autoencoder]) -> dict[str, Any]:
    """What came out of a fit, as plain data."""
    interactions = random_interactions()
    model = make().fit(interactions, show_progress=False, validation=holdout())
    ids, scores = model.recommend(np.arange(interactions.shape[0]), interactions, N=TOP)
    return {"history": without_seconds(model.history_), "ids": ids, "scores": scores, **weights_of(model)}


def weights_of(model: Autoencoder) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in model.module_.state_dict().items()}


def save_outcomes(folder: Path, models: Mapping[str, Callable[[], Autoencoder]]) -> None:
    """What came out in this process, for the one that started it."""
    rank = dist.get_rank()
    for name, make in models.items():
        found = outcome(make)
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found.pop("history")))
        np.savez(folder / f"{name}.{rank}.npz", **found)


def same_history(folder: Path, name: str, size: int) -> Any:
    """The history that all processes have saved."""
    histories = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(size)]
    assert all(history == histories[0] for history in histories)
    return histories[0]


def assert_same_as_one(folder: Path, name: str, size: int, make: Callable[[], Autoencoder]) -> None:
    """All processes have saved the same weights, and what one process alone comes to."""
    whole, history = outcome(make), same_history(folder, name, size)
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
