"""Distributions of initial weights, and the generator that they come from."""

import pytest
import torch

from recvae.nn.initialisation import draw_glorot_, draw_uniform_
from recvae.nn.layers import Linear


def test_glorot_weights_are_uniform_and_biases_truncated_normal() -> None:
    before = torch.get_rng_state()
    layer = Linear(300, 500)
    draw_glorot_(layer, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    bound = (6 / 800) ** 0.5
    assert 0.99 * bound < layer.weight.abs().max().item() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert layer.bias.abs().max().item() <= 0.002
    assert layer.bias.std().item() == pytest.approx(0.00088, rel=0.1)


def test_uniform_weights_and_biases_are_within_the_fan_in() -> None:
    before = torch.get_rng_state()
    layer = Linear(400, 500)
    draw_uniform_(layer, 400, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    for parameter in (layer.weight, layer.bias):
        assert 0.98 * 0.05 < parameter.abs().max().item() <= 0.05
        assert parameter.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.1)
