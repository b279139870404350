"""Model artifacts: a directory of plain data from which a model is rebuilt; nothing in it is ever executed."""

import json
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from recvae.errors import ArtifactError, ParameterError
from recvae.models.autoencoders.frozen import VARIATIONAL, FrozenAutoencoder
from recvae.models.base import Recommender, State
from recvae.models.registry import MODELS
from recvae.storage.directories import read_manifest, read_whole, replacing_directory, versions, write_manifest

if TYPE_CHECKING:
    import pandas as pd

KIND, VERSION = "recvae-model", 1
_MODEL, _ITEMS, _USERS = "model.safetensors", "items.parquet", "users.parquet"
_COUNTS = "item_counts"
_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4"}
"""Those of models' arrays, by safetensors' names."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """A loaded model with what belongs to it.

    Attributes
    ----------
    model : Recommender
    item_table : Arrow table
        `item_id`, and `title` and more where given, one row for each item index.
    user_table : Arrow table, optional
        `user_id` and `history`, a list of item indices.
    manifest : dict
    """

    model: Recommender
    item_table: pa.Table
    user_table: pa.Table | None
    manifest: dict[str, Any]

    @cached_property
    def items(self) -> "pd.DataFrame":
        """`item_table` as a DataFrame."""
        frame: pd.DataFrame = self.item_table.to_pandas()
        return frame

    @cached_property
    def users(self) -> "pd.DataFrame | None":
        """`user_table` as a DataFrame, where there is one."""
        return None if self.user_table is None else self.user_table.to_pandas()


def save(
    model: Recommender,
    path: str | Path,
    *,
    items: "pd.DataFrame | Iterable[Any] | None" = None,
    users: "pd.DataFrame | None" = None,
    data: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write an artifact directory; an earlier artifact at `path` is replaced in one step.

    Parameters
    ----------
    items : DataFrame or ids, optional
        One row or id for each item index, a DataFrame with a column `item_id`; indices serve as ids when None.
    users : DataFrame, optional
        `user_id` and `history` (lists of item indices), for look-ups by user id.
    data : mapping, optional
        What the model was trained on: the prepared data's manifest entries.
    metrics : mapping, optional
        Figures to carry along.

    Raises
    ------
    ParameterError
        If `items` does not fit the model.
    ArtifactError
        If `path` holds something else or cannot be written.
    """
    import pandas as pd  # which a process that only serves can do without

    n_items = model.n_items_
    if not isinstance(items, pd.DataFrame):
        items = pd.DataFrame({"item_id": np.arange(n_items) if items is None else list(items)})
    if len(items) != n_items or "item_id" not in items:
        raise ParameterError(f"items has {len(items):,} rows; expected {n_items:,}, one an item, with a column item_id")
    content = {
        "class": type(model).__name__,
        "hyperparameters": model.get_params(),
        "fitted_with": model.fitted_params(),
        "n_items": n_items,
        "versions": versions(),
        "trained_on": model.trained_on_,
        "fit_seconds": model.fit_seconds_,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": dict(data or {}),
        "metrics": dict(metrics or {}),
    }
    with replacing_directory(Path(path), KIND) as directory:
        state = {name: np.ascontiguousarray(array) for name, array in model._state().items()}
        safetensors.numpy.save_file(state | {_COUNTS: model.item_counts_}, directory / _MODEL)
        items.to_parquet(directory / _ITEMS, index=False)
        if users is not None:
            users.to_parquet(directory / _USERS, index=False)
        write_manifest(directory, KIND, VERSION, content)


def load(path: str | Path, *, frozen: bool = False) -> Artifact:
    """Read and verify an artifact directory.

    Parameters
    ----------
    frozen : bool
        Only for ranking, as fast and in as little memory as may be: autoencoders are `FrozenAutoencoder`, without
        torch, and weights are mapped into memory instead of read, so that processes that load the same artifact
        share them. They stay what they were when another artifact takes its place, but the file must not be
        overwritten.

    Raises
    ------
    ArtifactError
        If a file is missing, truncated or altered, the version or class is unknown, or the manifest does not
        agree with what the files hold.
    """
    return read_whole(Path(path), lambda directory: _load(directory, frozen))


def _load(directory: Path, frozen: bool) -> Artifact:
    manifest = read_manifest(directory, KIND, VERSION)
    for entry in ("data", "metrics"):
        if not isinstance(manifest.get(entry), dict):
            raise ArtifactError(f"{directory}: the manifest's {entry} is {manifest.get(entry)!r}; expected an object")
    model = _unfitted(directory, manifest, frozen)
    for name in (_MODEL, _ITEMS):
        if name not in manifest["sha256"]:
            raise ArtifactError(f"{directory} names no checksum for {name}")
    state = _read_weights(directory / _MODEL, frozen)
    counts = state.pop(_COUNTS, None)
    if counts is None or counts.shape != (manifest.get("n_items"),) or counts.dtype != np.float32:
        raise ArtifactError(
            f"{directory}: n_items is {manifest.get('n_items')!r} but the weights are not for as many items"
        )
    model.item_counts_ = counts
    model.trained_on_, model.fit_seconds_ = manifest.get("trained_on"), manifest.get("fit_seconds")
    try:
        model._restore(state)
    except (ArtifactError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f"{directory}: the weights do not fit the manifest: {error}") from None
    items = _read_table(directory / _ITEMS)
    if len(items) != len(counts) or "item_id" not in items.column_names:
        raise ArtifactError(f"{directory / _ITEMS} has {len(items):,} rows; expected {len(counts):,} with an item_id")
    users = _read_table(directory / _USERS) if _USERS in manifest["sha256"] else None
    if users is not None and not {"user_id", "history"} <= set(users.column_names):
        raise ArtifactError(
            f"{directory / _USERS} has columns {', '.join(users.column_names)}; expected user_id and history"
        )
    return Artifact(model, items, users, manifest)


def _unfitted(directory: Path, manifest: Mapping[str, Any], frozen: bool) -> Recommender:
    name, parameters = manifest.get("class"), manifest.get("hyperparameters")
    if not isinstance(parameters, dict):
        raise ArtifactError(
            f"{directory}: the manifest's hyperparameters are {parameters!r}; expected names and values"
        )
    if frozen and isinstance(name, str) and name in VARIATIONAL:
        return FrozenAutoencoder(name)
    model = MODELS.of_class(name) if isinstance(name, str) else None
    if model is None:
        raise ArtifactError(f"{directory} holds a model of class {name!r}; known are {', '.join(MODELS.classes)}")
    try:
        return model(**{key: _hyperparameter(directory, value, frozen) for key, value in parameters.items()})
    except (TypeError, ParameterError) as error:
        raise ArtifactError(f"{directory}: the manifest's hyperparameters do not fit {name}: {error}") from None


def _hyperparameter(directory: Path, value: Any, frozen: bool) -> Any:
    """A plain value, or the models that a model is made of."""
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [_unfitted(directory, entry if isinstance(entry, dict) else {}, frozen) for entry in value]
    return value


def _read_weights(file: Path, mapped: bool) -> State:
    try:
        if mapped:
            return _mapped(file)
        state: State = safetensors.numpy.load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{file} is not readable: {error}") from None
    return state


def _mapped(file: Path) -> State:
    """What `load_file` reads, without copying it."""
    with safe_open(file, "numpy"), file.open("rb") as opened:  # safe_open checks the header
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    state: State = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{name} is {entry['dtype']}; expected {', '.join(_DTYPES)}")
        data = memoryview(content)[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]]
        state[name] = np.frombuffer(data, _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return state


def _read_table(file: Path) -> pa.Table:
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:  # read_table would import pandas
            table = opened.read()
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{file} is not readable: {' '.join(str(error).split())}") from None
    return table
