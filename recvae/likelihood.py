"""The output layer and its likelihood over all items, with exact gradients and no dense (batch, n_items) tensor.

Logits, loss and gradients are computed in chunks of users over one reused buffer, in the forward pass.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor

from recvae.nn import Rows

CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Plays:
    """The plays of a chunk of users, (n_plays,) each: row, place in the flattened logits, value."""

    row: Tensor
    place: Tensor
    values: Tensor

    def sums(self, weights: Tensor, n_rows: int) -> Tensor:
        """(n_rows,) sum of each user's weights."""
        return torch.zeros(n_rows, dtype=weights.dtype, device=weights.device).index_add_(0, self.row, weights)

    def explained(self, logits: Tensor) -> Tensor:
        """(n_rows,) sum over each user's plays of value times logit."""
        return self.sums(logits.view(-1)[self.place] * self.values, len(logits))

    def subtract_from(self, logits: Tensor) -> None:
        """Take the values off the logits of the plays, in place."""
        logits.view(-1).index_add_(0, self.place, self.values, alpha=-1)


def multinomial(logits: Tensor, plays: Plays) -> Tensor:
    """−Σ_i x_i log softmax(f)_i of each user; Liang et al. (2018), equation 2. Items compete for a user's plays."""
    total = plays.sums(plays.values, len(logits))
    normaliser = logits.logsumexp(dim=1)
    nll = normaliser * total - plays.explained(logits)
    logits.sub_(normaliser[:, None]).exp_().mul_(total[:, None])
    plays.subtract_from(logits)
    return nll


def logistic(logits: Tensor, plays: Plays) -> Tensor:
    """−Σ_i x_i log σ(f_i) + (1 − x_i) log(1 − σ(f_i)) of each user; equation 4. Every item is a decision of its own."""
    nll = F.softplus(logits).sum(dim=1) - plays.explained(logits)
    logits.sigmoid_()
    plays.subtract_from(logits)
    return nll


def gaussian(logits: Tensor, plays: Plays) -> Tensor:
    """½ Σ_i (x_i − f_i)² of each user; equation 3, with one confidence for plays and non-plays alike."""
    nll = 0.5 * logits.square().sum(dim=1) - plays.explained(logits)
    nll += 0.5 * plays.sums(plays.values.square(), len(logits))
    plays.subtract_from(logits)
    return nll


LIKELIHOODS: dict[str, Callable[[Tensor, Plays], Tensor]] = {
    "multinomial": multinomial,
    "logistic": logistic,
    "gaussian": gaussian,
}
"""Each turns logits, (n_rows, n_items), into their gradient in place and returns the users' negative log-likelihood."""


class _OutputLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, rows: Rows, likelihood: str) -> Tensor:
        chunk = max(1, min(len(hidden), CHUNK_BYTES // (len(weight) * weight.element_size())))
        buffer = torch.empty(chunk, len(weight), dtype=weight.dtype, device=weight.device)
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(tensor) if wanted else None
            for tensor, wanted in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        )
        nll = torch.empty(len(hidden), dtype=weight.dtype, device=weight.device)
        for users, plays in _chunks(rows, chunk, len(weight)):
            h = hidden[users]
            logits = torch.addmm(bias, h, weight.T, out=buffer[: len(h)])
            nll[users] = LIKELIHOODS[likelihood](logits, plays)
            if grad_hidden is not None:
                torch.mm(logits, weight, out=grad_hidden[users])
            if grad_weight is not None:
                grad_weight.addmm_(logits.T, h)
            if grad_bias is not None:
                grad_bias += logits.sum(dim=0)
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        return nll.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("output_nll gives its gradients once; run the forward pass again")
        gradients = tuple(None if gradient is None else gradient.mul_(grad) for gradient in ctx.gradients)
        ctx.gradients = None
        return (*gradients, None, None)


def output_nll(hidden: Tensor, weight: Tensor, bias: Tensor, rows: Rows, likelihood: str = "multinomial") -> Tensor:
    """Negative log-likelihood of a batch under a linear output layer, summed over users, without constants.

    Exact: the loss and the gradients to hidden, weight and bias equal those of the dense formula. Gradients are for
    one backward pass; there are no second derivatives.

    Parameters
    ----------
    hidden : (batch, size)
    weight : (n_items, size)
    bias : (n_items,)
    rows : Rows
        The plays to be explained.
    likelihood : str
        One of `LIKELIHOODS`.
    """
    loss: Tensor = _OutputLayer.apply(hidden, weight, bias, rows, likelihood)  # type: ignore[no-untyped-call]
    return loss


def user_nll(logits: Tensor, rows: Rows, likelihood: str = "multinomial") -> Tensor:
    """(batch,) negative log-likelihood of each user given all logits, (batch, n_items), which are used up."""
    ((_, plays),) = _chunks(rows, len(rows), logits.shape[1])
    return LIKELIHOODS[likelihood](logits, plays)


def _chunks(rows: Rows, size: int, n_items: int) -> Iterator[tuple[slice, Plays]]:
    """The batch in chunks of `size` users."""
    starts = torch.arange(0, len(rows) + size, size).clamp(max=len(rows))
    offsets = rows.offsets[starts].tolist()
    for (start, stop), (first, last) in zip(pairwise(starts.tolist()), pairwise(offsets), strict=True):
        users = slice(start, stop)
        row = torch.arange(stop - start).repeat_interleave(rows.lengths[users], output_size=last - first)
        yield users, Plays(row, row * n_items + rows.items[first:last], rows.values[first:last])
