"""Checkpoints: the whole state of a training run, so that it can continue as if it had never stopped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from recvae.errors import ArtifactError, ParameterError
from recvae.nn.item_layers import ItemLayer, find_item_layers, gather_tensors
from recvae.storage.directories import replace_directory
from recvae.storage.manifest import read_manifest, write_manifest
from recvae.training.optimizers import Optimizer

KIND, VERSION = "recvae-checkpoint", 2
_TENSORS = "state.safetensors"


@dataclass
class Progress:
    """Numbers that change as training goes on.

    Attributes
    ----------
    epoch : int
        Epochs finished.
    step : int
        Updates made.
    sums : dict
        For the loss and each of its terms, in the running epoch: the sum over users, and their number.
    history : list of dict
        Figures of each finished epoch.
    best : list of float
        Each validation user's metric in the epoch with the best mean.
    best_epoch : int
        The epoch whose weights are kept.
    seconds : float
        Spent in the running epoch.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, tuple[Tensor | float, int]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0

    def add(self, figures: Mapping[str, Tensor], n_users: int) -> None:
        """Add a batch's mean figures to the epoch's sums.

        The sums stay on the device and are read at the epoch's end only, so that no update waits for the device.
        """
        for name, mean in figures.items():
            total, users = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + mean.double() * n_users, users + n_users)

    def take_means(self) -> dict[str, float]:
        """The means over the epoch's users; the next epoch's sums begin at 0."""
        means = {name: float(total) / users for name, (total, users) in self.sums.items()}
        self.sums = {}
        return means

    def total_loss(self) -> float:
        """The sum of the loss over the users of the running epoch so far."""
        return float(self.sums["loss"][0]) if self.sums else 0.0

    def to_manifest(self) -> dict[str, Any]:
        """The numbers as JSON can hold them."""
        return {**vars(self), "sums": {name: [float(total), users] for name, (total, users) in self.sums.items()}}

    @classmethod
    def from_manifest(cls, numbers: Mapping[str, Any]) -> Self:
        """The inverse of `to_manifest`; raises `ArtifactError` if there are other numbers."""
        try:
            return cls(**numbers)
        except TypeError as error:
            raise ArtifactError(f"the checkpoint's progress is not what training writes: {error}") from None


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, the run's progress, and the hyperparameters and data that it belongs to."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]
    identity: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint directory beside the one before, which it then replaces in one step.

    So a crash at any moment leaves a whole checkpoint: the one before or the new one.
    """
    with replace_directory(path, KIND) as directory:
        tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
        safetensors.torch.save_file(tensors, directory / _TENSORS)
        write_manifest(directory, KIND, VERSION, {"progress": checkpoint.progress, "identity": checkpoint.identity})


def load_checkpoint(path: Path, identity: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint that belongs to `identity`.

    Raises
    ------
    ArtifactError
        If it is missing or damaged.
    ParameterError
        If it was made with other hyperparameters or data; the message names the first that differs.
    """
    manifest = read_manifest(path, KIND, VERSION)
    made_with, progress = manifest.get("identity"), manifest.get("progress")
    if not isinstance(made_with, dict) or not isinstance(progress, dict) or _TENSORS not in manifest["sha256"]:
        raise ArtifactError(f"{path} does not say what it is a checkpoint of, or names no checksum for {_TENSORS}")
    wanted = json.loads(json.dumps(identity))  # tuples become lists, as in the manifest
    for name, value in wanted.items():
        if made_with.get(name) != value:
            raise ParameterError(
                f"{path} was made with {name} {made_with.get(name)!r}, not {value!r}; it cannot be resumed"
            )
    try:
        tensors = safetensors.torch.load_file(path / _TENSORS)
    except SafetensorError as error:
        raise ArtifactError(f"{path / _TENSORS} is not readable: {error}") from None
    return Checkpoint(tensors, progress, made_with)


def pack_tensors(
    module: nn.Module, optimizers: Sequence[Optimizer], generator: torch.Generator, best_weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """All tensors of a run by name, whole also where processes divide the items; all processes must call it."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"good.{name}": tensor for name, tensor in best_weights.items()}
    for place, optimizer in enumerate(optimizers):
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{number}.{name}": tensor for name, tensor in moments.items()}
    return gather_tensors(tensors, _find_divided(module, optimizers)) | {"generator": generator.get_state()}


def unpack_tensors(
    packed: Mapping[str, Tensor], module: nn.Module, optimizers: Sequence[Optimizer], generator: torch.Generator
) -> dict[str, Tensor]:
    """Put the tensors of `pack_tensors` back, of divided ones the own rows; returns the best weights."""
    divided = _find_divided(module, optimizers)
    own = {
        name: divided[name].parallelism.own_rows(tensor) if name in divided else tensor
        for name, tensor in packed.items()
    }

    def select(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)}

    module.load_state_dict(select("module."))
    for place, optimizer in enumerate(optimizers):
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in select(f"optimizer.{place}.").items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    generator.set_state(packed["generator"])
    return select("good.")


def _find_divided(module: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, ItemLayer]:
    """The layer of each packed tensor that has a row for each item."""
    layers: dict[str, ItemLayer] = {}
    for name, layer in find_item_layers(module).items():
        layers |= {f"module.{name}": layer, f"good.{name}": layer}
        for place, optimizer in enumerate(optimizers):
            for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
                if parameter is module.get_parameter(name):
                    layers |= {f"optimizer.{place}.{number}.{moment}": layer for moment in ("exp_avg", "exp_avg_sq")}
    return layers
