"""Random draws of training: dropout, noise of a posterior, items for the sampled softmax.

All come from the generator that is given, never from torch's global state.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from recvae.nn.batches import Batch


def drop_out(batch: Batch, p: float, generator: torch.Generator) -> Batch:
    """Inverted dropout of a batch's values: each is 0 with probability `p`, and divided by 1 − p otherwise."""
    if p == 0:
        return batch
    drawn = torch.empty_like(batch.values).uniform_(generator=generator)
    return replace(batch, values=batch.values * (drawn >= p) / (1 - p))


def draw_noise(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Standard normal noise for each user of a batch, (n_users, size)."""
    return batch.values.new_empty((len(batch), size)).normal_(generator=generator)


def sample_normal(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """One draw from N(mu, exp(logvar)), differentiable in both; Kingma & Welling (2014), section 2.4."""
    return mu + noise * torch.exp(0.5 * logvar)


class NegativeSampler:
    """Draws items for the sampled softmax.

    Parameters
    ----------
    n : int
        Items drawn for each batch, with replacement.
    weights : (n_items,)
        Probabilities of the items, up to a factor.
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
