"""The first and the last layer of an autoencoder: linear layers with a row of weights for each item.

Where several processes divide the items (see `recvae.nn.parallelism`), each layer holds the own items' rows only.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor, nn

from recvae.nn.batches import Batch
from recvae.nn.layers import Linear, Workspace
from recvae.nn.parallelism import ALONE, Parallelism

PIECE = 512
"""Users of an item whose rows one thread adds up on a GPU."""


class ItemLayer(nn.Module):
    """A layer with parameters that have a row for each item.

    Attributes
    ----------
    n_items : int
        Items of all processes.
    parallelism : Parallelism
    by_item : tuple of str
        Names of the parameters that have a row for each own item.
    """

    by_item: ClassVar[tuple[str, ...]]
    n_items: int
    parallelism: Parallelism


class ItemInput(ItemLayer):
    """`x @ weight + bias` for sparse rows x: a weighted sum of the weight rows of each user's items.

    Parameters
    ----------
    n_items, out_features : int
        `weight` has shape (own items, out_features).
    parallelism : Parallelism

    Attributes
    ----------
    sparse_gradient : bool
        Whether the gradient to `weight` is sparse, with rows for the items of the batch only.
    """

    by_item = ("weight",)

    def __init__(self, n_items: int, out_features: int, parallelism: Parallelism = ALONE) -> None:
        super().__init__()
        self.n_items, self.parallelism = n_items, parallelism
        own = parallelism.own_items(n_items)
        self.weight = nn.Parameter(torch.zeros(own.stop - own.start, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.sparse_gradient = False
        self._workspace = Workspace()

    def forward(self, batch: Batch) -> Tensor:
        """The batch's values are x: (n_users, n_items), sparse → (n_users, out_features)."""
        workspace = None if self.sparse_gradient else self._workspace
        own = self.parallelism.own_interactions(batch, self.n_items)
        summed: Tensor = _WeightedSum.apply(self.weight, own, self.parallelism, workspace)  # type: ignore[no-untyped-call]
        return summed + self.bias


class ItemOutput(Linear, ItemLayer):
    """A linear layer with an output for each item.

    Parameters
    ----------
    in_features, n_items : int
        `weight` has shape (own items, in_features).
    parallelism : Parallelism
    """

    by_item = ("weight", "bias")

    def __init__(self, in_features: int, n_items: int, parallelism: Parallelism = ALONE) -> None:
        own = parallelism.own_items(n_items)
        super().__init__(in_features, own.stop - own.start)
        self.n_items, self.parallelism = n_items, parallelism


class _WeightedSum(torch.autograd.Function):
    """`weighted_sum` of a batch, added over the processes, with a gradient to the own rows only.

    The gradient is written into a workspace on a processor, or is sparse where there is none. Autograd's own backward
    pass of an embedding bag would allocate and fill a dense gradient afresh for every batch.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, batch: Batch, parallelism: Parallelism, workspace: Workspace | None
    ) -> Tensor:
        ctx.workspace, ctx.shape = workspace, weight.shape
        items, offsets, values = batch.items, batch.offsets, batch.values
        if not ctx.needs_input_grad[0]:
            return parallelism.sum_over_items_(weighted_sum(weight, items, offsets, values))
        users = batch.users
        if weight.device.type == "cpu" or workspace is None:
            # Interactions that dropout has set to 0 are left out, here and in the backward pass. On a GPU it would
            # cost more to wait for their number.
            kept = (values != 0).nonzero().squeeze(1)
            items, users, values = items.take(kept), users.take(kept), values.take(kept)
            rows = torch.arange(len(offsets), dtype=users.dtype, device=users.device)
            offsets = torch.searchsorted(users, rows, out_int32=True)
        ctx.save_for_backward(items, users, values)
        return parallelism.sum_over_items_(weighted_sum(weight, items, offsets, values))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        items, users, values = ctx.saved_tensors
        if ctx.workspace is None:
            touched, gradient_rows = gradient_by_item(items, users, values, grad)
            gradient = torch.sparse_coo_tensor(
                touched[None], gradient_rows, ctx.shape, check_invariants=False, is_coalesced=True
            )
            return gradient, None, None, None
        if grad.device.type != "cpu":  # the number of touched items is known on the device only
            return gradient_of_all_items(items, users, values, grad, ctx.shape[0]), None, None, None
        gradient = ctx.workspace.take("input gradient", ctx.shape, grad)
        gradient.zero_()
        gradient.index_copy_(0, *gradient_by_item(items, users, values, grad))
        # An alias: autograd would copy a tensor that something else holds too.
        return gradient.detach(), None, None, None


def weighted_sum(weight: Tensor, items: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """X @ `weight` for the sparse matrix X with these CSR arrays, (n_users, size)."""
    return F.embedding_bag(items, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)


def gradient_by_item(items: Tensor, users: Tensor, values: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Xᵀ @ `grad` for a sparse matrix X: the items that have interactions, (n,) int64, and their rows, (n, size).

    Sorted by item, the product is a weighted sum again, whose rows are added in parallel without locks.

    Parameters
    ----------
    items, users, values : (n_interactions,)
        X's columns, rows and entries.
    grad : (n_users, size)
    """
    items, order = items.sort(stable=True)
    touched, counts = torch.unique_consecutive(items, return_counts=True)
    offsets = F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
    return touched.long(), weighted_sum(grad, users.take(order), offsets, values.take(order))


def gradient_of_all_items(items: Tensor, users: Tensor, values: Tensor, grad: Tensor, n_items: int) -> Tensor:
    """Xᵀ @ `grad` for a sparse matrix X, (n_items, size), by operations of which none waits for a number on the device.

    No row is added to by two threads, so that the sums are the same in every run.

    Parameters
    ----------
    items, users, values : (n_interactions,)
        X's columns, rows and entries, at most one for each pair.
    grad : (n_users, size)
    """
    items, order = items.sort(stable=True)
    bounds = torch.arange(n_items + 1, dtype=items.dtype, device=items.device)
    offsets = torch.searchsorted(items, bounds, out_int32=True)  # (n_items + 1,)
    users, values = users.take(order), values.take(order)
    if len(grad) <= PIECE:
        return weighted_sum(grad, users, offsets, values)
    # One thread adds up the whole of an item's users, so that the others would wait for the most popular items:
    # these are cut into pieces. How many there are is known on the device only, but not more than this:
    most = n_items + len(items) // PIECE
    firsts = F.pad(((offsets.diff() + (PIECE - 1)) // PIECE).cumsum(0), (1, 0))  # first piece of each item
    pieces = torch.arange(most + 1, device=items.device)
    of_piece = torch.searchsorted(firsts, pieces, right=True) - 1  # n_items for pieces that are not needed
    starts = (offsets[of_piece] + PIECE * (pieces - firsts[of_piece])).clamp(max=len(items))
    sums = weighted_sum(grad, users, starts.to(torch.int32), values)
    return torch.segment_reduce(sums, "sum", offsets=firsts, unsafe=True)


def find_item_layers(module: nn.Module) -> dict[str, ItemLayer]:
    """The layer of each parameter that has a row for each item, by the parameter's name in the module's state."""
    return {
        f"{path}.{name}": layer
        for path, layer in module.named_modules()
        if isinstance(layer, ItemLayer)
        for name in layer.by_item
    }


def gather_tensors(tensors: Mapping[str, Tensor], layers: Mapping[str, ItemLayer]) -> dict[str, Tensor]:
    """The tensors, of which those that have a layer here are made whole, in every process."""
    return {
        name: layers[name].parallelism.gather_rows(tensor, layers[name].n_items) if name in layers else tensor
        for name, tensor in tensors.items()
    }
