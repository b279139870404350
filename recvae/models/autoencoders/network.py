"""The network of the autoencoders: an encoder of sparse histories and a decoder to all items."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recvae.nn.batches import Rows
from recvae.nn.layers import DenseEncoder, ItemLinear, Linear, PlainEncoder, Workspace, glorot_, uniform_
from recvae.nn.likelihood import output_nll, sampled_nll
from recvae.nn.matmul import linear
from recvae.nn.sharding import ItemShard


class AutoencoderNet(nn.Module):
    """items → encoder → code, and z → hidden layers with tanh → items.

    Parameters
    ----------
    encoder : PlainEncoder or DenseEncoder
    latent : int
        Size of z.
    hidden : sequence of int
        Sizes of the decoder's hidden layers; none makes it linear.
    shard : ItemShard
        The items of the first and of the last layer.
    """

    def __init__(
        self,
        encoder: PlainEncoder | DenseEncoder,
        latent: int,
        hidden: Sequence[int],
        shard: ItemShard,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = [latent, *hidden]
        self.latent = latent
        self.encoder = encoder
        self.decoder = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        self.output = ItemLinear(sizes[-1], shard)
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
        """(batch, latent) → (batch, n_items), for scoring only; of divided items by all processes together."""
        own, shard = linear(self.decode(z), self.output.weight, self.output.bias), self.output.shard
        return shard.whole(own.T).T.contiguous() if shard.divided else own

    def nll(self, z: Tensor, rows: Rows, likelihood: str = "multinomial") -> Tensor:
        """Mean negative log-likelihood of the batch, given z."""
        output = self.output
        return output_nll(self.decode(z), output.weight, output.bias, rows, likelihood, self._workspace, output.shard)

    def sampled_nll(self, z: Tensor, rows: Rows, negatives: Tensor, log_expected: Tensor) -> Tensor:
        """`nll` with a multinomial likelihood whose normaliser is estimated on items drawn at random."""
        output = self.output
        return sampled_nll(self.decode(z), output.weight, output.bias, rows, negatives, log_expected, self._workspace)
