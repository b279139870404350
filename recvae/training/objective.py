"""What the training loop needs of a model."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from recvae.nn.batches import Rows
from recvae.training.optimizers import Optimizer


class Objective(Protocol):
    """A model in training, its weights, and what changes them."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def optimizers(self) -> Sequence[Optimizer]: ...

    @property
    def generator(self) -> torch.Generator: ...

    @property
    def device(self) -> torch.device: ...

    def begin_pass(self, number: int) -> None:
        """Called before the first update of each pass of an epoch."""
        ...

    def loss(self, rows: Rows, step: int, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the users of a batch, and its parts to report, all of them scalars on the device.

        `step` counts updates from 0, `number` is that of the pass within the epoch.
        """
        ...

    def finite(self, rows: Rows) -> bool:
        """Whether the module as it is scores these users finitely."""
        ...

    def validate(self) -> float:
        """The validation metric of the module as it is."""
        ...
