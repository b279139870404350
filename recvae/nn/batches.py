"""Interactions of users as tensors: a batch of CSR rows, and all histories on a device to gather batches from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recvae.data.csr import iter_chunks


@dataclass(frozen=True)
class Part:
    """Where a part begins within a whole, and the whole's length."""

    start: int
    total: int


@dataclass(frozen=True)
class Rows:
    """A batch of CSR rows as tensors on one device.

    Attributes
    ----------
    items : (n_interactions,) int32
        Item index of each interaction.
    offsets : (batch + 1,) int32
        Where each user's interactions begin; the last entry is n_interactions.
    values : (n_interactions,) float
        Weights of the interactions, 1 for binary data.
    starts : (batch + 1,) int64, NumPy
        The offsets again, for the host to read without waiting for the device.
    of_users, of_interactions : Part, optional
        Which users and interactions these are of a batch that several processes share.
    others : callable, optional
        Gives the items of that batch's other interactions, (n,) int32.
    """

    items: Tensor
    offsets: Tensor
    values: Tensor
    starts: npt.NDArray[np.int64]
    of_users: Part | None = None
    of_interactions: Part | None = None
    others: Callable[[], Tensor] | None = None

    @classmethod
    def of(cls, user_items: sparse.csr_matrix, device: torch.device | str = "cpu") -> Self:
        """All rows of a canonical CSR matrix."""
        return cls(
            torch.from_numpy(user_items.indices.astype(np.int32, copy=False)).to(device),
            torch.from_numpy(user_items.indptr.astype(np.int32, copy=False)).to(device),
            torch.from_numpy(user_items.data).to(device),
            user_items.indptr.astype(np.int64, copy=False),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def batch_items(self) -> Tensor:
        """Items of all interactions of the batch, also those that other processes have."""
        return self.items if self.others is None else torch.cat([self.items, self.others()])

    @property
    def lengths(self) -> Tensor:
        """(batch,) interactions of each user."""
        return self.offsets.diff()

    @cached_property
    def users(self) -> Tensor:
        """(n_interactions,) int32 row of each interaction."""
        return self.per_interaction(torch.arange(len(self), dtype=torch.int32, device=self.items.device))

    def per_interaction(self, per_user: Tensor) -> Tensor:
        """Repeat a (batch,) tensor for each user's interactions, (n_interactions,)."""
        return per_user.repeat_interleave(self.lengths, output_size=len(self.items))

    def normalised(self) -> Tensor:
        """(n_interactions,) values divided by the L2 norm of their row; empty rows have none to divide."""
        return self.values / self.per_interaction(per_user_sums(self.values.square(), self.offsets).sqrt())

    def among(self, start: int, stop: int) -> Self:
        """The interactions of the items from `start` to `stop`, which are numbered from 0 then."""
        kept = (self.items >= start) & (self.items < stop)
        before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])  # (n_interactions + 1,)
        starts = before[self.offsets.long()]
        return replace(
            self,
            items=self.items[kept] - start,
            offsets=starts.to(torch.int32),
            values=self.values[kept],
            starts=starts.cpu().numpy(),
            of_interactions=None,
        )

    def sums(self) -> Tensor:
        """(batch,) total weight of each user's interactions."""
        return per_user_sums(self.values, self.offsets)


def per_user_sums(values: Tensor, offsets: Tensor) -> Tensor:
    """(n_interactions,) values summed between the offsets, (batch + 1,), to (batch,)."""
    return torch.segment_reduce(values, "sum", offsets=offsets.long(), unsafe=True)


class Histories:
    """The interactions of all users on one device, from which batches are gathered there.

    Parameters
    ----------
    user_items : csr_matrix, shape (n_users, n_items)
        Canonical; on the CPU its arrays are shared, not copied.
    device : torch.device
    """

    def __init__(self, user_items: sparse.csr_matrix, device: torch.device) -> None:
        self._binary = all((part == 1).all() for part in iter_chunks(user_items.data))
        self._interactions = Rows.of(user_items, device)

    def __len__(self) -> int:
        return len(self._interactions)

    def rows(self, users: npt.NDArray[np.int64]) -> Rows:
        """The histories of these users, in this order."""
        begin, end = self._interactions.starts[users], self._interactions.starts[users + 1]
        starts = np.append(0, np.cumsum(end - begin))
        device = self._interactions.items.device
        offsets = torch.from_numpy(starts.astype(np.int32)).to(device, non_blocking=True)
        shift = torch.from_numpy(begin - starts[:-1]).to(device, non_blocking=True)
        n_interactions = int(starts[-1])
        place = torch.arange(n_interactions, device=device)
        place += shift.repeat_interleave(offsets.diff(), output_size=n_interactions)
        interactions = self._interactions
        values = interactions.values.new_ones(n_interactions) if self._binary else interactions.values.take(place)
        return Rows(interactions.items.take(place), offsets, values, starts)

    def part(self, users: npt.NDArray[np.int64], part: slice) -> Rows:
        """The histories of a part of these users, which knows its place among them."""
        lengths = self._interactions.starts[users + 1] - self._interactions.starts[users]
        return replace(
            self.rows(users[part]),
            of_users=Part(part.start, len(users)),
            of_interactions=Part(int(lengths[: part.start].sum()), int(lengths.sum())),
            others=lambda: self.rows(np.delete(users, part)).items,
        )
