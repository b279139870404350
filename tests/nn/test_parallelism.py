"""Real processes over gloo that train one model together: the result is that of one, and a killed one does no harm."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.testing import assert_allclose

from recvae import workflow
from recvae.datasets.synthetic import generate
from recvae.errors import ParameterError, TrainingError
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.nn.parallelism import ALONE, Parallelism, join_process_group
from recvae.preparation.pipeline import Options, prepare
from recvae.training.trainer import Trainer
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions
from tests.processes import assert_same_as_one, get_weights, run_processes, save_outcomes, torchrun
from tests.training.test_trainer import holdout

BATCH_SIZE = 13  # 40 users: two ranks share a last batch of one user, which neither can have alone
COMMON: dict[str, Any] = {"epochs": 3, "batch_size": BATCH_SIZE, "learning_rate": 5e-3, "metric": "ndcg@5"}
MODELS: dict[str, Callable[[], Autoencoder]] = {
    "multvae": lambda: MultVAE(hidden=12, latent=6, total_anneal_steps=20, **COMMON),
    "dense": lambda: MultVAE(hidden=(12, 12), encoder="dense", latent=6, gamma=0.01, schedule="one-cycle", **COMMON),
    # A first gradient that all but cancels is rounding, of which Adam makes a step: on some processors 1e-5 at 5e-3.
    "sampled": lambda: MultVAE(
        hidden=12, latent=6, total_anneal_steps=20, n_negatives=7, **{**COMMON, "learning_rate": 5e-4}
    ),
    "multdae": lambda: MultDAE(latent=6, l2=0.01, **COMMON),
    "recvae": lambda: RecVAE(hidden=(8, 8), latent=4, encoder_passes=2, **COMMON),
    "early stopping": lambda: MultVAE(
        hidden=12, latent=6, patience=3, **{**COMMON, "learning_rate": 0.02, "epochs": 60}
    ),
}


def _fit_all(folder: Path) -> None:
    save_outcomes(folder, MODELS)


@pytest.fixture(scope="module", params=[2, 4])
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """The outcomes of every model, fitted by this number of processes."""
    folder = tmp_path_factory.mktemp("fitted")
    run_processes(_fit_all, request.param, folder)
    return request.param, folder


@pytest.mark.parametrize("name", MODELS)
def test_processes_together_come_to_the_same_as_one(name: str, fitted: tuple[int, Path]) -> None:
    size, folder = fitted
    assert_same_as_one(folder, name, size, MODELS[name])


def _interrupted(folder: Path) -> None:
    """Ctrl-C reaches one process only; all stop, and resume."""
    interactions, state, update = random_interactions(), folder / "state", Trainer._update

    def interrupted(trainer: Trainer, *arguments: Any) -> None:
        if trainer.progress.step == 5 and trainer.parallelism.rank == 1:
            signal.raise_signal(signal.SIGINT)
        update(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            MODELS["multvae"]().fit(interactions, show_progress=False, validation=holdout(), checkpoint=state)
    dist.barrier()  # the first process has saved
    resumed = MODELS["multvae"]().fit(
        interactions, show_progress=False, validation=holdout(), checkpoint=state, resume=True
    )
    np.savez(folder / f"{dist.get_rank()}.npz", **get_weights(resumed))


def test_an_interruption_of_one_stops_all_at_the_same_update(fitted: tuple[int, Path], tmp_path: Path) -> None:
    size, folder = fitted
    run_processes(_interrupted, size, tmp_path / "interrupted")
    with np.load(folder / "multvae.0.npz") as whole, np.load(tmp_path / "interrupted" / "1.npz") as resumed:
        assert all(np.array_equal(resumed[name], whole[name]) for name in resumed)


def _with_seeds_of_their_own(folder: Path) -> None:
    with pytest.raises(
        ParameterError, match=r"^the 2 processes have different data, settings or checkpoints; expected"
    ):
        MultVAE(hidden=4, latent=2, epochs=1, seed=dist.get_rank()).fit(random_interactions(), show_progress=False)


def _left_alone(folder: Path) -> None:
    update = Trainer._update

    def leaving(trainer: Trainer, *arguments: Any) -> None:
        if trainer.progress.step == 5:
            os._exit(0)
        update(trainer, *arguments)

    if dist.get_rank() == 1:
        pytest.MonkeyPatch().setattr(Trainer, "_update", leaving)
        MODELS["multvae"]().fit(random_interactions(), show_progress=False)
    with pytest.raises(TrainingError, match=r"^process 0 of 2 lost the others \(.*; the same command with --resume"):
        MODELS["multvae"]().fit(random_interactions(), show_progress=False)


def _one_trains_only_what_one_can(folder: Path) -> None:
    with pytest.raises(ParameterError, match=r"^torchrun started 2 processes, but ease is trained by one; expected 1$"):
        workflow.train(folder, folder / "model", "ease")


def _diverging(folder: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"in epoch \d; the model keeps the weights of epoch \d; a lower learning_rate"
    ):
        MultVAE(hidden=4, latent=2, **{**COMMON, "learning_rate": 1e30}).fit(random_interactions(), show_progress=False)


@pytest.mark.parametrize("function", [_with_seeds_of_their_own, _left_alone, _diverging, _one_trains_only_what_one_can])
def test_refused(function: Callable[..., None], tmp_path: Path) -> None:
    run_processes(function, 2, tmp_path / "refused")


@pytest.mark.parametrize("divided", ["users", "items"])
@pytest.mark.parametrize("n_users", [1, 3, 4, 11])
def test_weighted_means_of_all_processes_are_the_batchs_mean(n_users: int, divided: str) -> None:
    weights = np.zeros(n_users)
    for process in (Parallelism(rank, 4, divided) for rank in range(4)):
        own = weights[process.own_users(n_users)]
        own += process.weight(n_users) / len(own)
    assert_allclose(weights, (4 if divided == "items" else 1) / n_users)  # by items every process has the whole mean


def test_a_process_on_its_own_is_alone() -> None:
    assert Parallelism.current() == ALONE
    with join_process_group() as parallelism:
        assert parallelism == ALONE
    assert ALONE.is_first
    assert ALONE.any_process(True, False) == [True, False]


def test_each_process_needs_a_cuda_device_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with (
        pytest.raises(ParameterError, match=r"^torchrun started 4 processes for the 2 CUDA devices of this"),
        join_process_group(),
    ):
        pass


KILLED = """
import os, signal
from recvae.cli import main as cli
from recvae.training import trainer as training

update = training.Trainer._update

def killed(trainer, *arguments):
    if trainer.progress.step == 7 and trainer.parallelism.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    update(trainer, *arguments)

training.SECONDS_TO_FIRST_CHECKPOINT = training.SECONDS_BETWEEN_CHECKPOINTS = -1.0
training.Trainer._update = killed
cli.main()
"""
SETTINGS = {"epochs": 3, "hidden": 16, "latent": 8, "batch_size": 10}


def _train(folder: Path, data: Path) -> None:
    workflow.train(data, folder / "model", "multvae", params=SETTINGS)


def test_a_killed_worker_ends_the_job_and_a_relaunch_goes_on(tmp_path: Path) -> None:
    prepare(generate(60, 40), tmp_path / "data", Options())
    (tmp_path / "killed.py").write_text(KILLED)
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    command = ["train", "data", "--model", "multvae", "--out", "model", *settings]
    killed = torchrun("killed.py", *command, cwd=tmp_path)
    assert killed.returncode == 1
    assert "recvae: process 0 of 2 lost the others" in killed.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "killed.py", "model.checkpoint"]
    resumed = torchrun("-m", "recvae", *command, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [line.split()[0] for line in resumed.stdout.splitlines()] == ["saved", "validation:"]
    assert resumed.stderr.count("MultVAE: epoch 3/3") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "killed.py", "model"]
    run_processes(_train, 2, tmp_path / "whole", tmp_path / "data")
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (tmp_path, tmp_path / "whole")]
    assert weights[0] == weights[1]
