"""Layers divided by items among real processes over gloo: the result is that of one process that has all items."""

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
from safetensors.numpy import load_file
from scipy import sparse
from torch import Tensor, nn

from recvae import memory
from recvae.errors import ParameterError, TrainingError
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.nn import initialisation, likelihood
from recvae.nn.batches import Batch
from recvae.nn.initialisation import draw_own_rows
from recvae.nn.item_layers import ItemInput, find_item_layers, gradient_of_all_items
from recvae.nn.likelihood import LIKELIHOODS, output_nll
from recvae.nn.parallelism import ALONE, Parallelism
from recvae.training import trainer as training
from recvae.training.trainer import Trainer
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions
from tests.processes import (
    assert_same_as_one,
    fit_and_describe,
    get_weights,
    load_same_history,
    run_processes,
    save_outcomes,
)
from tests.training.test_trainer import holdout

COMMON: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 13,
    "learning_rate": 5e-3,
    "metric": "ndcg@5",
    "parallel": "items",
}
PLAIN: dict[str, Any] = {"hidden": 12, "latent": 6, "total_anneal_steps": 20, **COMMON}
MODELS: dict[str, Callable[[], Autoencoder]] = {
    **{name: lambda name=name: MultVAE(likelihood=name, **PLAIN) for name in LIKELIHOODS},  # type: ignore[misc]
    "dense": lambda: MultVAE(hidden=(12, 12), encoder="dense", latent=6, gamma=0.01, schedule="one-cycle", **COMMON),
    "recvae": lambda: RecVAE(hidden=(8, 8), latent=4, encoder_passes=2, **COMMON),
    "early stopping": lambda: MultVAE(**{**PLAIN, "patience": 3, "learning_rate": 0.02, "epochs": 60}),
    "bfloat16": lambda: MultVAE(precision="bfloat16", **PLAIN),
}
N_ITEMS = random_interactions().shape[1]
STEP = 6  # of 4 updates an epoch: in the midst of one


def _fit_all(folder: Path) -> None:
    save_outcomes(folder, MODELS)


@pytest.fixture(scope="module", params=[2, 4])
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """The outcomes of every model, fitted by this number of processes."""
    folder = tmp_path_factory.mktemp("fitted")
    run_processes(_fit_all, request.param, folder)
    return request.param, folder


@pytest.mark.parametrize("name", [name for name in MODELS if name != "bfloat16"])
def test_processes_together_come_to_the_same_as_one(name: str, fitted: tuple[int, Path]) -> None:
    size, folder = fitted
    assert_same_as_one(folder, name, size, MODELS[name])


def test_sums_of_products_in_bfloat16_differ_by_its_rounding(fitted: tuple[int, Path]) -> None:
    size, folder = fitted
    history = load_same_history(folder, "bfloat16", size)
    losses = [record["loss"] for record in fit_and_describe(MODELS["bfloat16"])["history"]]
    assert [record["loss"] for record in history] == pytest.approx(losses, rel=1e-3)


def _interrupted(make: Callable[[], MultVAE], state: Path | None, rank: int) -> MultVAE:
    """Train until Ctrl-C reaches one process."""
    model, update = make(), Trainer._update

    def interrupted(trainer: Trainer, *arguments: Any) -> None:
        if trainer.progress.step == STEP and trainer.parallelism.rank == rank:
            signal.raise_signal(signal.SIGINT)
        update(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(random_interactions(), show_progress=False, validation=holdout(), checkpoint=state)
    return model


def _resumed(make: Callable[[], MultVAE], state: Path) -> MultVAE:
    return make().fit(random_interactions(), show_progress=False, validation=holdout(), checkpoint=state, resume=True)


def _dense() -> MultVAE:
    return MultVAE(**{**PLAIN, "encoder": "dense"})


def _dense_by_users() -> MultVAE:
    return MultVAE(**{**PLAIN, "encoder": "dense", "parallel": "users"})


def _interrupt(folder: Path) -> None:
    """Ctrl-C stops all at the same update; they write one checkpoint and resume from it."""
    whole = _dense().fit(random_interactions(), show_progress=False, validation=holdout())
    _interrupted(_dense, folder / "state", rank=1)
    dist.barrier()  # the first process has saved
    resumed = _resumed(_dense, folder / "state")
    assert all(np.array_equal(tensor, get_weights(whole)[name]) for name, tensor in get_weights(resumed).items())
    np.savez(folder / f"{dist.get_rank()}.npz", **get_weights(whole))


def _resume(folder: Path, state: Path) -> None:
    np.savez(folder / f"{dist.get_rank()}.npz", **get_weights(_resumed(_dense, state)))


def test_any_number_of_processes_goes_on_from_the_checkpoint_of_any_other(tmp_path: Path) -> None:
    divided, alone, four = (tmp_path / name for name in ("divided", "alone", "four"))
    run_processes(_interrupt, 2, divided)
    _interrupted(_dense_by_users, alone, rank=0)
    saved, expected = (load_file(folder / "state.safetensors") for folder in (divided / "state", alone))
    assert {name: array.shape for name, array in saved.items()} == {n: a.shape for n, a in expected.items()}
    for name, array in expected.items():
        assert_allclose(saved[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    run_processes(_resume, 4, four, divided / "state")
    one = _resumed(_dense_by_users, divided / "state")
    with np.load(divided / "0.npz") as whole, np.load(four / "3.npz") as of_four:
        for name, array in get_weights(one).items():
            assert_allclose(array, whole[name], rtol=1e-4, atol=1e-5)
            assert_allclose(of_four[name], whole[name], rtol=1e-4, atol=1e-5)


def _holds_its_own_rows_only(folder: Path) -> None:
    """Of both layers, their gradients, moments and best weights, a process has its own items' rows only."""
    held: dict[str, list[torch.Size]] = {}
    update = Trainer._update

    def noting(trainer: Trainer, *arguments: Any) -> None:
        update(trainer, *arguments)
        module, (optimizer,) = trainer.module, trainer.optimizers
        for (name, parameter), moments in zip(
            module.named_parameters(), optimizer.state_dict()["state"].values(), strict=True
        ):
            assert parameter.grad is not None
            best = trainer.best_weights.tensors()[name]
            tensors = (parameter, parameter.grad, moments["exp_avg"], moments["exp_avg_sq"], best)
            held[name] = [tensor.shape for tensor in tensors]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", noting)
        model = MultVAE(**PLAIN).fit(random_interactions(), show_progress=False)
    own = len(range(N_ITEMS)[Parallelism.current("items").own_items(N_ITEMS)])
    assert own < N_ITEMS
    by_item = {"encoder.input.weight": (own, 12), "output.weight": (own, 12), "output.bias": (own,)}
    for name, parameter in model.module_.named_parameters():
        assert held[name] == [by_item.get(name, tuple(parameter.shape))] * 5
        assert name not in by_item or len(parameter) == N_ITEMS


def _exact_likelihood(folder: Path) -> None:
    """In double precision, in several chunks, and with logits so far apart that some items have probability 0."""
    rng = np.random.default_rng(3)
    interactions = random_interactions().astype(np.float64)
    interactions.data = rng.uniform(0.5, 3, interactions.nnz)
    hidden, weight = (torch.from_numpy(rng.normal(size=(n, 5))) for n in interactions.shape)
    bias, batch = torch.from_numpy(rng.normal(size=N_ITEMS)), Batch.from_csr(interactions)
    process = Parallelism.current("items")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "MIN_CHUNK", 1)
        patch.setattr(memory, "BATCH_BYTES", 7 * 8 * 8)  # of 8 users with 7 items, of 7 with 8
        for name in LIKELIHOODS:
            for scale in (1.0, 300.0):
                inputs = ((hidden * scale).detach(), weight, bias)
                loss, gradients = _with_gradients(inputs, batch, name, ALONE)
                own = (inputs[0], *map(process.own_rows, inputs[1:]))
                found = _with_gradients(own, batch, name, process)
                torch.testing.assert_close(found, (loss, (gradients[0], *map(process.own_rows, gradients[1:]))))


def _with_gradients(
    inputs: tuple[Tensor, ...], batch: Batch, name: str, parallelism: Parallelism
) -> tuple[Tensor, tuple[Tensor, ...]]:
    hidden, weight, bias = (tensor.clone().requires_grad_() for tensor in inputs)
    loss = output_nll(hidden, weight, bias, batch, name, n_items=N_ITEMS, parallelism=parallelism)
    return loss, torch.autograd.grad(loss, (hidden, weight, bias))


def _diverging(folder: Path) -> None:
    """All processes raise the same error, and each has a whole model."""
    model = MultVAE(**{**PLAIN, "learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"in epoch \d; the model keeps the weights of epoch \d; a lower"):
        model.fit(random_interactions(), show_progress=False)
    if dist.get_rank() == 0:
        assert model.module_.output.weight.shape == (N_ITEMS, 12)
        assert np.isfinite(model.score(random_interactions())).all()


def _interrupted_without_a_checkpoint(folder: Path) -> None:
    """Ctrl-C reaches one process; all stop at the same update, and each has a whole model."""
    model = _interrupted(lambda: MultVAE(**PLAIN), None, rank=1)
    assert len(model.history_) == 1
    assert model.module_.output.weight.shape == (N_ITEMS, 12)


def _save_when_one_clock_says_so(folder: Path) -> None:
    """A checkpoint is due by one process's clock: all gather the tensors, and the first process writes them."""
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            patch.setattr(training, "SECONDS_TO_FIRST_CHECKPOINT", -1.0)
            patch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        MultVAE(**PLAIN).fit(random_interactions(), show_progress=False, checkpoint=folder / "due")
    dist.barrier()
    saved = load_file(folder / "due" / "state.safetensors")
    assert saved["module.output.weight"].shape == saved["good.output.weight"].shape == (N_ITEMS, 12)


def _divided_in_two_ways(folder: Path) -> None:
    parallel = "items" if dist.get_rank() == 0 else "users"
    with pytest.raises(
        ParameterError, match=r"^the 2 processes have different data, settings or checkpoints; expected"
    ):
        MultVAE(**{**PLAIN, "parallel": parallel}).fit(random_interactions(), show_progress=False)


def _left_alone(folder: Path) -> None:
    update = Trainer._update

    def leaving(trainer: Trainer, *arguments: Any) -> None:
        if trainer.progress.step == STEP:
            os._exit(0)
        update(trainer, *arguments)

    if dist.get_rank() == 1:
        pytest.MonkeyPatch().setattr(Trainer, "_update", leaving)
        MultVAE(**PLAIN).fit(random_interactions(), show_progress=False)
    with pytest.raises(TrainingError, match=r"^process 0 of 2 lost the others \(.*; the same command with --resume"):
        MultVAE(**PLAIN).fit(random_interactions(), show_progress=False)


def test_a_process_that_lost_the_others_reports_it(tmp_path: Path) -> None:
    run_processes(_left_alone, 2, tmp_path / "left")


@pytest.mark.parametrize("size", [2, 4])
def test_in_processes(size: int, tmp_path: Path) -> None:
    run_processes(_check_all, size, tmp_path / "together")


def _check_all(folder: Path) -> None:
    _holds_its_own_rows_only(folder)
    _exact_likelihood(folder)
    _diverging(folder)
    _interrupted_without_a_checkpoint(folder)
    _save_when_one_clock_says_so(folder)
    if dist.get_world_size() == 2:
        _divided_in_two_ways(folder)


@pytest.mark.parametrize("piece", [1, 2, 3, 512])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.4, 1.0])
def test_the_gradient_that_waits_for_nothing_is_a_matrix_product(
    piece: int, density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recvae.nn.item_layers.PIECE", piece)
    generator = np.random.default_rng(0)
    dense = (generator.random((50, 13)) < density) * generator.random((50, 13))
    batch, grad = Batch.from_csr(sparse.csr_matrix(dense)), generator.standard_normal((50, 5))
    found = gradient_of_all_items(batch.items, batch.users, batch.values, torch.from_numpy(grad), 13)
    assert_allclose(found.numpy(), dense.T @ grad, rtol=1e-12, atol=1e-12)


def test_the_input_layer_is_a_matrix_product() -> None:
    layer, user_items = ItemInput(N_ITEMS, 4), random_interactions()
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(2))
    user_items.data = np.random.default_rng(3).uniform(0.2, 5, user_items.nnz).astype(np.float32)
    user_items.data[user_items.indptr[5] : user_items.indptr[6]] = 0
    user_items.eliminate_zeros()  # one user has no interactions
    expected = user_items.toarray() @ layer.weight.detach().numpy() + layer.bias.detach().numpy()
    assert_allclose(layer(Batch.from_csr(user_items)).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", [MultVAE(**PLAIN), MultVAE(**{**PLAIN, "encoder": "dense"})])
def test_processes_draw_the_weights_that_one_would_draw(model: MultVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialisation, "PIECE", 50)
    generator = torch.Generator().manual_seed(1)
    whole = model._build(N_ITEMS, generator)
    shards = []
    for rank in range(4):
        own = torch.Generator().manual_seed(1)
        shards.append(model._build(N_ITEMS, own, Parallelism(rank, 4, "items")))
        assert torch.equal(own.get_state(), generator.get_state())
    for name, parameter in whole.named_parameters():
        parts: list[Tensor] = [shard.get_parameter(name) for shard in shards]
        drawn = torch.cat(parts) if name in find_item_layers(whole) else parts[0]
        assert torch.equal(drawn, parameter)


def test_weights_are_drawn_in_pieces_of_limited_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialisation, "PIECE", 50)
    sizes: list[int] = []
    own_items = Parallelism(1, 4, "items").own_items(1000)
    draw_own_rows(torch.empty(250, 8), own_items, 1000, lambda piece: sizes.append(piece.numel()))
    assert sum(sizes) == 8000
    assert max(sizes) <= 50


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"parallel": "rows"}, "parallel is 'rows'; expected one of users, items"),
        ({"parallel": "items", "n_negatives": 7}, "n_negatives is 7, but parallel is 'items'; expected 'users'"),
        (
            {"parallel": "items", "initial": "spectral"},
            "initial is 'spectral', but parallel is 'items'; expected 'users'",
        ),
    ],
)
def test_refused(params: dict[str, Any], message: str) -> None:
    for model in (MultVAE, RecVAE) if "n_negatives" not in params else (MultVAE,):
        with pytest.raises(ParameterError) as refused:
            model(**params)
        assert str(refused.value) == message


def test_every_process_needs_an_item() -> None:
    with pytest.raises(
        ParameterError, match=r"^parallel is 'items', but 3 items cannot be divided among 4 processes; "
    ):
        Parallelism(0, 4, "items").own_items(3)
