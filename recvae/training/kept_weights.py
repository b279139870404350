"""A copy of a network's weights while training goes on: in memory, or in a file where it would be large."""

import contextlib
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

LARGEST_IN_MEMORY = 2**30
"""Bytes of weights of which the copy is in memory."""


class KeptWeights:
    """A copy of weights, which stays as it is until the next is kept.

    Weights of more than `LARGEST_IN_MEMORY` bytes on a processor are written to an unnamed file in the folder for
    temporary files, which takes none of the process's memory; to memory after all where there is no room for them.

    Parameters
    ----------
    weights : mapping of str to Tensor
        A module's state in float32, always with the same names and shapes.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._copies: dict[str, Tensor] = {}
        self._file: BinaryIO | None = None
        self._shapes = {name: tensor.shape for name, tensor in weights.items()}
        on_processor = all(tensor.device.type == "cpu" for tensor in weights.values())
        if on_processor and sum(tensor.nbytes for tensor in weights.values()) > LARGEST_IN_MEMORY:
            with contextlib.suppress(OSError):
                self._file = _write_file(weights.values())
                weakref.finalize(self, self._file.close)
        if self._file is None:
            self._copies = {name: tensor.detach().clone() for name, tensor in weights.items()}

    def keep(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the copy."""
        if self._file is not None:
            _overwrite(self._file, (weights[name] for name in self._shapes))
            return
        for name, copy in self._copies.items():
            copy.copy_(weights[name])

    def restore(self, module: nn.Module) -> None:
        """Put the copy into the module that it was made of."""
        if self._file is None:
            module.load_state_dict(self._copies)
            return
        self._file.seek(0)
        weights = module.state_dict()
        for name in self._shapes:
            self._file.readinto(weights[name].numpy().data)  # type: ignore[attr-defined]

    def tensors(self) -> dict[str, Tensor]:
        """The copy by name, mapped into memory where it is a file; for reading only."""
        if self._file is None:
            return self._copies
        found, offset = {}, 0
        for name, shape in self._shapes.items():
            found[name] = torch.from_numpy(np.memmap(self._file, np.float32, "r+", offset, tuple(shape)))
            offset += found[name].nbytes
        return found


def _write_file(tensors: Iterable[Tensor]) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 its owner closes it
    try:
        _overwrite(file, tensors)
    except OSError:
        file.close()
        raise
    return file


def _overwrite(file: BinaryIO, tensors: Iterable[Tensor]) -> None:
    file.seek(0)
    for tensor in tensors:
        file.write(tensor.detach().contiguous().numpy().data)
    file.flush()
