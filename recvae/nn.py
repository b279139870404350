"""Layers: a sparse input layer that works on the plays of CSR rows, encoders, dropout, KL, the anneal schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from scipy import sparse
from torch import Tensor, nn


@dataclass(frozen=True)
class Rows:
    """A batch of CSR rows as tensors.

    Attributes
    ----------
    items : (n_plays,) int32
        Item index of each play.
    offsets : (batch + 1,) int32
        Where each user's plays begin; the last entry is n_plays.
    values : (n_plays,) float
        Play weights, 1 for binary data.
    """

    items: Tensor
    offsets: Tensor
    values: Tensor

    @classmethod
    def of(cls, user_items: sparse.csr_matrix, index: npt.NDArray[np.int64] | None = None) -> Self:
        """The rows `index` of a canonical CSR matrix, all of them when None."""
        rows = user_items if index is None else user_items[index]
        return cls(
            torch.from_numpy(rows.indices.astype(np.int32, copy=False)),
            torch.from_numpy(rows.indptr.astype(np.int32, copy=False)),
            torch.from_numpy(rows.data),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(batch,) plays of each user."""
        return self.offsets.diff()

    def per_play(self, per_user: Tensor) -> Tensor:
        """Repeat a (batch,) tensor for each user's plays, (n_plays,)."""
        return per_user.repeat_interleave(self.lengths, output_size=len(self.items))

    def normalised(self) -> Tensor:
        """(n_plays,) values divided by the L2 norm of their row; rows without plays have none to divide."""
        squares = torch.zeros(len(self), dtype=self.values.dtype)
        squares.index_add_(0, self.per_play(torch.arange(len(self))), self.values.square())
        return self.values / self.per_play(squares.sqrt())

    def sums(self) -> Tensor:
        """(batch,) total weight of each user's plays."""
        total = torch.zeros(len(self), dtype=self.values.dtype)
        return total.index_add_(0, self.per_play(torch.arange(len(self))), self.values)


class SparseLinear(nn.Module):
    """`x @ weight + bias` for sparse rows x: a weighted sum of the weight rows of the items played.

    Parameters
    ----------
    n_items, out_features : int
        `weight` has shape (n_items, out_features).
    """

    def __init__(self, n_items: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_items, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, rows: Rows, values: Tensor) -> Tensor:
        """(n_plays,) values → (batch, out_features)."""
        summed = F.embedding_bag(
            rows.items, self.weight, rows.offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )
        return summed + self.bias


class PlainEncoder(nn.Module):
    """Mult-VAE's encoder: hidden layers with tanh between them, none on the output.

    Parameters
    ----------
    n_items : int
    hidden : sequence of int
        Sizes of the hidden layers; none is allowed.
    code : int
        Size of the output.
    """

    def __init__(self, n_items: int, hidden: Sequence[int], code: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [*hidden, code]
        self.input = SparseLinear(n_items, sizes[0])
        self.layers = nn.ModuleList(linear(a, b) for a, b in pairwise(sizes))
        for layer in (self.input, *self.layers):
            glorot_(layer, generator)

    def forward(self, rows: Rows, values: Tensor) -> Tensor:
        """(n_plays,) input values → (batch, code)."""
        h: Tensor = self.input(rows, values)
        for layer in self.layers:
            h = layer(torch.tanh(h))
        return h


class DenseEncoder(nn.Module):
    """RecVAE's encoder (Shenbin et al. 2020, figure 2): each layer sees the sum of all before it, swish, LayerNorm.

    Parameters
    ----------
    n_items : int
    width, depth : int
        Size and number of the hidden layers.
    code : int
        Size of the output.
    """

    def __init__(self, n_items: int, width: int, depth: int, code: int, generator: torch.Generator) -> None:
        super().__init__()
        self.input = SparseLinear(n_items, width)
        self.hidden = nn.ModuleList(linear(width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=0.1) for _ in range(depth))
        self.code = linear(width, code)
        for layer in (self.input, *self.hidden, self.code):
            fan_in = n_items if layer is self.input else width
            uniform_(layer, fan_in, generator)

    def forward(self, rows: Rows, values: Tensor) -> Tensor:
        """(n_plays,) input values → (batch, code)."""
        h = self.norms[0](F.silu(self.input(rows, values)))
        total = h
        for layer, norm in zip(self.hidden, self.norms[1:], strict=True):
            h = norm(F.silu(layer(h) + total))
            total = total + h
        code: Tensor = self.code(h)
        return code


def dropout(values: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Inverted dropout that draws from `generator`, never from torch's global state."""
    if p == 0:
        return values
    kept = torch.empty_like(values).bernoulli_(1 - p, generator=generator)
    return values * kept / (1 - p)


def sampled(mu: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
    """One draw from N(mu, exp(logvar)), differentiable in both; Kingma & Welling (2014), section 2.4."""
    noise = torch.randn(mu.shape, dtype=mu.dtype, generator=generator)
    return mu + noise * torch.exp(0.5 * logvar)


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) ‖ N(0, I)) of each row, (batch,); Kingma & Welling (2014), appendix B."""
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(dim=1)


def annealed_beta(step: int, cap: float, total_steps: int) -> float:
    """KL weight at a gradient update, counted from 0 and never reset; Liang et al. (2018), section 2.2.2.

    1. No annealing asked for: the cap throughout.
    2. Before the cap is reached: linear in the step.
    3. After: the cap.
    """
    if total_steps == 0:
        return cap
    return min(cap, step / total_steps)


def glorot_(layer: Any, generator: torch.Generator) -> None:
    """Mult-VAE's initialisation: Glorot & Bengio (2010) uniform weights, biases normal (σ = .001) cut at 2σ."""
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.trunc_normal_(layer.bias, std=0.001, a=-0.002, b=0.002, generator=generator)


def uniform_(layer: Any, fan_in: int, generator: torch.Generator) -> None:
    """PyTorch's own default for a linear layer: weights and bias uniform within ±1/√fan_in."""
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer whose weights are not drawn yet, so that torch's global generator stays untouched."""
    skip_init: Any = nn.utils.skip_init
    layer: nn.Linear = skip_init(nn.Linear, in_features, out_features, device=torch.get_default_device())
    return layer
