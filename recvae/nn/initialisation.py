"""Initial weights of layers, drawn from a generator of the caller's."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recvae.nn.item_layers import ItemLayer

PIECE = 2**24
"""Largest number of weights of a layer divided by items that are drawn at once."""


def draw_glorot_(layer: Any, generator: torch.Generator) -> None:
    """Mult-VAE's initialisation: Glorot & Bengio (2010) uniform weights, biases normal (σ = .001) cut at 2σ."""
    rows, columns = layer.weight.shape
    if isinstance(layer, ItemLayer):
        rows = layer.n_items
    bound = math.sqrt(3.0) * math.sqrt(2.0 / (rows + columns))
    _draw(layer, "weight", lambda whole: nn.init.uniform_(whole, -bound, bound, generator=generator))
    cut = {"std": 0.001, "a": -0.002, "b": 0.002}
    _draw(layer, "bias", lambda whole: nn.init.trunc_normal_(whole, **cut, generator=generator))


def draw_uniform_(layer: Any, fan_in: int, generator: torch.Generator) -> None:
    """PyTorch's own default for a linear layer: weights and bias uniform within ±1/√fan_in."""
    for name in ("weight", "bias"):
        _draw(layer, name, lambda whole: nn.init.uniform_(whole, -(fan_in**-0.5), fan_in**-0.5, generator=generator))


def _draw(layer: Any, name: str, draw: Callable[[Tensor], object]) -> None:
    """Let `draw` fill a layer's parameter, or the own rows of one that has a row for each item."""
    parameter = layer.get_parameter(name)
    if isinstance(layer, ItemLayer) and name in layer.by_item and layer.parallelism.divides_items:
        draw_own_rows(parameter, layer.parallelism.own_items(layer.n_items), layer.n_items, draw)
    else:
        draw(parameter)


@torch.no_grad()
def draw_own_rows(own: Tensor, own_items: slice, n_items: int, draw: Callable[[Tensor], object]) -> None:
    """Fill a parameter with its rows of what `draw` would put into the whole one, which is never in memory.

    All processes draw everything and keep their own rows, so that together they have the weights that one process
    would draw. A matrix is drawn in pieces, which `draw` must fill number by number; a vector at once.
    """
    size = n_items if own.ndim == 1 else max(1, PIECE // own.shape[1])
    for start in range(0, n_items, size):
        piece = own.new_empty((min(size, n_items - start), *own.shape[1:]))
        draw(piece)
        kept = range(max(start, own_items.start), min(start + len(piece), own_items.stop))
        if kept:
            shift = kept.start - own_items.start
            own[shift : shift + len(kept)] = piece[kept.start - start : kept.stop - start]
