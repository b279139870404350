"""Layers: a sparse input layer that works on the interactions of CSR rows, encoders, dropout, KL."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor, nn

from recvae.nn.batches import Part, Rows
from recvae.nn.matmul import linear
from recvae.nn.sharding import ItemLayer, ItemShard


class Workspace:
    """Large tensors that every update uses again: fresh ones cost page faults worth more than the arithmetic on them.

    What `take` gives is good until the same name is taken again.
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


def release(module: nn.Module) -> None:
    """Let go of the storage that only training needs: gradients and workspaces."""
    module.zero_grad(set_to_none=True)
    for part in module.modules():
        for name, held in vars(part).items():
            if isinstance(held, Workspace):
                setattr(part, name, Workspace())


class _WeightedSum(torch.autograd.Function):
    """An embedding bag, summed over the shards, whose gradient to the own rows is written into a workspace, or is
    sparse where there is none.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, rows: Rows, values: Tensor, shard: ItemShard, workspace: Workspace | None
    ) -> Tensor:
        ctx.workspace, ctx.shape = workspace, weight.shape
        if not ctx.needs_input_grad[0]:
            return shard.sum_(weighted_sum(weight, rows.items, rows.offsets, values))
        items, users, offsets = rows.items, rows.users, rows.offsets
        if weight.device.type == "cpu" or workspace is None:  # interactions that are dropped out cost nothing
            kept = (values != 0).nonzero().squeeze(1)
            items, users, values = items.take(kept), users.take(kept), values.take(kept)
            bounds = torch.arange(len(offsets), dtype=users.dtype, device=users.device)
            offsets = torch.searchsorted(users, bounds, out_int32=True)
        ctx.save_for_backward(items, users, values)
        return shard.sum_(weighted_sum(weight, items, offsets, values))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        items, users, values = ctx.saved_tensors
        if ctx.workspace is None:
            touched, gradient_rows = by_item(items, users, values, grad)
            gradient = torch.sparse_coo_tensor(
                touched[None], gradient_rows, ctx.shape, check_invariants=False, is_coalesced=True
            )
            return gradient, *[None] * 4
        gradient = ctx.workspace.take("input gradient", ctx.shape, grad)
        gradient.zero_()
        if grad.device.type == "cpu":
            gradient.index_copy_(0, *by_item(items, users, values, grad))
        else:  # without the sizes that only the device knows
            gradient.index_add_(0, items, grad[users] * values[:, None])
        # An alias, which autograd takes as it is instead of copying it.
        return gradient.detach(), *[None] * 4


def weighted_sum(weight: Tensor, index: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """For each bag between two offsets, the sum of the rows `index` of `weight` times their values."""
    return F.embedding_bag(index, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)


def by_item(items: Tensor, users: Tensor, values: Tensor, per_user: Tensor) -> tuple[Tensor, Tensor]:
    """Xᵀ·`per_user` for sparse rows X: the items that have interactions, (n,) int64, and their rows, (n, size).

    Parameters
    ----------
    items, users, values : (n_interactions,)
        X's columns, rows and entries.
    per_user : (batch, size)
    """
    items, order = items.sort(stable=True)
    touched, counts = torch.unique_consecutive(items, return_counts=True)
    offsets = F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
    return touched.long(), weighted_sum(per_user, users.take(order), offsets, values.take(order))


class SparseLinear(ItemLayer):
    """`x @ weight + bias` for sparse rows x: a weighted sum of the weight rows of the items played.

    Parameters
    ----------
    shard : ItemShard
    out_features : int
        `weight` has shape (len(shard), out_features).

    Attributes
    ----------
    sparse_gradient : bool
        Whether the gradient to `weight` is sparse, with rows for the items of the batch only.
    """

    by_item = ("weight",)

    def __init__(self, shard: ItemShard, out_features: int) -> None:
        super().__init__()
        self.shard = shard
        self.weight = nn.Parameter(torch.zeros(len(shard), out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.sparse_gradient = False
        self._workspace = Workspace()

    def forward(self, rows: Rows, values: Tensor) -> Tensor:
        """(n_interactions,) values → (batch, out_features)."""
        workspace = None if self.sparse_gradient else self._workspace
        if self.shard.divided:
            rows = self.shard.interactions(replace(rows, values=values))
            values = rows.values
        arguments = (self.weight, rows, values, self.shard, workspace)
        summed: Tensor = _WeightedSum.apply(*arguments)  # type: ignore[no-untyped-call]
        return summed + self.bias


class PlainEncoder(nn.Module):
    """Mult-VAE's encoder: hidden layers with tanh between them, none on the output.

    Parameters
    ----------
    shard : ItemShard
    hidden : sequence of int
        Sizes of the hidden layers; none is allowed.
    code : int
        Size of the output.
    """

    def __init__(self, shard: ItemShard, hidden: Sequence[int], code: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [*hidden, code]
        self.input = SparseLinear(shard, sizes[0])
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        for layer in (self.input, *self.layers):
            glorot_(layer, generator)

    def forward(self, rows: Rows, values: Tensor) -> Tensor:
        """(n_interactions,) input values → (batch, code)."""
        h: Tensor = self.input(rows, values)
        for layer in self.layers:
            h = layer(torch.tanh(h))
        return h.to(self.input.weight.dtype)


class DenseEncoder(nn.Module):
    """RecVAE's encoder (Shenbin et al. 2020, figure 2): each layer sees the sum of all before it, swish, LayerNorm.

    Parameters
    ----------
    shard : ItemShard
    width, depth : int
        Size and number of the hidden layers.
    code : int
        Size of the output.
    """

    def __init__(self, shard: ItemShard, width: int, depth: int, code: int, generator: torch.Generator) -> None:
        super().__init__()
        self.input = SparseLinear(shard, width)
        self.hidden = nn.ModuleList(Linear(width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=0.1) for _ in range(depth))
        self.code = Linear(width, code)
        for layer in (self.input, *self.hidden, self.code):
            fan_in = shard.total if layer is self.input else width
            uniform_(layer, fan_in, generator)

    def forward(self, rows: Rows, values: Tensor) -> Tensor:
        """(n_interactions,) input values → (batch, code)."""
        h = self.norms[0](F.silu(self.input(rows, values)))
        total = h
        for layer, norm in zip(self.hidden, self.norms[1:], strict=True):
            h = norm(F.silu(layer(h) + total))
            total = total + h
        code: Tensor = self.code(h)
        return code.to(self.input.weight.dtype)


class Negatives:
    """Items drawn at random for the sampled softmax.

    Parameters
    ----------
    n : int
        Items drawn for each batch, with replacement.
    weights : (n_items,)
        Chances of the items, up to a factor.
    """

    def __init__(self, n: int, weights: Tensor) -> None:
        self.n = n
        self._log_expected = (weights.double() / weights.sum(dtype=torch.float64)).log().float() + math.log(n)
        self._cumulative = weights.double().cumsum(0)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(n,) items, and the logarithm of the expected number of times that each is drawn."""
        device = self._cumulative.device
        points = torch.rand(self.n, dtype=torch.float64, device=device, generator=generator) * self._cumulative[-1]
        items = torch.searchsorted(self._cumulative, points, right=True).clamp(max=len(self._cumulative) - 1)
        return items, self._log_expected[items]


def dropout(values: Tensor, p: float, generator: torch.Generator, part: Part | None = None) -> Tensor:
    """Inverted dropout that draws from `generator`, never from torch's global state.

    `part` says which part the values are of a batch that several processes share: each draws for the whole batch,
    so that together they draw what one process would.
    """
    if p == 0:
        return values
    drawn = _drawn(lambda whole: whole.uniform_(generator=generator), values, part)
    return values * (drawn >= p) / (1 - p)


def sampled(mu: Tensor, logvar: Tensor, generator: torch.Generator, part: Part | None = None) -> Tensor:
    """One draw from N(mu, exp(logvar)), differentiable in both; Kingma & Welling (2014), section 2.4.

    `part` is that of `dropout`.
    """
    noise = _drawn(lambda whole: whole.normal_(generator=generator), mu, part)
    return mu + noise * torch.exp(0.5 * logvar)


def _drawn(draw: Callable[[Tensor], Tensor], like: Tensor, part: Part | None) -> Tensor:
    start, total = (0, len(like)) if part is None else (part.start, part.total)
    return draw(like.new_empty((total, *like.shape[1:])))[start : start + len(like)]


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) ‖ N(0, I)) of each row, (batch,); Kingma & Welling (2014), appendix B."""
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(dim=1)


def glorot_(layer: Any, generator: torch.Generator) -> None:
    """Mult-VAE's initialisation: Glorot & Bengio (2010) uniform weights, biases normal (σ = .001) cut at 2σ."""
    rows, columns = layer.weight.shape
    if isinstance(layer, ItemLayer):
        rows = layer.shard.total
    bound = math.sqrt(3.0) * math.sqrt(2.0 / (rows + columns))
    _draw(layer, "weight", lambda whole: nn.init.uniform_(whole, -bound, bound, generator=generator))
    cut = {"std": 0.001, "a": -0.002, "b": 0.002}
    _draw(layer, "bias", lambda whole: nn.init.trunc_normal_(whole, **cut, generator=generator))


def uniform_(layer: Any, fan_in: int, generator: torch.Generator) -> None:
    """PyTorch's own default for a linear layer: weights and bias uniform within ±1/√fan_in."""
    for name in ("weight", "bias"):
        _draw(layer, name, lambda whole: nn.init.uniform_(whole, -(fan_in**-0.5), fan_in**-0.5, generator=generator))


def _draw(layer: Any, name: str, draw: Callable[[Tensor], object]) -> None:
    """Let `draw` fill a layer's parameter, or the own rows of one by item."""
    parameter = layer.get_parameter(name)
    if isinstance(layer, ItemLayer) and name in layer.by_item:
        layer.shard.draw(parameter, draw)
    else:
        draw(parameter)


class Linear(nn.Linear):
    """A linear layer whose weights are drawn by its maker, so that torch's global generator stays untouched."""

    def reset_parameters(self) -> None:
        """Draw nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_features) → (n, out_features)."""
        return affine(x, self.weight, self.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`recvae.nn.matmul.linear` with gradients; under autocast in its type."""
    if torch.is_autocast_enabled(x.device.type):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return linear(x, weight, bias)
    product: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return product


class ItemLinear(Linear, ItemLayer):
    """A linear layer whose outputs are items.

    Parameters
    ----------
    in_features : int
    shard : ItemShard
        `weight` has shape (len(shard), in_features).
    """

    by_item = ("weight", "bias")

    def __init__(self, in_features: int, shard: ItemShard) -> None:
        super().__init__(in_features, len(shard))
        self.shard = shard


class _Product(torch.autograd.Function):
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
