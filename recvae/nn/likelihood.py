"""The output layer and its likelihood over all items, with exact gradients and no dense (batch, n_items) tensor.

Written with autograd's own operations, the layer would keep logits, softmax and their gradient for the whole batch,
(batch, n_items) each. But the gradient of the loss to the logits is known in closed form, softmax minus target, as soon
as the logits are. So loss and gradients are computed together, in the forward pass, a chunk of users at a time: a
chunk's logits are made, turned in place into their gradient, multiplied into the gradients to the layer's inputs and
weights, and forgotten. The backward pass only hands those out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor

from recvae.memory import rows_at_once
from recvae.nn.batches import Batch, sum_per_user
from recvae.nn.layers import Workspace
from recvae.nn.matmul import accumulate, linear
from recvae.nn.parallelism import ALONE, Parallelism

MIN_CHUNK = 125
"""Fewer users at a time would make the matrix products slow."""

GPU_CHUNK_BYTES = 2**29
"""Bytes of a chunk's logits on a GPU: a chunk that suits a processor's caches would be done there before the next one's
operations are started.
"""
ALIGNED_BYTES = 16
"""A GPU multiplies bfloat16 matrices two to three times faster where their rows are multiples of so many bytes."""
FINENESS = 32
"""The number of sampled items is rounded up, to a multiple of the next power of two divided by this: oneDNN keeps a
compiled program of a megabyte for each size of a product that it meets.
"""


@dataclass(frozen=True)
class Targets:
    """The interactions of a chunk of users, as entries of the chunk's logits, (n_users, own items).

    Attributes
    ----------
    users, places, values : (n_interactions,)
        Row, index into the flattened logits, and weight of each interaction.
    offsets : (n_users + 1,)
        Index of each user's first interaction.
    totals : (n_users,)
        Weight of all of a user's interactions, those with other processes' items included.
    parallelism : Parallelism
        The processes that hold the other items.
    """

    users: Tensor
    places: Tensor
    values: Tensor
    offsets: Tensor
    totals: Tensor
    parallelism: Parallelism

    def sum_per_user(self, per_interaction: Tensor) -> Tensor:
        """(n_interactions,) to (n_users,)."""
        return sum_per_user(per_interaction, self.offsets)

    def sum_weighted_logits(self, logits: Tensor) -> Tensor:
        """Σ_i x_i f_i of each user, (n_users,)."""
        return self.sum_per_user(logits.take(self.places) * self.values)

    def subtract_from(self, logits: Tensor, scale: Tensor | None = None) -> None:
        """Subtract the values, divided by their user's scale, from the interactions' logits, in place."""
        values = self.values if scale is None else self.values / scale[self.users]
        logits.view(-1)[self.places] = (logits.take(self.places) - values).to(logits.dtype)


def multinomial(logits: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """−Σ_i x_i log softmax(f)_i of each user; Liang et al. (2018), equation 2. Items compete for a user."""
    own_weight = targets.sum_per_user(targets.values)
    weighted, largest = targets.sum_weighted_logits(logits), logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    # log Σ exp(f) without another pass over the logits: the largest has probability exp(largest − log Σ exp(f)).
    own_normaliser = largest.to(own_weight.dtype) - logits.amax(dim=1).to(own_weight.dtype).log()
    normaliser = targets.parallelism.logsumexp_over_items(own_normaliser)
    if targets.parallelism.divides_items:  # the softmax was over the own items only
        logits *= (own_normaliser - normaliser).exp().to(logits.dtype)[:, None]
    targets.subtract_from(logits, targets.totals)
    return normaliser * own_weight - weighted, targets.totals


def logistic(logits: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """−Σ_i x_i log σ(f_i) + (1 − x_i) log(1 − σ(f_i)) of each user; equation 4. Every item is a decision of its own."""
    nll = F.softplus(logits).sum(dim=1, dtype=targets.values.dtype) - targets.sum_weighted_logits(logits)
    logits.sigmoid_()
    targets.subtract_from(logits)
    return nll, torch.ones_like(nll)


def gaussian(logits: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """½ Σ_i (x_i − f_i)² of each user; equation 3, with one confidence for interactions and non-interactions alike."""
    nll = 0.5 * logits.square().sum(dim=1, dtype=targets.values.dtype) - targets.sum_weighted_logits(logits)
    nll += 0.5 * targets.sum_per_user(targets.values.square())
    targets.subtract_from(logits)
    return nll, torch.ones_like(nll)


LIKELIHOODS: dict[str, Callable[[Tensor, Targets], tuple[Tensor, Tensor]]] = {
    "multinomial": multinomial,
    "logistic": logistic,
    "gaussian": gaussian,
}
"""Each returns the users' negative log-likelihood and a scale, (n_users,), and turns the logits, (n_users, own items),
in place into their gradient divided by that scale: to scale the rows of the smaller tensors in the products is cheaper
than to scale all logits. Where items are divided, the likelihood is the own items' part of a sum.
"""

NEUTRAL_LOGIT = {"multinomial": -math.inf, "logistic": -math.inf, "gaussian": 0.0}
"""The logit of an item that nobody has which adds nothing to the likelihood."""


def _padded_width(n_items: int, device: torch.device, dtype: torch.dtype) -> int:
    """The number of items, rounded up on a GPU to whole `ALIGNED_BYTES` of the products' type."""
    if device.type == "cpu" or dtype.itemsize > 2:  # float32 has no such kernels, and its weights are not copied
        return n_items
    return n_items + -n_items % (ALIGNED_BYTES // dtype.itemsize)


def _rows_at_once_on_gpu(row_bytes: int, least: int) -> int:
    return max(least, GPU_CHUNK_BYTES // row_bytes)


class _OutputLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        batch: Batch,
        likelihood: str,
        workspace: Workspace,
        n_items: int,
        parallelism: Parallelism,
    ) -> Tensor:
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        # By the process that has most items, so that all exchange normalisers of the same chunks.
        row_bytes = parallelism.most_items(n_items) * dtype.itemsize
        chunk_size = (rows_at_once if device == "cpu" else _rows_at_once_on_gpu)(row_bytes, MIN_CHUNK)
        size = min(len(hidden), chunk_size)
        width = _padded_width(len(weight), weight.device, dtype)
        buffer = workspace.take("logits", (size, width), weight, dtype)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = workspace.take("output gradient", weight.shape, weight) if wants_weight or wants_bias else None
        grad_bias = torch.empty_like(bias)
        nll = torch.empty(len(hidden), dtype=weight.dtype, device=weight.device)
        w, b = weight, bias
        if dtype != weight.dtype or width > len(weight):
            w = workspace.take("weight", (width, weight.shape[1]), weight, dtype)
            w[: len(weight)].copy_(weight)
            w[len(weight) :].zero_()
            b = F.pad(bias.to(dtype), (0, width - len(bias)), value=NEUTRAL_LOGIT[likelihood])
        for users, targets in _cut_into_chunks(batch, size, n_items, parallelism, width):
            h = hidden[users].to(dtype)
            logits = linear(h, w, b, out=buffer[: len(h)])
            nll[users], scale = LIKELIHOODS[likelihood](logits, targets)  # logits are their own gradient from here on
            scale = (scale / len(hidden))[:, None]
            if grad_hidden is not None:
                torch.mul(linear(logits, w.T), scale, out=grad_hidden[users])
            if grad_weight is not None:
                # A bias is the weight of an input that is always 1, so one product gives both gradients.
                inputs = torch.cat([h * scale, scale], dim=1).to(dtype)
                own = logits[:, : len(weight)]
                accumulate([grad_weight, grad_bias[:, None]], own.T, inputs, first=users.start == 0)
                del own
            del logits  # frees them, where they don't lie in the buffer, before the next chunk's are made
        if grad_hidden is not None:
            parallelism.sum_over_items_(grad_hidden)
        ctx.gradients = (grad_hidden, grad_weight, None if grad_weight is None else grad_bias)
        return parallelism.sum_over_items_(nll).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("output_nll gives its gradients once; run the forward pass again")
        gradients, ctx.gradients = ctx.gradients, None
        if grad.device.type != "cpu" or grad != 1:
            gradients = [None if gradient is None else gradient.mul_(grad) for gradient in gradients]
        # Aliases: autograd would copy tensors that something else, here the workspace, holds too.
        return (*[None if gradient is None else gradient.detach() for gradient in gradients], *[None] * 5)


def output_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    likelihood: str = "multinomial",
    workspace: Workspace | None = None,
    n_items: int | None = None,
    parallelism: Parallelism = ALONE,
) -> Tensor:
    """Negative log-likelihood of a batch under a linear output layer, the mean over users, without constants.

    Exact: the loss and the gradients to hidden, weight and bias equal those of the dense formula. Gradients are for
    one backward pass; there are no second derivatives. Under autocast the matrix products are in its type; the
    likelihood's sums, the loss and the sum of the chunks' gradients stay in the weight's own.

    Parameters
    ----------
    hidden : (n_users, size)
    weight : (own items, size)
    bias : (own items,)
    batch : Batch
        The interactions to be explained, with all items.
    likelihood : str
        One of `LIKELIHOODS`.
    workspace : Workspace, optional
        Keeps logits and the gradient to weight; the latter only until the next call with the same one.
    n_items : int, optional
        Items of all processes; the rows of `weight` when None.
    parallelism : Parallelism
        The processes that hold the other items; loss and gradient to hidden are then the same in all.
    """
    loss: Tensor = _OutputLayer.apply(  # type: ignore[no-untyped-call]
        hidden,
        weight,
        bias,
        batch,
        likelihood,
        workspace or Workspace(),
        len(weight) if n_items is None else n_items,
        parallelism,
    )
    return loss


def sampled_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    batch_items: Tensor,
    negatives: tuple[Tensor, Tensor],
    workspace: Workspace | None = None,
) -> Tensor:
    """The multinomial likelihood with its normaliser estimated on some of the items, for very large catalogues.

    Σ_i exp(f_i) is estimated without bias (Bengio & Senécal 2003, "Quick training of probabilistic neural nets by
    importance sampling"): summed over all items of the batch's interactions, whose rows are needed anyway, plus, over
    the drawn items outside them, of exp(f_j) divided by the expected number of times that j was drawn. Its logarithm,
    and so the loss, is biased low by about half its relative variance. The gradient to `weight` is sparse.

    Parameters
    ----------
    hidden : (n_users, size)
    weight : (n_items, size)
    bias : (n_items,)
    batch : Batch
    batch_items : (n,)
        Items of all interactions of the batch, also of users that other processes have.
    negatives : two tensors, (n_negatives,)
        Items drawn with replacement, int64, and the logarithm of the expected number of times that each was drawn.
    workspace : Workspace, optional
        As for `output_nll`.
    """
    drawn, log_expected = negatives
    positives: Tensor = torch.unique(batch_items).long()
    drawn, places = torch.unique(drawn, return_inverse=True)
    # An item drawn several times counts as often: Σ of 1 / expected, added to its logit as a logarithm.
    weights = log_expected.new_zeros(len(drawn)).index_add_(0, places, (-log_expected).exp())
    outside = ~torch.isin(drawn, positives)
    items = torch.cat([positives, drawn[outside]])
    corrected = bias[items] + F.pad(weights[outside].log(), (len(positives), 0))
    padding = -len(items) % max(1, 2 ** len(items).bit_length() // FINENESS)
    # Padded with items of logit −∞, which have probability 0.
    items, corrected = torch.cat([items, items[:1].expand(padding)]), F.pad(corrected, (0, padding), value=-math.inf)
    renumbered = replace(batch, items=torch.searchsorted(positives, batch.items.long(), out_int32=True))
    return output_nll(hidden, F.embedding(items, weight, sparse=True), corrected, renumbered, workspace=workspace)


def user_nll(logits: Tensor, batch: Batch, likelihood: str = "multinomial") -> Tensor:
    """(n_users,) negative log-likelihood of each user given all logits, (n_users, n_items), which are overwritten."""
    ((_, targets),) = _cut_into_chunks(batch, len(batch), logits.shape[1], ALONE, logits.shape[1])
    nll, _ = LIKELIHOODS[likelihood](logits, targets)
    return nll


def _cut_into_chunks(
    batch: Batch, size: int, n_items: int, parallelism: Parallelism, width: int
) -> Iterator[tuple[slice, Targets]]:
    """The targets of `size` users at a time, of logits with rows of `width`, sliced from arrays for the whole batch."""
    totals, own = batch.sum_weights(), parallelism.own_interactions(batch, n_items)
    rows = own.users.long()
    places = rows * width + own.items
    for start in range(0, len(own), size):
        stop = min(start + size, len(own))
        interactions = slice(own.host_offsets[start], own.host_offsets[stop])
        users = slice(start, stop)
        yield (
            users,
            Targets(
                rows[interactions] - start,
                places[interactions] - start * width,
                own.values[interactions],
                own.offsets[start : stop + 1] - own.offsets[start],
                totals[users],
                parallelism,
            ),
        )
