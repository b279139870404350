"""The network of the autoencoders: an encoder of sparse histories and a decoder to all items."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recvae.likelihood import output_nll, sampled_nll
from recvae.nn import DenseEncoder, Linear, PlainEncoder, Workspace, glorot_, uniform_
from recvae.products import linear
from recvae.rows import Rows


class AutoencoderNet(nn.Module):
    """items → encoder → code, and z → hidden layers with tanh → items.

    Parameters
    ----------
    encoder : PlainEncoder or DenseEncoder
    latent : int
        Size of z.
    hidden : sequence of int
        Sizes of the decoder's hidden layers; none makes it linear.
    n_items : int
    """

    def __init__(
        self,
        encoder: PlainEncoder | DenseEncoder,
        latent: int,
        hidden: Sequence[int],
        n_items: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = [latent, *hidden]
        self.latent = latent
        self.encoder = encoder
        self.decoder = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        self.output = Linear(sizes[-1], n_items)
        self._workspace = Workspace()
        for layer in (*self.decoder, self.output):
            if isinstance(encoder, PlainEncoder):
                glorot_(layer, generator)
            else:
                uniform_(layer, layer.in_features, generator)

    def decode(self, z: Tensor) -> Tensor:
        """(batch, latent) → (batch, size of the last hidden layer), what the output layer multiplies."""
        for layer in self.decoder:
            z = torch.tanh(layer(z))
        return z

    def logits(self, z: Tensor) -> Tensor:
        """(batch, latent) → (batch, n_items), for scoring only."""
        return linear(self.decode(z), self.output.weight, self.output.bias)

    def nll(self, z: Tensor, rows: Rows, likelihood: str = "multinomial") -> Tensor:
        """Mean negative log-likelihood of the batch, given z."""
        return output_nll(self.decode(z), self.output.weight, self.output.bias, rows, likelihood, self._workspace)

    def sampled_nll(self, z: Tensor, rows: Rows, negatives: Tensor, log_expected: Tensor) -> Tensor:
        """`nll` with a multinomial likelihood whose normaliser is estimated on items drawn at random."""
        return sampled_nll(self.decode(z), self.output.weight, self.output.bias, rows, negatives, log_expected)
