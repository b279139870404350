"""`recvae verify`: everything that can be checked of a directory that recvae wrote."""

import json
from collections.abc import Callable
from importlib import util
from pathlib import Path

from recvae.errors import ArtifactError, RecvaeError, first_line
from recvae.storage import artifact
from recvae.storage.manifest import MANIFEST, find_file_faults


def find_faults(directory: Path) -> list[str]:
    """List what is wrong with a model artifact, a prepared directory or a checkpoint; nothing if it is sound.

    Raises
    ------
    ArtifactError
        If the directory is none of these.
    """
    kind = _read_kind(directory)
    checks: dict[str, Callable[[Path], list[str]]] = {
        "recvae-model": _find_model_faults,
        "recvae-data": _find_data_faults,
        "recvae-checkpoint": _find_checkpoint_faults,
    }
    if kind not in checks:
        raise ArtifactError(f"{directory} is no directory of recvae's; expected one of {', '.join(checks)}")
    return checks[kind](directory)


def _read_kind(directory: Path) -> object:
    try:
        return json.loads((directory / MANIFEST).read_bytes()).get("format")
    except OSError as error:
        raise ArtifactError(f"{directory / MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{directory / MANIFEST} is damaged: {first_line(error)}") from None
    except AttributeError:
        return None


def _find_model_faults(directory: Path) -> list[str]:
    from recvae.inference.ranker import Ranker
    from recvae.inference.self_check import check_lists
    from recvae.models import registry

    manifest, faults = find_file_faults(directory, artifact.KIND, *artifact.READABLE)
    if manifest is None:
        return faults
    try:
        if util.find_spec("torch") is not None:
            registry.load(directory)
        check_lists(Ranker(registry.load(directory, frozen=True)))  # as it is served, which needs no torch
    except RecvaeError as error:
        if str(error) not in faults:
            faults.append(str(error))
    return faults


def _find_data_faults(directory: Path) -> list[str]:
    from recvae.data import prepared

    return prepared.find_faults(directory)


def _find_checkpoint_faults(directory: Path) -> list[str]:
    from recvae.training import checkpoint

    return find_file_faults(directory, checkpoint.KIND, checkpoint.VERSION)[1]
