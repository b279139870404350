"""The first and the last layer divided among processes by items, for catalogues whose layers are too large for each.

Every process works on the whole batch. It holds only its own items' rows of these two layers, with their gradients and
the optimizer's state; the layers between are the same in all. What they tell each other for a batch does not grow with
the catalogue: the sums of the first layer, the users' normalisers, and the gradient to what the last layer multiplies.

This is tensor and loss parallelism on `torch.distributed`'s collectives. The ready-made parts were tried with torch
2.13 and do not serve. DTensor has no sharding strategy for `embedding_bag`, and takes no sparse matrix. `loss_parallel`
is made for one class index a row: given several interactions it returns the right loss with wrong gradients, because
the backward pass of its log-softmax leaves the softmax to that of `nll_loss`; and autograd holds log-softmax and dense
targets, (batch, own items) each. TorchRec 1.8 divides the first layer, but has nothing for the last one, and its
compiled part holds torch back to the release that it was made for: that of 1.9 does not load.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recvae.errors import ParameterError
from recvae.nn.batches import Rows
from recvae.nn.distributed import ALONE, Share, Workers, workers

PIECE = 2**24  # numbers: so much of a layer is drawn at once


@dataclass(frozen=True)
class ItemShard:
    """The items whose parameters one process holds: a range of all, as long as the other processes' or one shorter.

    Attributes
    ----------
    total : int
        Items of all processes.
    workers : Workers
        The processes that divide the items; a single one holds all, and every method gives back what it was given.

    Raises
    ------
    ParameterError
        If there are fewer items than processes.
    """

    total: int
    workers: Workers = ALONE

    def __post_init__(self) -> None:
        if self.total < self.workers.size:
            raise ParameterError(
                f"parallel is 'items', but {self.total} items cannot be divided among {self.workers.size} processes; "
                "expected at least one for each"
            )

    def __len__(self) -> int:
        return self._start(self.workers.rank + 1) - self._start(self.workers.rank)

    @property
    def divided(self) -> bool:
        """Whether other processes hold other items."""
        return self.workers.size > 1

    @property
    def items(self) -> slice:
        """The items that this process holds."""
        return self._of(self.workers.rank)

    @property
    def longest(self) -> int:
        """Number of items of the process that holds most."""
        return -(-self.total // self.workers.size)

    def interactions(self, rows: Rows) -> Rows:
        """The interactions of these items, numbered from the first of them."""
        return rows.among(self.items.start, self.items.stop) if self.divided else rows

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes, in place."""
        if self.divided:
            with self.workers.together():
                dist.all_reduce(tensor)
        return tensor

    def logsumexp(self, own: Tensor) -> Tensor:
        """The logarithm of the sum of the processes' exp(`own`), elementwise."""
        pieces = [torch.empty_like(own) for _ in range(self.workers.size)]
        with self.workers.together():
            dist.all_gather(pieces, own)
        return torch.stack(pieces).logsumexp(dim=0)

    def whole(self, own: Tensor) -> Tensor:
        """(total, …), in every process, from each one's rows, (len(self), …)."""
        if not self.divided:
            return own
        gathered = own.new_empty((self.total, *own.shape[1:]))
        gathered[self.items] = own
        with self.workers.together():
            for rank in range(self.workers.size):
                dist.broadcast(gathered[self._of(rank)], rank)
        return gathered

    def part(self, whole: Tensor) -> Tensor:
        """This process's rows, (len(self), …), of a tensor with a row for each item."""
        return whole[self.items].clone() if self.divided else whole

    @torch.no_grad()
    def draw(self, own: Tensor, draw: Callable[[Tensor], object]) -> None:
        """Fill a parameter with its rows of what `draw` puts into the whole one, which never is in memory.

        A matrix is drawn in pieces, which `draw` must fill number by number; a vector at once.
        """
        if not self.divided:
            draw(own)
            return
        size = self.total if own.ndim == 1 else max(1, PIECE // own.shape[1])
        for start in range(0, self.total, size):
            piece = own.new_empty((min(size, self.total - start), *own.shape[1:]))
            draw(piece)
            kept = range(max(start, self.items.start), min(start + len(piece), self.items.stop))
            if kept:
                shift = kept.start - self.items.start
                own[shift : shift + len(kept)] = piece[kept.start - start : kept.stop - start]

    def _of(self, rank: int) -> slice:
        return slice(self._start(rank), self._start(rank + 1))

    def _start(self, rank: int) -> int:
        return self.total * rank // self.workers.size


class ItemLayer(nn.Module):
    """A layer with parameters of which each item has a row.

    Attributes
    ----------
    shard : ItemShard
        The items whose rows these are.
    by_item : tuple of str
        Names of those parameters.
    """

    by_item: ClassVar[tuple[str, ...]]
    shard: ItemShard


def item_parameters(module: nn.Module) -> dict[str, ItemShard]:
    """The parameters that have a row for each item, by their names in the module's state."""
    return {
        f"{place}.{name}": layer.shard
        for place, layer in module.named_modules()
        if isinstance(layer, ItemLayer)
        for name in layer.by_item
    }


def gathered(tensors: Mapping[str, Tensor], shards: Mapping[str, ItemShard]) -> dict[str, Tensor]:
    """The tensors with those that have a shard made whole, in every process."""
    return {name: shards[name].whole(tensor) if name in shards else tensor for name, tensor in tensors.items()}


class ItemWorkers(Workers):
    """Processes that all work on the whole batch, each for its own items."""

    def share(self, n_users: int) -> Share:
        """The whole batch."""
        return Share(slice(0, n_users), n_users, 1.0)

    def begin(self, module: nn.Module, identity: str) -> None:
        """Start from the weights that each process has drawn, with the same draws as all; errors are `agree`'s."""
        self.agree(f"{identity}, divided by items")

    def sums(self, *values: float) -> list[float]:
        """The numbers as they are: every process has those of the whole."""
        return list(values)

    def sum_gradients(self, module: nn.Module, figures: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """The figures as they are: every process has the gradients of the whole batch."""
        return dict(figures)


def dividing(parallel: str, n_items: int) -> tuple[Workers, ItemShard]:
    """The processes of a training run, and the items whose parameters this one holds.

    Parameters
    ----------
    parallel : "users" or "items"
        What the processes divide among themselves.
    n_items : int
    """
    everyone = workers()
    if parallel == "users":
        return everyone, ItemShard(n_items)
    together = ItemWorkers(everyone.rank, everyone.size, everyone.joined)
    return together, ItemShard(n_items, together)
