"""The torch network of the autoencoders: an encoder of sparse histories, and a decoder to all items."""

import math
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from scipy import sparse
from torch import Tensor, nn

from recvae.errors import ParameterError
from recvae.memory import available_bytes
from recvae.models.autoencoders.architecture import (
    LAYER_NORM_EPSILON,
    Architecture,
    decode,
    encode_dense,
    encode_plain,
)
from recvae.nn.batches import Batch
from recvae.nn.device import free_device_bytes
from recvae.nn.initialisation import draw_glorot_, draw_uniform_
from recvae.nn.item_layers import ItemInput, ItemOutput
from recvae.nn.layers import Linear, Workspace
from recvae.nn.likelihood import output_nll, sampled_nll
from recvae.nn.matmul import linear
from recvae.nn.parallelism import ALONE, Parallelism

TRAINING_COPIES = 5
"""Arrays as large as the weights in training: weights, gradients, two moments of Adam, the best weights so far."""
SAMPLED_COPIES = 2.5
"""The same with a sampled softmax, whose gradients have few rows: weights, `RowAdam`'s moments, the best weights."""


class PlainEncoder(nn.Module):
    """Mult-VAE's encoder; parameters are those of `AutoencoderNetwork`."""

    def __init__(
        self, architecture: Architecture, n_items: int, generator: torch.Generator, parallelism: Parallelism
    ) -> None:
        super().__init__()
        sizes = [*architecture.hidden, architecture.code]
        self.input = ItemInput(n_items, sizes[0], parallelism)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        for layer in (self.input, *self.layers):
            draw_glorot_(layer, generator)

    def forward(self, batch: Batch) -> Tensor:
        """(n_users, n_items), sparse → (n_users, code)."""
        code: Tensor = encode_plain(self.input(batch), self.layers, torch.tanh)  # type: ignore[arg-type]
        return code.to(self.input.weight.dtype)


class DenseEncoder(nn.Module):
    """RecVAE's encoder; parameters are those of `AutoencoderNetwork`."""

    def __init__(
        self, architecture: Architecture, n_items: int, generator: torch.Generator, parallelism: Parallelism
    ) -> None:
        super().__init__()
        width, depth = architecture.hidden[0], len(architecture.hidden)
        self.input = ItemInput(n_items, width, parallelism)
        self.hidden = nn.ModuleList(Linear(width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=LAYER_NORM_EPSILON) for _ in range(depth))
        self.code = Linear(width, architecture.code)
        draw_uniform_(self.input, n_items, generator)
        for layer in (*self.hidden, self.code):
            draw_uniform_(layer, width, generator)

    def forward(self, batch: Batch) -> Tensor:
        """(n_users, n_items), sparse → (n_users, code)."""
        h = self.input(batch)
        code: Tensor = encode_dense(h, [*self.hidden, self.code], self.norms, F.silu)  # type: ignore[arg-type]
        return code.to(self.input.weight.dtype)


class AutoencoderNetwork(nn.Module):
    """items → encoder → code, and z → hidden layers with tanh → items, with weights drawn at random.

    Parameters
    ----------
    architecture : Architecture
    n_items : int
    generator : torch.Generator
    parallelism : Parallelism
        The processes that divide the items of the first and the last layer.
    """

    def __init__(
        self,
        architecture: Architecture,
        n_items: int,
        generator: torch.Generator,
        parallelism: Parallelism = ALONE,
    ) -> None:
        super().__init__()
        plain = architecture.encoder == "plain"
        self.architecture = architecture
        self.encoder = (PlainEncoder if plain else DenseEncoder)(architecture, n_items, generator, parallelism)
        sizes = [architecture.latent, *architecture.decoder]
        self.decoder = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        self.output = ItemOutput(sizes[-1], n_items, parallelism)
        self._workspace = Workspace()
        for layer in (*self.decoder, self.output):
            draw = draw_glorot_ if plain else partial(draw_uniform_, fan_in=layer.in_features)
            draw(layer, generator=generator)

    def decode(self, z: Tensor) -> Tensor:
        """(n_users, latent) → (n_users, size of the last hidden layer), the output layer's input."""
        return decode(z, self.decoder, torch.tanh)  # type: ignore[arg-type]

    def logits(self, z: Tensor) -> Tensor:
        """(n_users, latent) → (n_users, n_items), without gradients; divided items need all processes to call it."""
        own = linear(self.decode(z), self.output.weight, self.output.bias)
        if not self.output.parallelism.divides_items:
            return own
        return self.output.parallelism.gather_rows(own.T, self.output.n_items).T.contiguous()

    def nll(self, z: Tensor, batch: Batch, likelihood: str = "multinomial") -> Tensor:
        """Mean negative log-likelihood of the batch, given z."""
        output = self.output
        return output_nll(
            self.decode(z),
            output.weight,
            output.bias,
            batch,
            likelihood,
            self._workspace,
            output.n_items,
            output.parallelism,
        )

    def sampled_nll(self, z: Tensor, batch: Batch, batch_items: Tensor, negatives: tuple[Tensor, Tensor]) -> Tensor:
        """`nll` with a multinomial likelihood whose normaliser is estimated; see `recvae.nn.likelihood.sampled_nll`."""
        output = self.output
        return sampled_nll(self.decode(z), output.weight, output.bias, batch, batch_items, negatives, self._workspace)


def count_training_bytes(
    architecture: Architecture, n_items: int, parallelism: Parallelism, copies: float = TRAINING_COPIES
) -> int:
    """Memory that training takes for weights, and for what is as large as they are."""
    n_weights = sum(math.prod(shape) for shape in architecture.shapes(n_items).values())
    needed = round(4 * copies * n_weights)
    return needed // parallelism.size if parallelism.divides_items else needed  # nearly all weights are of item layers


def refuse_if_too_large(
    architecture: Architecture,
    user_items: sparse.csr_matrix,
    device: torch.device,
    parallelism: Parallelism,
    copies: float = TRAINING_COPIES,
) -> None:
    """Refuse a network whose training would exhaust the memory: the system would kill the process without a word.

    A GPU holds the histories too, with an index and a weight of four bytes for each interaction.
    """
    n_items = user_items.shape[1]
    needed = count_training_bytes(architecture, n_items, parallelism, copies)
    if device.type == "cpu":
        available = available_bytes()
    else:
        needed, available = needed + 8 * user_items.nnz, free_device_bytes(device)
    if available is not None and needed > available:
        raise ParameterError(
            f"hidden is {architecture.hidden} and latent {architecture.latent}, which on {n_items:,} items makes a "
            f"network that needs about {needed / 1e9:.1f} GB in training; {available / 1e9:.1f} GB are free; use "
            "smaller layers, or keep fewer items (min_item_users)"
        )
