"""The format of a model artifact: arrays, tables and a manifest in a directory; nothing in it is ever executed.

    manifest.json        class, hyperparameters, n_items, where and when it was trained; checksums of the other files
    model.safetensors    what `fit` learned, as named arrays, and `item_counts`, the training interactions of each item
    items.parquet        one row for each item index: `item_id`, and `title` and more where given
    users.parquet        where given: `user_id` and `item_rows`, the history as a list of item indices

This module knows arrays and tables, not models: `recvae.models.registry` rebuilds a model from them.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from recvae.errors import ArtifactError
from recvae.storage.directories import Identity, read_consistently, replace_directory
from recvae.storage.manifest import read_manifest, write_manifest
from recvae.storage.tables import ITEM_ROWS, check_items, check_users, read_table

KIND, VERSION, READABLE = "recvae-model", 2, (1, 2)
Arrays = dict[str, npt.NDArray[Any]]
_MODEL, _ITEMS, _USERS = "model.safetensors", "items.parquet", "users.parquet"
_COUNTS = "item_counts"
_USER_ARRAY = "user_factors"
_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4"}
"""Types of models' arrays: safetensors' name and NumPy's."""


@dataclass(frozen=True, eq=False)
class StoredModel:
    """The content of an artifact.

    Attributes
    ----------
    manifest : dict
        Entries of the caller's; on reading also `format`, `format_version` and `sha256`.
    arrays : dict of str to array
    item_counts : (n_items,) float32
    items : Arrow table
        `item_id` and more, one row for each item index.
    users : Arrow table, optional
        `user_id` and `history`, a list of item indices.
    """

    manifest: Mapping[str, Any]
    arrays: Arrays
    item_counts: npt.NDArray[np.float32]
    items: pa.Table
    users: pa.Table | None = None

    def user_rows(self) -> dict[str, int]:
        """Numbers of rows of the arrays with a row for each user that the model was trained on, by name."""
        return {name: len(array) for name, array in self.arrays.items() if name.rpartition(".")[2] == _USER_ARRAY}


def write_artifact(path: Path, stored: StoredModel, known: Identity | None = None) -> None:
    """Write an artifact directory; an earlier artifact at `path` is replaced in one step.

    Parameters
    ----------
    known : tuple, optional
        What `identify` gave of the artifact that this one is made from.

    Raises
    ------
    ArtifactError
        If `path` holds something else, cannot be written, or is no longer the artifact that was known.
    """
    with replace_directory(path, KIND, known) as directory:
        arrays = {name: np.ascontiguousarray(array) for name, array in stored.arrays.items()}
        safetensors.numpy.save_file(arrays | {_COUNTS: stored.item_counts}, directory / _MODEL)
        _write_table(stored.items, directory / _ITEMS)
        if stored.users is not None:
            _write_table(_rename(stored.users, "history", ITEM_ROWS), directory / _USERS)
        write_manifest(directory, KIND, VERSION, {**stored.manifest, "n_items": len(stored.item_counts)})


def read_artifact(path: Path, *, mapped: bool = False) -> StoredModel:
    """Read and verify an artifact directory.

    Parameters
    ----------
    mapped : bool
        Map the arrays into memory instead of reading them, so that processes that read the same artifact share them.
        They stay the same when another artifact takes its place, but the file must not be overwritten.

    Raises
    ------
    ArtifactError
        If a file is missing, truncated or altered, the version is unknown, or the manifest does not agree with what
        the files hold.
    """
    return read_consistently(path, lambda directory: _read(directory, mapped))


def _rename(table: pa.Table, column: str, name: str) -> pa.Table:
    return table.rename_columns([name if given == column else given for given in table.column_names])


def _write_table(table: pa.Table, file: Path) -> None:
    try:
        pyarrow.parquet.write_table(table, file)
    except pa.ArrowException as error:  # what its columns hold; a full disk is an OSError
        raise ArtifactError(f"{file.name} cannot be written: {' '.join(str(error).split())}") from None


def _read(directory: Path, mapped: bool) -> StoredModel:
    manifest = read_manifest(directory, KIND, *READABLE)
    for entry in ("data", "metrics", "versions"):
        if not isinstance(manifest.get(entry), dict):
            raise ArtifactError(f"{directory}: the manifest's {entry} is {manifest.get(entry)!r}; expected an object")
    _check_origin(directory, manifest)
    for name in (_MODEL, _ITEMS):
        if name not in manifest["sha256"]:
            raise ArtifactError(f"{directory} names no checksum for {name}")
    arrays = _read_arrays(directory / _MODEL, mapped)
    counts = arrays.pop(_COUNTS, None)
    if counts is None or counts.shape != (manifest.get("n_items"),) or counts.dtype != np.float32:
        raise ArtifactError(
            f"{directory}: n_items is {manifest.get('n_items')!r} but the weights are not for as many items"
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ArtifactError(f"{directory / _MODEL}: {_COUNTS} holds negative or infinite numbers; expected counts")
    items = read_table(directory / _ITEMS, len(counts))
    users = read_table(directory / _USERS) if _USERS in manifest["sha256"] else None
    name = _ITEMS
    try:
        check_items(items, len(counts))
        if users is not None:
            name = _USERS
            users = users if manifest["format_version"] == 1 else _rename(users, ITEM_ROWS, "history")
            check_users(users, len(counts))
    except ValueError as error:
        raise ArtifactError(f"{directory / name} {error}") from None
    return StoredModel(manifest, arrays, counts, items, users)


def _check_origin(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Check the entries that say on what and when a model was trained; each may be missing."""
    trained_at, fit_seconds = manifest.get("trained_at"), manifest.get("fit_seconds")
    try:
        if trained_at is not None:
            datetime.fromisoformat(trained_at)
    except (TypeError, ValueError):
        raise ArtifactError(f"{directory}: trained_at is {trained_at!r}; expected a time in ISO 8601") from None
    if fit_seconds is not None and (isinstance(fit_seconds, bool) or not isinstance(fit_seconds, int | float)):
        raise ArtifactError(f"{directory}: fit_seconds is {fit_seconds!r}; expected a number")
    if not isinstance(manifest.get("trained_on"), str | None):
        raise ArtifactError(f"{directory}: trained_on is {manifest['trained_on']!r}; expected a SHA-256")


def _read_arrays(file: Path, mapped: bool) -> Arrays:
    try:
        if mapped:
            return _map_arrays(file)
        arrays: Arrays = safetensors.numpy.load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{file} is not readable: {error}") from None
    return arrays


def _map_arrays(file: Path) -> Arrays:
    """The arrays that `load_file` reads, as views of a memory map."""
    with safe_open(file, "numpy"), file.open("rb") as opened:  # safe_open checks the header
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    arrays: Arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{name} is {entry['dtype']}; expected {', '.join(_DTYPES)}")
        data = memoryview(content)[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]]
        arrays[name] = np.frombuffer(data, _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
