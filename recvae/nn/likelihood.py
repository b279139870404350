"""The output layer and its likelihood over all items, with exact gradients and no dense (batch, n_items) tensor.

Logits, loss and gradients are computed in chunks of users over one reused buffer, in the forward pass.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor

from recvae.memory import rows_at_once
from recvae.nn.batches import Rows, per_user_sums
from recvae.nn.layers import Workspace
from recvae.nn.matmul import accumulate, linear
from recvae.nn.sharding import ItemShard

MIN_CHUNK = 125
FINENESS = 32
"""Sampled items are filled up, by items without any chance, to a multiple of the next power of two over it: oneDNN
keeps a program of a megabyte for each size of a product that it meets.
"""


@dataclass(frozen=True)
class Plays:
    """The interactions of a chunk of users among the items that this process holds.

    Attributes
    ----------
    row, place, values : (n_interactions,)
        Row, place in the flattened logits, weight.
    offsets : (n_rows + 1,)
        Where each user's interactions begin.
    total : (n_rows,)
        Weight of all interactions of each user, of other processes' items too.
    shard : ItemShard
        The items.
    """

    row: Tensor
    place: Tensor
    values: Tensor
    offsets: Tensor
    total: Tensor
    shard: ItemShard

    def sums(self, weights: Tensor) -> Tensor:
        """(n_rows,) sum of each user's weights."""
        return per_user_sums(weights, self.offsets)

    def explained(self, logits: Tensor) -> Tensor:
        """(n_rows,) sum over each user's interactions of value times logit."""
        return self.sums(logits.take(self.place) * self.values)

    def subtract_from(self, logits: Tensor, scale: Tensor | None = None) -> None:
        """Take the values, over their user's scale, off the logits of the interactions, in place."""
        values = self.values if scale is None else self.values / scale[self.row]
        logits.view(-1)[self.place] = (logits.take(self.place) - values).to(logits.dtype)


def multinomial(logits: Tensor, interactions: Plays) -> tuple[Tensor, Tensor]:
    """−Σ_i x_i log softmax(f)_i of each user; Liang et al. (2018), equation 2. Items compete for a user."""
    weight = interactions.sums(interactions.values)
    explained, largest = interactions.explained(logits), logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    normaliser = largest.to(weight.dtype) - logits.amax(dim=1).to(weight.dtype).log()
    if interactions.shard.divided:
        own, normaliser = normaliser, interactions.shard.logsumexp(normaliser)
        logits *= (own - normaliser).exp().to(logits.dtype)[:, None]
    interactions.subtract_from(logits, interactions.total)
    return normaliser * weight - explained, interactions.total


def logistic(logits: Tensor, interactions: Plays) -> tuple[Tensor, Tensor]:
    """−Σ_i x_i log σ(f_i) + (1 − x_i) log(1 − σ(f_i)) of each user; equation 4. Every item is a decision of its own."""
    nll = F.softplus(logits).sum(dim=1, dtype=interactions.values.dtype) - interactions.explained(logits)
    logits.sigmoid_()
    interactions.subtract_from(logits)
    return nll, torch.ones_like(nll)


def gaussian(logits: Tensor, interactions: Plays) -> tuple[Tensor, Tensor]:
    """½ Σ_i (x_i − f_i)² of each user; equation 3, with one confidence for interactions and non-interactions alike."""
    nll = 0.5 * logits.square().sum(dim=1, dtype=interactions.values.dtype) - interactions.explained(logits)
    nll += 0.5 * interactions.sums(interactions.values.square())
    interactions.subtract_from(logits)
    return nll, torch.ones_like(nll)


LIKELIHOODS: dict[str, Callable[[Tensor, Plays], tuple[Tensor, Tensor]]] = {
    "multinomial": multinomial,
    "logistic": logistic,
    "gaussian": gaussian,
}
"""Each returns the users' negative log-likelihood and a scale, and turns logits, (n_rows, n_items), in place into
their gradient over that scale: scaling the rows of the smaller tensors in the products is cheaper. Of divided items
it is the likelihood's part, which adds up to the whole.
"""


class _OutputLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        rows: Rows,
        likelihood: str,
        workspace: Workspace,
        shard: ItemShard,
    ) -> Tensor:
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        size = min(len(hidden), rows_at_once(shard.longest * dtype.itemsize, MIN_CHUNK))  # for all the same
        buffer = workspace.take("logits", (size, len(weight)), weight, dtype)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = workspace.take("output gradient", weight.shape, weight) if wants_weight or wants_bias else None
        grad_bias = torch.empty_like(bias)
        nll = torch.empty(len(hidden), dtype=weight.dtype, device=weight.device)
        w = weight if dtype == weight.dtype else workspace.take("weight", weight.shape, weight, dtype).copy_(weight)
        b = bias.to(dtype)
        for users, interactions in _chunks(rows, size, shard):
            h = hidden[users].to(dtype)
            logits = linear(h, w, b, out=buffer[: len(h)])
            nll[users], scale = LIKELIHOODS[likelihood](logits, interactions)
            scale = (scale / len(hidden))[:, None]
            if grad_hidden is not None:
                torch.mul(linear(logits, w.T), scale, out=grad_hidden[users])
            if grad_weight is not None:  # the bias is the weight of a constant
                inputs = torch.cat([h * scale, scale], dim=1).to(dtype)
                accumulate([grad_weight, grad_bias[:, None]], logits.T, inputs, first=users.start == 0)
            del logits  # before the next are made
        if grad_hidden is not None:
            shard.sum_(grad_hidden)
        ctx.gradients = (grad_hidden, grad_weight, None if grad_weight is None else grad_bias)
        return shard.sum_(nll).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("output_nll gives its gradients once; run the forward pass again")
        gradients, ctx.gradients = ctx.gradients, None
        if grad.device.type != "cpu" or grad != 1:
            gradients = [None if gradient is None else gradient.mul_(grad) for gradient in gradients]
        # Aliases, which autograd takes as they are instead of copying them.
        return (*[None if gradient is None else gradient.detach() for gradient in gradients], *[None] * 4)


def output_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    rows: Rows,
    likelihood: str = "multinomial",
    workspace: Workspace | None = None,
    shard: ItemShard | None = None,
) -> Tensor:
    """Negative log-likelihood of a batch under a linear output layer, the mean over users, without constants.

    Exact: the loss and the gradients to hidden, weight and bias equal those of the dense formula. Gradients are for
    one backward pass; there are no second derivatives. Under autocast the matrix products are in its type; the
    likelihood's sums, the loss and the sum of the chunks' gradients stay in the weight's own.

    Parameters
    ----------
    hidden : (batch, size)
    weight : (n_items, size)
    bias : (n_items,)
    rows : Rows
        The interactions to be explained, among all items.
    likelihood : str
        One of `LIKELIHOODS`.
    workspace : Workspace, optional
        Where logits and the gradient to weight are kept; the latter only until the next call with the same one.
    shard : ItemShard, optional
        The items that weight and bias are of, where several processes have the others; loss and gradient to hidden
        are then the same in all.
    """
    loss: Tensor = _OutputLayer.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, rows, likelihood, workspace or Workspace(), shard or ItemShard(len(weight))
    )
    return loss


def sampled_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    rows: Rows,
    negatives: Tensor,
    log_expected: Tensor,
    workspace: Workspace | None = None,
) -> Tensor:
    """The multinomial likelihood with its normaliser estimated on a part of the items, for very large catalogues.

    Σ_i exp(f_i) is the sum over all items that anybody in the batch has played, whose rows are touched anyway, plus,
    over the `negatives` outside them, of exp(f_j) over the expected number of times that j was drawn: an unbiased
    estimate (Bengio & Senécal 2003, "Quick training of probabilistic neural nets by importance sampling"). Its
    logarithm, and so the loss, is biased low by about half its relative variance. The gradient to `weight` is sparse.

    Parameters
    ----------
    hidden : (batch, size)
    weight : (n_items, size)
    bias : (n_items,)
    rows : Rows
    negatives : (n_negatives,) int64
        Items drawn with replacement, for the whole batch.
    log_expected : (n_negatives,)
        Logarithm of the expected number of times that each was drawn.
    workspace : Workspace, optional
        As for `output_nll`.
    """
    played: Tensor = torch.unique(rows.batch_items).long()
    drawn, places = torch.unique(negatives, return_inverse=True)
    times = log_expected.new_zeros(len(drawn)).index_add_(0, places, (-log_expected).exp())
    outside = ~torch.isin(drawn, played)
    items = torch.cat([played, drawn[outside]])
    corrected = bias[items] + F.pad(times[outside].log(), (len(played), 0))
    spare = -len(items) % max(1, 2 ** len(items).bit_length() // FINENESS)
    items, corrected = torch.cat([items, items[:1].expand(spare)]), F.pad(corrected, (0, spare), value=-math.inf)
    among = replace(rows, items=torch.searchsorted(played, rows.items.long(), out_int32=True))
    return output_nll(hidden, F.embedding(items, weight, sparse=True), corrected, among, workspace=workspace)


def user_nll(logits: Tensor, rows: Rows, likelihood: str = "multinomial") -> Tensor:
    """(batch,) negative log-likelihood of each user given all logits, (batch, n_items), which are used up."""
    ((_, interactions),) = _chunks(rows, len(rows), ItemShard(logits.shape[1]))
    nll, _ = LIKELIHOODS[likelihood](logits, interactions)
    return nll


def _chunks(rows: Rows, size: int, shard: ItemShard) -> Iterator[tuple[slice, Plays]]:
    """The batch in chunks of `size` users."""
    total, rows, n_items = rows.sums(), shard.interactions(rows), len(shard)
    row_of, place = rows.users.long(), rows.users.long() * n_items + rows.items
    for start in range(0, len(rows), size):
        stop = min(start + size, len(rows))
        interactions = slice(rows.starts[start], rows.starts[stop])
        users, offsets = slice(start, stop), rows.offsets[start : stop + 1] - rows.offsets[start]
        yield (
            users,
            Plays(
                row_of[interactions] - start,
                place[interactions] - start * n_items,
                rows.values[interactions],
                offsets,
                total[users],
                shard,
            ),
        )
