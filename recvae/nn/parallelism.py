"""Several processes that train one model together, and the values that each of them needs for a step.

They divide one of two things. By *users*, each process holds the whole network and works on its own slice of every
batch; gradients are summed. By *items*, for catalogues whose layers are too large for one process, each works on the
whole batch, but holds only its own items' rows of the first and the last layer, with their gradients and the
optimizer's state; the layers between are the same in all. The messages of a batch do not grow with the catalogue
then: sums of the first layer, the users' normalisers, and the gradient to the input of the last layer.

PyTorch's own collectives carry the messages: gloo between CPUs, NCCL between CUDA devices.

The ready-made tensor and loss parallelism was tried with torch 2.13 and does not serve. DTensor has no sharding
strategy for `embedding_bag`, and takes no sparse matrix. `loss_parallel` is made for one class index a row: given
several interactions it returns the right loss with wrong gradients, because the backward pass of its log-softmax
leaves the softmax to that of `nll_loss`; and autograd keeps log-softmax and dense targets, (batch, own items) each.
TorchRec 1.8 divides the first layer, but has nothing for the last one, and its compiled part ties torch to the release
that it was made for: that of 1.9 does not load.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recvae.errors import ParameterError, TrainingError
from recvae.nn.batches import Batch

DIVIDED = ("users", "items")
"""The two things that processes may divide among themselves."""

SMALL_GRADIENT = 2**16
"""Gradients of at most so many numbers are sent together: a message of its own would cost more than its content."""


@dataclass(frozen=True)
class Parallelism:
    """One process among those that train a model together.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    divided : "users" or "items"
        See the module's docstring.
    connected : bool
        Whether there is a process group. Without one no message is sent, and every method that would combine what
        the processes have returns what it was given.
    """

    rank: int = 0
    size: int = 1
    divided: str = "users"
    connected: bool = False

    @classmethod
    def current(cls, divided: str = "users") -> Self:
        """The processes of PyTorch's default process group, or this process alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(divided=divided)
        return cls(dist.get_rank(), dist.get_world_size(), divided, connected=True)

    @property
    def is_first(self) -> bool:
        """True in the one process that reports and writes."""
        return self.rank == 0

    @property
    def divides_items(self) -> bool:
        """True where other processes hold other items' rows."""
        return self.size > 1 and self.divided == "items"

    def own_users(self, n_users: int) -> slice:
        """This process's users of a batch; with fewer users than processes, every process has the whole batch."""
        if self.divided == "items" or n_users < self.size:
            return slice(0, n_users)
        return _slice_of(self.rank, self.size, n_users)

    def weight(self, n_users: int) -> float:
        """Weight of the mean over the own users when the processes' means are summed to the mean over a batch."""
        if self.divided == "items":
            return 1.0
        if n_users < self.size:
            return 1 / self.size
        own = self.own_users(n_users)
        return float(own.stop - own.start) / n_users

    def own_items(self, n_items: int) -> slice:
        """The items whose rows of the first and the last layer this process holds.

        Raises
        ------
        ParameterError
            If there are fewer items than processes.
        """
        if not self.divides_items:
            return slice(0, n_items)
        if n_items < self.size:
            raise ParameterError(
                f"parallel is 'items', but {n_items} items cannot be divided among {self.size} processes; expected at "
                "least one for each"
            )
        return _slice_of(self.rank, self.size, n_items)

    def most_items(self, n_items: int) -> int:
        """Number of items of the process that has most."""
        return -(-n_items // self.size) if self.divides_items else n_items

    def own_interactions(self, batch: Batch, n_items: int) -> Batch:
        """A batch's interactions with the own items, which are numbered from 0."""
        return batch.select_items(self.own_items(n_items)) if self.divides_items else batch

    def own_rows(self, whole: Tensor) -> Tensor:
        """This process's rows, (own items, …), of a tensor with a row for each item."""
        return whole[self.own_items(len(whole))].clone() if self.divides_items else whole

    def gather_rows(self, own: Tensor, n_items: int) -> Tensor:
        """The whole tensor, (n_items, …), in every process, from the own rows of each, (own items, …)."""
        if not self.divides_items:
            return own
        whole = own.new_empty((n_items, *own.shape[1:]))
        whole[self.own_items(n_items)] = own
        with self._explain_lost_connection():
            for rank in range(self.size):
                dist.broadcast(whole[_slice_of(rank, self.size, n_items)], rank)
        return whole

    def sum_over_items_(self, tensor: Tensor) -> Tensor:
        """Sum in place what each process has computed for its own items."""
        if self.divides_items:
            with self._explain_lost_connection():
                dist.all_reduce(tensor)
        return tensor

    def logsumexp_over_items(self, own: Tensor) -> Tensor:
        """The logarithm of the sum of the processes' exp(`own`), elementwise."""
        if not self.divides_items:
            return own
        pieces = [torch.empty_like(own) for _ in range(self.size)]
        with self._explain_lost_connection():
            dist.all_gather(pieces, own)
        return torch.stack(pieces).logsumexp(dim=0)

    def start_together(self, module: nn.Module, identity: str) -> None:
        """Make all processes start from the same weights.

        Parameters
        ----------
        module : Module
            Gets the first process's weights. Where items are divided, all have drawn the same already.
        identity : str
            Stands for all that decides the run.

        Raises
        ------
        ParameterError
            If `identity`, or what is divided, is not the same in all processes.
        """
        if not self.connected:
            return
        digest = hashlib.sha256(f"{identity}, divided by {self.divided}".encode()).digest()
        number = int.from_bytes(digest[:7])
        largest, negative_smallest = self._largest(number, -number)
        if largest != -negative_smallest:
            raise ParameterError(
                f"the {self.size} processes have different data, settings or checkpoints; expected the same for all"
            )
        if self.divided == "users":
            with self._explain_lost_connection():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def any_process(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process."""
        return [number == 1 for number in self._largest(*map(int, flags))] if self.connected else list(flags)

    def sum_over_users(self, *values: float) -> list[float]:
        """The sum of each number over the processes, of which each has computed it for its own users."""
        if not self.connected or self.divided == "items":
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with self._explain_lost_connection():
            dist.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, module: nn.Module, figures: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """Sum the module's gradients over the processes, and scalar figures times this process's weight.

        Dense gradients are summed in place, the large ones by themselves and the small ones in one message with the
        figures; of sparse ones the rows are gathered. Where items are divided, every process has the gradients and
        figures of the whole batch already.

        Raises
        ------
        TrainingError
            If another process has ended.
        """
        if not self.connected or self.divided == "items":
            return dict(figures)
        learning = [parameter for parameter in module.parameters() if parameter.grad is not None]
        gradients = [p.grad for p in learning if p.grad is not None and not p.grad.is_sparse]
        weighted = torch.stack([figure.float() * weight for figure in figures.values()])
        small = [*(gradient for gradient in gradients if gradient.numel() <= SMALL_GRADIENT), weighted]
        message = torch.cat([tensor.flatten() for tensor in small])
        with self._explain_lost_connection():
            large = [gradient for gradient in gradients if gradient.numel() > SMALL_GRADIENT]
            # All sums are started before the first is awaited, so that they overlap.
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in (*large, message)]:
                work.wait()
            for parameter in learning:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    parameter.grad = self._sum_sparse(parameter.grad)
        for tensor, summed in zip(small, message.split_with_sizes([tensor.numel() for tensor in small]), strict=True):
            tensor.copy_(summed.view_as(tensor))
        return dict(zip(figures, weighted, strict=True))

    def _sum_sparse(self, gradient: Tensor) -> Tensor:
        """The sum of a sparse gradient: the rows of all processes, each of which has touched others."""
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        counts = [rows.new_zeros(1) for _ in range(self.size)]
        dist.all_gather(counts, rows.new_tensor([len(rows)]))
        lengths = [int(count) for count in counts]

        def gather(own: Tensor) -> Tensor:
            padded = own.new_zeros((max(lengths), *own.shape[1:]))  # all_gather wants tensors of one shape
            padded[: len(own)] = own
            pieces = [torch.empty_like(padded) for _ in lengths]
            dist.all_gather(pieces, padded)
            return torch.cat([piece[:length] for piece, length in zip(pieces, lengths, strict=True)])

        return torch.sparse_coo_tensor(gather(rows)[None], gather(values), gradient.shape, check_invariants=False)

    def _largest(self, *numbers: int) -> list[int]:
        values = torch.tensor(numbers)
        with self._explain_lost_connection():
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values.tolist()

    @contextmanager
    def _explain_lost_connection(self) -> Iterator[None]:
        """Raise a clear `TrainingError` where another process has ended; gloo and NCCL report a connection's error."""
        try:
            yield
        except RuntimeError as error:
            raise TrainingError(
                f"process {self.rank} of {self.size} lost the others ({str(error).splitlines()[0]}); the same command "
                "with --resume goes on from the last checkpoint, if there is one"
            ) from None


ALONE = Parallelism()
"""One process that has all users and all items."""


def _slice_of(rank: int, size: int, total: int) -> slice:
    """The share of one of `size` processes in `total` rows: as long as any other's or one shorter."""
    return slice(total * rank // size, total * (rank + 1) // size)


@contextmanager
def join_process_group() -> Iterator[Parallelism]:
    """Join the processes that torchrun has started together with this one, until the block ends.

    On Ctrl-C the first process raises `KeyboardInterrupt`; the others exit without a message, so that one is enough.

    Raises
    ------
    ParameterError
        If there are CUDA devices, but fewer than processes on this machine.
    """
    if not dist.is_available() or dist.is_initialized() or not dist.is_torchelastic_launched():
        yield Parallelism.current()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        local, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= devices:
            raise ParameterError(
                f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes for the {devices} CUDA devices of this "
                "machine; expected one for each, or CUDA_VISIBLE_DEVICES= to train on CPUs"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield Parallelism.current()
    except KeyboardInterrupt:
        if Parallelism.current().is_first:
            raise
        sys.exit(130)
    finally:
        dist.destroy_process_group()
