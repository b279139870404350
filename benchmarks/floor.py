"""The floor of a training step on this machine: the output layer's arithmetic and the optimizer's memory traffic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter

import torch

BYTES_A_PARAMETER = 28  # Adam in float32 reads weight, gradient and two moments, and writes all but the gradient
COPIED_FLOATS = 32 * 2**20  # far more than any cache holds
SLAB = 2_000  # items


@dataclass(frozen=True)
class Floor:
    """Rates of the machine, and the least time of a step.

    Attributes
    ----------
    products : (3,) seconds
        Of the output layer's matrix products: logits, gradient to the hidden layer, gradient to the weights.
    gflops : float
        Rate of the three together, in 10^9 floating-point operations a second.
    gb_per_s : float
        Bytes read and written by a copy, in 10^9 a second.
    """

    products: Sequence[float]
    gflops: float
    gb_per_s: float

    def seconds(self, n_parameters: int) -> float:
        """Compute the least time of a step that updates `n_parameters` parameters by Adam."""
        return sum(self.products) + BYTES_A_PARAMETER * n_parameters / (self.gb_per_s * 1e9)


def n_parameters(n_items: int, hidden: int = 600, latent: int = 200) -> int:
    """Count weights and biases of Mult-VAE in the paper's architecture."""
    encoder = (n_items + 1) * hidden + (hidden + 1) * 2 * latent
    decoder = (latent + 1) * hidden + (hidden + 1) * n_items
    return encoder + decoder


def output_flops(batch: int, hidden: int, n_items: int) -> int:
    """Count floating-point operations of each of the output layer's three products."""
    return 2 * batch * hidden * n_items


def measure(batch: int, hidden: int, n_items: int, repeats: int = 5) -> Floor:
    """Measure median times of the three products by the faster of torch's libraries, and of a copy.

    Products are measured on as many items as the cache holds, and scaled to all of them.
    """
    size = min(n_items, SLAB)
    h, weight, logits = torch.randn(batch, hidden), torch.randn(size, hidden), torch.randn(batch, size)
    results = torch.empty_like(logits), torch.empty_like(h), torch.empty_like(weight)
    factors = (h, weight.T), (logits, weight), (logits.T, h)
    source, target = torch.ones(COPIED_FLOATS), torch.ones(COPIED_FLOATS)
    works: list[Callable[[], object]] = [lambda: target.copy_(source)]
    works += [partial(torch.mm, *pair, out=out) for pair, out in zip(factors, results, strict=True)]
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        works += [partial(torch.ops.mkldnn._linear_pointwise, a, b.T, None, "none", [], "") for a, b in factors]
    copy, *seconds = medians(works, repeats)
    products = [n_items / size * one for one in min(seconds[:3], seconds[3:] or seconds[:3], key=sum)]
    flops = len(products) * output_flops(batch, hidden, n_items)
    return Floor(products, flops / sum(products) / 1e9, 2 * 4 * COPIED_FLOATS / copy / 1e9)


def medians(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Measure median seconds of works in turn, so that a change of the machine's speed affects all, after a warm-up."""
    seconds: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats + 1):
        for work, found in zip(works, seconds, strict=True):
            started = perf_counter()
            work()
            if repeat:
                found.append(perf_counter() - started)
    return [median(found) for found in seconds]
