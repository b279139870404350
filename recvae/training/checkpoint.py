"""Checkpoints: the whole state of a training run, so that it can go on as if it had never stopped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from recvae.errors import ArtifactError, ParameterError
from recvae.storage.directories import replace_directory
from recvae.storage.manifest import read_manifest, write_manifest

KIND, VERSION = "recvae-checkpoint", 1
_TENSORS = "state.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, where training stands, and the hyperparameters and data it belongs to."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]
    identity: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint directory; the one before stays until the new one is whole."""
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
    wanted = json.loads(json.dumps(identity))
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
