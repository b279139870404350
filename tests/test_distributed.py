"""Real processes that train one model together, over gloo: the same result as one, and no harm when one is killed."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae import artifact, training, workflow
from recvae.datasets.synthetic import generate
from recvae.distributed import ALONE, Workers, workers
from recvae.errors import ParameterError, TrainingError
from recvae.models.multvae import MultDAE, MultVAE
from recvae.models.neural import Autoencoder
from recvae.models.recvae import RecVAE
from recvae.preparation import Options, prepare
from recvae.rows import Histories, Rows
from tests.contracts import one_thread as one_thread
from tests.contracts import random_plays
from tests.test_training import holdout, without_seconds

BATCH_SIZE = 13  # 40 users: two ranks share a last batch of one user, which neither can have alone
COMMON: dict[str, Any] = {"epochs": 3, "batch_size": BATCH_SIZE, "learning_rate": 5e-3, "metric": "ndcg@5"}
MODELS: dict[str, Callable[[], Autoencoder]] = {
    "multvae": lambda: MultVAE(hidden=12, latent=6, total_anneal_steps=20, **COMMON),
    "dense": lambda: MultVAE(hidden=(12, 12), encoder="dense", latent=6, gamma=0.01, schedule="one-cycle", **COMMON),
    "sampled": lambda: MultVAE(hidden=12, latent=6, total_anneal_steps=20, n_negatives=7, **COMMON),
    "multdae": lambda: MultDAE(latent=6, l2=0.01, **COMMON),
    "recvae": lambda: RecVAE(hidden=(8, 8), latent=4, encoder_passes=2, **COMMON),
    "early stopping": lambda: MultVAE(
        hidden=12, latent=6, patience=2, **{**COMMON, "learning_rate": 0.05, "epochs": 40}
    ),
}
EXACT_EPOCHS = 3
TOP = 10


def start(function: Callable[..., None], size: int, folder: Path, *arguments: Any) -> None:
    """Run a function of this module in so many processes that form a process group."""
    folder.mkdir(exist_ok=True)
    multiprocessing.set_forkserver_preload([__name__])  # torch is imported once
    mp.start_processes(  # type: ignore[no-untyped-call]
        _joined, (size, folder, function, *arguments), nprocs=size, start_method="forkserver"
    )


def _joined(rank: int, size: int, folder: Path, function: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    function(folder, *arguments)
    dist.destroy_process_group()


def outcome(make: Callable[[], Autoencoder]) -> dict[str, Any]:
    """What came out of a fit, as plain data."""
    plays = random_plays()
    model = make().fit(plays, show_progress=False, validation=holdout())
    ids, scores = model.recommend(np.arange(plays.shape[0]), plays, N=TOP)
    weights = {name: tensor.numpy() for name, tensor in model.module_.state_dict().items()}
    return {"history": without_seconds(model.history_), "ids": ids, "scores": scores, **weights}


def _fit_all(folder: Path) -> None:
    rank = dist.get_rank()
    for name, make in MODELS.items():
        found = outcome(make)
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found.pop("history")))
        np.savez(folder / f"{name}.{rank}.npz", **found)


@pytest.fixture(scope="module", params=[2, 4])
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """Every model, fitted by so many processes."""
    folder = tmp_path_factory.mktemp("fitted")
    start(_fit_all, request.param, folder)
    return request.param, folder


@pytest.mark.parametrize("name", MODELS)
def test_processes_together_come_to_the_same_as_one(name: str, fitted: tuple[int, Path]) -> None:
    size, folder = fitted
    whole = outcome(MODELS[name])
    histories = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(size)]
    assert all(history == histories[0] for history in histories)
    assert len(histories[0]) == len(whole["history"])
    for record, expected in zip(histories[0], whole.pop("history"), strict=True):
        assert record == pytest.approx(expected, rel=1e-3)
    for rank in range(size):
        with np.load(folder / f"{name}.{rank}.npz") as found, np.load(folder / f"{name}.0.npz") as first:
            assert_array_equal(found["ids"], whole["ids"])
            assert_allclose(found["scores"], whole["scores"], rtol=1e-3, atol=1e-3)
            assert all(np.array_equal(found[weight], first[weight]) for weight in whole)
