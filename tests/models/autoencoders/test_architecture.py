"""One description of the layers: that of the torch networks, and of the weights that they save."""

import time
from typing import Any

import numpy as np
import pytest
import torch

from recvae.errors import ArtifactError
from recvae.models.autoencoders.architecture import (
    HISTORY_LENGTHS,
    TEMPERATURE,
    VARIATIONAL,
    Architecture,
    check_state,
)
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE

N_ITEMS = 20
MODELS: list[Autoencoder] = [
    *(make(hidden=hidden, latent=4) for make in (MultVAE, MultDAE) for hidden in ((), (9,), (9, 7), (9, 7, 5))),
    *(MultVAE(hidden=(9,) * depth, latent=4, encoder="dense") for depth in (1, 2, 5)),
    *(RecVAE(hidden=(9,) * depth, latent=4) for depth in (1, 2, 5)),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=str)


def state_of(model: Autoencoder) -> dict[str, Any]:
    model.module_ = model._build(N_ITEMS, torch.Generator())
    return {name: array for name, array in model._state().items() if name not in (HISTORY_LENGTHS, TEMPERATURE)}


@pytest.fixture(autouse=True)
def _history_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (MultVAE, RecVAE):
        monkeypatch.setattr(model, "history_lengths_", np.zeros(101, dtype=np.float32), raising=False)


@each_model
def test_names_and_shapes_are_those_of_the_torch_network(model: Autoencoder) -> None:
    shapes = {name: array.shape for name, array in state_of(model).items()}
    assert model._architecture(N_ITEMS).shapes(N_ITEMS) == shapes


@each_model
def test_weights_show_their_architecture(model: Autoencoder) -> None:
    variational = VARIATIONAL[type(model).__name__]
    assert Architecture.from_state(state_of(model), variational) == model._architecture(N_ITEMS)


@each_model
def test_no_other_weights_are_taken(model: Autoencoder) -> None:
    state, shapes = state_of(model), model._architecture(N_ITEMS).shapes(N_ITEMS)
    check_state(state, shapes)
    for name in state:
        for other in ({}, {name: state[name].astype(np.float64)}, {name: state[name][None]}):
            with pytest.raises(ArtifactError, match=f"^{name} is "):
                check_state({key: array for key, array in state.items() if key != name} | other, shapes)
    with pytest.raises(ArtifactError, match=r"^odd is float32 \(3,\); expected none$"):
        check_state(state | {"odd": np.zeros(3, dtype=np.float32)}, shapes)


@pytest.mark.parametrize("layers", ["encoder.layers", "decoder", "encoder.norms", "encoder.hidden"])
def test_a_hundred_thousand_layers_are_refused_at_once(layers: str) -> None:
    weight, bias = np.ones((1, 1), dtype=np.float32), np.ones(1, dtype=np.float32)
    names = ["encoder.input", "output", *(f"{layers}.{number}" for number in range(100_000))]
    state = {f"{name}.{kind}": array for name in names for kind, array in (("weight", weight), ("bias", bias))}
    started = time.perf_counter()
    with pytest.raises(ArtifactError, match="expected"):
        check_state(state, Architecture.from_state(state, variational=False).shapes(1))
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("state", [{}, {"encoder.input.bias": np.float32(1)}, {"encoder.norms.0.bias": np.zeros(2)}])
def test_weights_of_no_architecture(state: dict[str, Any]) -> None:
    for variational in (False, True):
        shapes = Architecture.from_state(state, variational).shapes(N_ITEMS)
        with pytest.raises(ArtifactError):
            check_state(state, shapes)
