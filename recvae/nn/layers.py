"""A linear layer by the faster of torch's matrix products, and tensors that are used again in every update."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor, nn

from recvae.nn.matmul import linear


class Workspace:
    """Large tensors that every update uses again.

    Fresh memory costs page faults, which take longer than the arithmetic on it. The content of a tensor is good until
    the same name is taken again.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of this shape with any content, on the device of `like` and of its dtype unless one is given."""
        dtype = dtype or like.dtype
        held, size = self._tensors.get(name), math.prod(shape)
        if held is None or len(held) < size or (held.dtype, held.device) != (dtype, like.device):
            held = self._tensors[name] = torch.empty(size, dtype=dtype, device=like.device)
        return held[:size].view(shape)


def release_training_memory(module: nn.Module) -> None:
    """Free gradients and workspaces, which only training needs."""
    module.zero_grad(set_to_none=True)
    for layer in module.modules():
        for name, held in vars(layer).items():
            if isinstance(held, Workspace):
                setattr(layer, name, Workspace())


class Linear(nn.Linear):
    """A linear layer without initial weights: its owner draws them, so that torch's global generator is not used."""

    def reset_parameters(self) -> None:
        """Draw nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_features) → (n, out_features)."""
        if torch.is_autocast_enabled(x.device.type):
            return F.linear(x, self.weight, self.bias)
        if not torch.is_grad_enabled():
            return linear(x, self.weight, self.bias)
        product: Tensor = _LinearProduct.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return product


class _LinearProduct(torch.autograd.Function):
    """`recvae.nn.matmul.linear` with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            linear(grad, weight.T) if wants_x else None,
            linear(grad.T, x.T) if wants_weight else None,
            grad.sum(dim=0) if wants_bias else None,
        )
