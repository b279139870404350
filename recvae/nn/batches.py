"""Histories of users as tensors: a batch of CSR rows, and all histories on a device from which batches are gathered."""

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recvae.data.csr import iter_chunks

MODERATE = 1e-15, 1e15
"""Weights whose squares, and the sums of these, are far within float32."""

STAGED_BYTES = 2**16
"""CUDA copies up to so many bytes at once from any memory, and more only after the device's work, unless it is pinned:
https://docs.nvidia.com/cuda/cuda-runtime-api/api-sync-behavior.html.
"""


@dataclass(frozen=True)
class Batch:
    """CSR rows as tensors on one device.

    Attributes
    ----------
    items : (n_interactions,) int32
        Item index of each interaction.
    offsets : (n_users + 1,) int32
        Index of each user's first interaction; the last entry is n_interactions.
    values : (n_interactions,) float
        Weights of the interactions, 1 for binary data.
    host_offsets : (n_users + 1,) int64, NumPy
        `offsets` again, for the host to read without waiting for the device.
    has_moderate_weights : bool
        Whether all weights are within `MODERATE`.
    """

    items: Tensor
    offsets: Tensor
    values: Tensor
    host_offsets: npt.NDArray[np.int64]
    has_moderate_weights: bool = True

    @classmethod
    def from_csr(cls, user_items: sparse.csr_matrix, device: torch.device | str = "cpu") -> Self:
        """All rows of a canonical CSR matrix."""
        return cls(
            _share(user_items.indices.astype(np.int32, copy=False)).to(device),
            _share(user_items.indptr.astype(np.int32, copy=False)).to(device),
            _share(user_items.data).to(device),
            user_items.indptr.astype(np.int64, copy=False),
            all(((chunk >= MODERATE[0]) & (chunk <= MODERATE[1])).all() for chunk in iter_chunks(user_items.data)),
        )

    def __len__(self) -> int:
        return len(self.host_offsets) - 1

    def __getitem__(self, users: slice) -> Self:
        """Consecutive users; their interactions are views, not copies."""
        start, stop, _ = users.indices(len(self))
        if (start, stop) == (0, len(self)):
            return self
        first, last = self.host_offsets[[start, stop]]
        return replace(
            self,
            items=self.items[first:last],
            offsets=self.offsets[start : stop + 1] - int(first),
            values=self.values[first:last],
            host_offsets=self.host_offsets[start : stop + 1] - first,
        )

    @property
    def lengths(self) -> Tensor:
        """(n_users,) number of interactions of each user."""
        return self.offsets.diff()

    @cached_property
    def users(self) -> Tensor:
        """(n_interactions,) int32 row of each interaction."""
        return self.per_interaction(torch.arange(len(self), dtype=torch.int32, device=self.items.device))

    def per_interaction(self, per_user: Tensor) -> Tensor:
        """Repeat a (n_users,) tensor for each user's interactions, (n_interactions,)."""
        return per_user.repeat_interleave(self.lengths, output_size=len(self.items))

    def sum_weights(self) -> Tensor:
        """(n_users,) total weight of each user's interactions."""
        return sum_per_user(self.values, self.offsets)

    def normalise(self) -> Self:
        """The same interactions with each user's weights divided by their L2 norm."""
        values = self.values
        if not self.has_moderate_weights:
            largest = torch.segment_reduce(values, "max", offsets=self.offsets.long(), unsafe=True)
            values = values / self.per_interaction(largest)
        norms = sum_per_user(values.square(), self.offsets).sqrt()
        # A user without interactions has norm 0, but no value that would be divided by it.
        return replace(self, values=values / self.per_interaction(norms), has_moderate_weights=True)

    def select_items(self, items: slice) -> Self:
        """The interactions with a range of items, which are numbered from 0 in the result."""
        kept = (self.items >= items.start) & (self.items < items.stop)
        n_kept_before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])  # (n_interactions + 1,)
        offsets = n_kept_before[self.offsets.long()]
        return replace(
            self,
            items=self.items[kept] - items.start,
            offsets=offsets.to(torch.int32),
            values=self.values[kept],
            host_offsets=offsets.cpu().numpy(),
        )


def _share(array: npt.NDArray[Any]) -> Tensor:
    """Wrap an array in a tensor; nothing is written to it, so that it may be read-only."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _send(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device without waiting for the work that the device still has."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda" and array.nbytes > STAGED_BYTES:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def sum_per_user(values: Tensor, offsets: Tensor) -> Tensor:
    """(n_interactions,) values summed between offsets, (n_users + 1,), to (n_users,)."""
    return torch.segment_reduce(values, "sum", offsets=offsets.long(), unsafe=True)


class DeviceHistories:
    """The histories of all users on one device, from which batches are gathered there.

    Parameters
    ----------
    user_items : csr_matrix, shape (n_users, n_items)
        Canonical; on the CPU its arrays are shared, not copied.
    device : torch.device
    """

    def __init__(self, user_items: sparse.csr_matrix, device: torch.device) -> None:
        self._binary = all((chunk == 1).all() for chunk in iter_chunks(user_items.data))
        self._all = Batch.from_csr(user_items, device)

    def __len__(self) -> int:
        return len(self._all)

    def gather(self, users: npt.NDArray[np.int64]) -> Batch:
        """The histories of these users, in this order.

        A batch is cut from the whole CSR matrix in a few operations on the device: scipy's row indexing would copy on
        the host, and a loop over users would start an operation for each of them.
        """
        first, last = self._all.host_offsets[users], self._all.host_offsets[users + 1]
        host_offsets = np.append(0, np.cumsum(last - first))
        device = self._all.items.device
        offsets = _send(host_offsets.astype(np.int32), device)
        # A user's interactions are consecutive in both the matrix and the batch, so one shift leads from each
        # position in the batch to the one in the matrix.
        shift = _send(first - host_offsets[:-1], device)
        n_interactions = int(host_offsets[-1])  # known on the host: nothing here waits for the device
        positions = torch.arange(n_interactions, device=device)
        positions += shift.repeat_interleave(offsets.diff(), output_size=n_interactions)
        # Binary data are by far the commonest; their weights need not be read.
        values = self._all.values.new_ones(n_interactions) if self._binary else self._all.values.take(positions)
        return Batch(self._all.items.take(positions), offsets, values, host_offsets, self._all.has_moderate_weights)
