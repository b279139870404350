"""Several processes that train one model: each takes its share of every batch, and all keep the same weights.

`recvae.nn.sharding` has the other way, in which the layers are divided instead.

PyTorch's own engine carries what they tell each other: gloo between CPUs, NCCL between CUDA devices.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recvae.errors import ParameterError, TrainingError

SMALL = 2**16  # numbers: gradients of at most so many travel together


@dataclass(frozen=True)
class Share:
    """The part of a batch that one process has.

    Attributes
    ----------
    users : slice
    total : int
        Users of the whole batch.
    weight : float
        Of this part's mean in the batch's mean.
    """

    users: slice
    total: int
    weight: float


@dataclass(frozen=True)
class Workers:
    """The processes of a training run, as seen by one of them.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    joined : bool
        Whether there is a process group; without one, every method gives back what it was given.
    """

    rank: int = 0
    size: int = 1
    joined: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the one process that reports and writes."""
        return self.rank == 0

    def share(self, n_users: int) -> Share:
        """This process's part of a batch; with fewer users than processes, all have the whole batch."""
        if n_users < self.size:
            return Share(slice(0, n_users), n_users, 1 / self.size)
        start, stop = n_users * self.rank // self.size, n_users * (self.rank + 1) // self.size
        return Share(slice(start, stop), n_users, (stop - start) / n_users)

    def begin(self, module: nn.Module, identity: str) -> None:
        """Start from the first process's weights; `identity` and errors are those of `agree`."""
        self.agree(identity)
        if self.joined:
            with self.together():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def agree(self, identity: str) -> None:
        """Make sure that all work on the same.

        Raises
        ------
        ParameterError
            If `identity`, which stands for all that decides the run, is not the same for all processes.
        """
        if not self.joined:
            return
        digest = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:7])
        largest, smallest = self._largest(digest, -digest)
        if largest != -smallest:
            raise ParameterError(
                f"the {self.size} processes have different data, settings or checkpoints; expected the same for all"
            )

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process."""
        return [number == 1 for number in self._largest(*map(int, flags))] if self.joined else list(flags)

    def sums(self, *values: float) -> list[float]:
        """Each number, summed over the processes."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.joined:
            with self.together():
                dist.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, module: nn.Module, figures: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """Sum the module's gradients over the processes, and scalar figures times this process's weight.

        Dense gradients are summed in place, the large ones by themselves and the small ones in one piece with the
        figures; of sparse ones the rows are gathered.

        Raises
        ------
        TrainingError
            If another process has ended.
        """
        if not self.joined:
            return dict(figures)
        learning = [parameter for parameter in module.parameters() if parameter.grad is not None]
        gradients = [p.grad for p in learning if p.grad is not None and not p.grad.is_sparse]
        scaled = torch.stack([figure.float() * weight for figure in figures.values()])
        small = [*(gradient for gradient in gradients if gradient.numel() <= SMALL), scaled]
        packed = torch.cat([tensor.flatten() for tensor in small])
        with self.together():
            large = [gradient for gradient in gradients if gradient.numel() > SMALL]
            pending = [dist.all_reduce(tensor, async_op=True) for tensor in (*large, packed)]
            for work in pending:
                work.wait()
            for parameter in learning:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    parameter.grad = self._gathered(parameter.grad)
        for tensor, summed in zip(small, packed.split_with_sizes([tensor.numel() for tensor in small]), strict=True):
            tensor.copy_(summed.view_as(tensor))
        return dict(zip(figures, scaled, strict=True))

    def _gathered(self, gradient: Tensor) -> Tensor:
        """The sum of a sparse gradient: the rows of all processes, each of which has others."""
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        counts = [rows.new_zeros(1) for _ in range(self.size)]
        dist.all_gather(counts, rows.new_tensor([len(rows)]))
        lengths = [int(count) for count in counts]

        def gather(own: Tensor) -> Tensor:
            padded = own.new_zeros((max(lengths), *own.shape[1:]))
            padded[: len(own)] = own
            pieces = [torch.empty_like(padded) for _ in lengths]
            dist.all_gather(pieces, padded)
            return torch.cat([piece[:length] for piece, length in zip(pieces, lengths, strict=True)])

        return torch.sparse_coo_tensor(gather(rows)[None], gather(values), gradient.shape, check_invariants=False)

    def _largest(self, *numbers: int) -> list[int]:
        values = torch.tensor(numbers)
        with self.together():
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values.tolist()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say clearly that another process has ended, which the engine reports as an error of the connection."""
        try:
            yield
        except RuntimeError as error:
            raise TrainingError(
                f"process {self.rank} of {self.size} lost the others ({str(error).splitlines()[0]}); the same command "
                "with --resume goes on from the last checkpoint, if there is one"
            ) from None


ALONE = Workers()


def workers() -> Workers:
    """Those of PyTorch's default process group, or this process alone where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Workers(dist.get_rank(), dist.get_world_size(), joined=True)


@contextmanager
def joined() -> Iterator[Workers]:
    """Join the processes that torchrun has started together with this one, until the block ends.

    Ctrl-C ends all but the first, which speaks for them, without a word.

    Raises
    ------
    ParameterError
        If there are CUDA devices, but fewer than processes on this machine.
    """
    if not dist.is_available() or dist.is_initialized() or not dist.is_torchelastic_launched():
        yield workers()
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
        yield workers()
    except KeyboardInterrupt:
        if workers().leads:
            raise
        sys.exit(130)
    finally:
        dist.destroy_process_group()
