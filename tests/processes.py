"""Real processes that form a process group over gloo, and what came out of a fit in one of them."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from recvae.models.neural import Autoencoder
from tests.contracts import random_plays
from tests.test_training import holdout, without_seconds

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
    plays = random_plays()
    model = make().fit(plays, show_progress=False, validation=holdout())
    ids, scores = model.recommend(np.arange(plays.shape[0]), plays, N=TOP)
    weights = {name: tensor.numpy() for name, tensor in model.module_.state_dict().items()}
    return {"history": without_seconds(model.history_), "ids": ids, "scores": scores, **weights}


def torchrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
