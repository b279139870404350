"""The prepared data directory: filtered plays, items, and the split as matrices; everything after reads this."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from scipy import sparse

from recvae.errors import ArtifactError
from recvae.interactions import Interactions
from recvae.splits import Holdout, Split
from recvae.storage import read_manifest, read_whole, replacing_directory, versions, write_manifest

KIND, VERSION = "recvae-data", 1
_PLAYS, _ITEMS, _USERS, _SPLIT = "interactions.parquet", "items.parquet", "users.parquet", "split.npz"

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared directory as read.

    Attributes
    ----------
    path : Path
    split : Split
    items : DataFrame
        `item_id`, and `title` and more where given, one row for each column of the matrices.
    manifest : dict
    """

    path: Path
    split: Split
    items: pd.DataFrame
    manifest: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What a model artifact records of the data that it was trained on."""
        return {
            "dataset": self.manifest["dataset"],
            "protocol": self.manifest["protocol"],
            "filters": self.manifest["filters"],
            "split_sha256": self.manifest["sha256"][_SPLIT],
        }

    def histories(self) -> pd.DataFrame:
        """Every user's plays: `user_id` and `history` (lists of item indices), training users first in row order."""
        if read_manifest(self.path, KIND, VERSION)["sha256"] != self.manifest["sha256"]:
            raise ArtifactError(f"{self.path} was replaced while it was in use; run the command again")
        plays = pd.read_parquet(self.path / _PLAYS, columns=["user_id", "item_id"])
        column = pd.Index(self.items["item_id"]).get_indexer(pd.Index(plays["item_id"]))
        order = pd.unique(pd.read_parquet(self.path / _USERS)["user_id"])
        row = pd.Index(order).get_indexer(pd.Index(plays["user_id"]))
        kept = (column >= 0) & (row >= 0)
        shape = (len(order), len(self.items))
        matrix = sparse.csr_matrix((np.ones(int(kept.sum()), dtype=bool), (row[kept], column[kept])), shape=shape)
        history = pa.ListArray.from_arrays(matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))
        return pd.DataFrame({"user_id": order, "history": history.to_pandas()})


def write_prepared(
    path: str | Path,
    data: Interactions,
    split: Split,
    *,
    dataset: str,
    source: Mapping[str, Any],
    filters: Mapping[str, Any],
    counts: Mapping[str, int],
    items: pd.DataFrame | None = None,
) -> None:
    """Write a prepared directory; an earlier one at `path` is replaced in one step.

    Parameters
    ----------
    data : Interactions
        What the split was made of, after the filters.
    dataset : str
    source : mapping
        Where the data came from, with the SHA-256 of each file.
    filters, counts : mapping
        The filters' settings, and what they took.
    items : DataFrame, optional
        `item_id` with `title` and more, of any items in any order.

    Raises
    ------
    ArtifactError
        If `path` holds something else or cannot be written; what was there is unchanged.
    """
    content = {
        "dataset": dataset,
        "protocol": dict(split.protocol),
        "source": dict(source),
        "filters": dict(filters),
        "counts": {**counts, **split.counts},
        "versions": versions(),
    }
    vocabulary = pd.DataFrame({"item_id": split.item_ids})
    if items is not None:
        vocabulary = vocabulary.merge(items.drop_duplicates("item_id"), on="item_id", how="left", validate="1:1")
    with replacing_directory(Path(path), KIND) as directory:
        _plays(data).to_parquet(directory / _PLAYS, index=False)
        vocabulary.to_parquet(directory / _ITEMS, index=False)
        _users(split).to_parquet(directory / _USERS, index=False)
        np.savez(directory / _SPLIT, allow_pickle=False, **_arrays(split))
        write_manifest(directory, KIND, VERSION, content)


def read_prepared(path: str | Path) -> Prepared:
    """Read and verify a prepared directory.

    Raises
    ------
    ArtifactError
        If it is missing, damaged, of an unknown version, or its parts do not fit together.
    """
    return read_whole(Path(path), _read)


def _read(directory: Path) -> Prepared:
    manifest = read_manifest(directory, KIND, VERSION)
    for entry in ("dataset", "protocol", "filters", "counts"):
        if entry not in manifest:
            raise ArtifactError(f"{directory} is damaged: its manifest has no {entry}")
    for name in (_PLAYS, _ITEMS, _USERS, _SPLIT):
        if name not in manifest["sha256"]:
            raise ArtifactError(f"{directory} names no checksum for {name}")
    try:
        items = pd.read_parquet(directory / _ITEMS)
        users = pd.read_parquet(directory / _USERS)
        with (directory / _SPLIT).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        split = _split(arrays, users, items, manifest)
    except (KeyError, ValueError, OSError, EOFError, BadZipFile, pa.ArrowException) as error:
        raise ArtifactError(f"{directory} is damaged: {error}") from None
    return Prepared(directory, split, items, manifest)


def _plays(data: Interactions) -> pd.DataFrame:
    columns = {"user_id": data.user_ids[data.user_idx], "item_id": data.item_ids[data.item_idx]}
    optional = {"rating": data.rating, "timestamp": data.timestamp}
    return pd.DataFrame(columns | {name: values for name, values in optional.items() if values is not None})


def _parts(split: Split) -> dict[str, Holdout]:
    return {"test": split.test} if split.validation is None else {"validation": split.validation, "test": split.test}


def _users(split: Split) -> pd.DataFrame:
    ids = {"train": split.user_ids, **{name: part.user_ids for name, part in _parts(split).items()}}
    return pd.concat(
        [pd.DataFrame({"user_id": users, "part": name}) for name, users in ids.items()], ignore_index=True
    ).astype({"part": "str"})


def _arrays(split: Split) -> Arrays:
    arrays = _csr_arrays("train", split.train)
    for name, part in _parts(split).items():
        arrays |= _csr_arrays(f"{name}_fold_in", part.fold_in) | _csr_arrays(f"{name}_held_out", part.held_out)
        arrays[f"{name}_train_rows"] = part.train_rows
    return arrays


def _csr_arrays(name: str, matrix: sparse.csr_matrix) -> Arrays:
    return {f"{name}_indptr": matrix.indptr, f"{name}_indices": matrix.indices}


def _split(arrays: Arrays, users: pd.DataFrame, items: pd.DataFrame, manifest: dict[str, Any]) -> Split:
    def ids(part: str) -> pd.Index:
        index: pd.Index = pd.Index(users["user_id"][users["part"] == part].to_numpy())
        return index

    def matrix(name: str, n_users: int) -> sparse.csr_matrix:
        indptr, indices = arrays[f"{name}_indptr"], arrays[f"{name}_indices"]
        ones = np.ones(len(indices), dtype=np.float32)
        plays = sparse.csr_matrix((ones, indices, indptr), shape=(n_users, len(items)))
        plays.check_format(full_check=True)
        return plays

    def holdout(part: str) -> Holdout:
        user_ids = ids(part)
        fold_in, held_out = (matrix(f"{part}_{half}", len(user_ids)) for half in ("fold_in", "held_out"))
        return Holdout(fold_in, held_out, user_ids, arrays[f"{part}_train_rows"])

    return Split(
        train=matrix("train", len(ids("train"))),
        user_ids=ids("train"),
        item_ids=pd.Index(items["item_id"].to_numpy()),
        validation=holdout("validation") if "validation_train_rows" in arrays else None,
        test=holdout("test"),
        protocol=manifest["protocol"],
        counts=manifest["counts"],
    )
