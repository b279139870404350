"""The prepared data directory: filtered interactions, items, and the split as matrices; all later commands read it.

`interactions.parquet` holds the interactions that were split, in the source's order; `items.parquet` and
`users.parquet` name the columns and rows of the split's matrices (`recvae.data.csr_files`): `train`, and `fold_in` and
`held_out` of `validation` and `test`, whose rows in `train` are `validation.train_rows.npy` and `test.train_rows.npy`.
Matrices are read as memory maps.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from scipy import sparse

from recvae.data.columns import Columns
from recvae.data.csr_files import ONES, WEIGHTS, is_weighted, matrix_files, read_array, read_matrix, write_matrices
from recvae.data.frames import to_frame
from recvae.data.interactions import Interactions
from recvae.data.split import Holdout, Split, list_histories
from recvae.data.splitting import count_holdouts
from recvae.errors import ArtifactError
from recvae.storage.directories import read_consistently, replace_directory
from recvae.storage.manifest import find_file_faults, read_manifest, versions, write_manifest

KIND, VERSION, WEIGHTED = "recvae-data", 2, 3
_INTERACTIONS, _ITEMS, _USERS = "interactions.parquet", "items.parquet", "users.parquet"
_TRAIN_ROWS = "train_rows.npy"
_ROWS_A_GROUP = 1 << 20


@dataclass(frozen=True, eq=False)
class Prepared:
    """The content of a prepared directory.

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
        """Facts that tell these data from others, which an artifact records: data set, protocol, filters, digest."""
        return {
            "dataset": self.manifest["dataset"],
            "protocol": self.manifest["protocol"],
            "filters": self.manifest["filters"],
            "split_sha256": _split_sha256(self.manifest),
        }

    def read_interactions(self) -> Interactions:
        """Read the interactions that were split, those of items outside training too, without ratings and times."""
        names, columns = ["user_id", "item_id"], None
        if self.is_weighted:
            names, columns = [*names, "weight"], Columns(weight="weight")
        return Interactions.from_frame(pd.read_parquet(self.path / _INTERACTIONS, columns=names), columns)

    @property
    def is_weighted(self) -> bool:
        return bool(self.manifest["format_version"] == WEIGHTED)

    def histories(self) -> pd.DataFrame:
        """List every user's history, training users first in row order.

        Returns
        -------
        DataFrame with `user_id`, `history` (lists of item indices), and `weights` where interactions have them.
        """
        split = self.split
        order, matrices = split.user_ids, [(split.train, np.arange(len(split.user_ids)))]
        for holdout in _holdouts(split).values():
            order = order.append(holdout.user_ids[holdout.train_rows < 0]).unique()
            users = order.get_indexer(holdout.user_ids)
            matrices += [(holdout.fold_in, users), (holdout.held_out, users)]
        rows = np.concatenate([np.repeat(users, np.diff(matrix.indptr)) for matrix, users in matrices])
        columns = np.concatenate([matrix.indices for matrix, _ in matrices])
        matrix = sparse.csr_matrix(
            (np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(order), len(self.items))
        )
        if self.is_weighted:
            data = self.read_interactions()
            users, items = data.user_ids.get_indexer(order), data.item_ids.get_indexer(self.split.item_ids)
            matrix = sparse.csr_matrix(matrix.multiply(data.user_items[users][:, items]))
        return list_histories(order, matrix)


def write_prepared(
    path: str | Path,
    data: Interactions | Iterable[pd.DataFrame],
    split: Split,
    *,
    dataset: str,
    source: Mapping[str, Any],
    filters: Mapping[str, Any],
    counts: Mapping[str, int],
    items: Any = None,
) -> None:
    """Write a prepared directory; replace an earlier one at `path` in one step.

    Parameters
    ----------
    data : Interactions, or iterable of DataFrame
        The interactions that were split, after the filters, in the source's order: `user_id`, `item_id`, and `rating`
        and `timestamp` where there are any, `weight` where the split's matrices have weights.
    dataset : str
    source : mapping
        Origin of the data, with the SHA-256 of each file.
    filters, counts : mapping
        The filters' settings, and how many interactions each dropped.
    items : DataFrame or table with the Arrow stream interface, optional
        `item_id` with `title` and other columns, of any items in any order.

    Raises
    ------
    ArtifactError
        If `path` holds something else or cannot be written; then it is unchanged.
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
        described = to_frame(items, "items").drop_duplicates("item_id")
        vocabulary = vocabulary.merge(described, on="item_id", how="left", validate="1:1")
    frames, weights = (data.iter_frames(_ROWS_A_GROUP), data.weight) if isinstance(data, Interactions) else (data, None)
    with replace_directory(Path(path), KIND) as directory:
        _write_interactions(directory / _INTERACTIONS, frames)
        vocabulary.to_parquet(directory / _ITEMS, index=False)
        _users(split).to_parquet(directory / _USERS, index=False)
        _write_split(directory, split)
        # Earlier versions of recvae refuse what they would misread; weights may be of interactions after training only.
        weighted = any(directory.glob(WEIGHTS)) or (weights is not None and (weights != 1).any())
        write_manifest(directory, KIND, WEIGHTED if weighted else VERSION, content)


def read_prepared(path: str | Path) -> Prepared:
    """Read and verify a prepared directory.

    Raises
    ------
    ArtifactError
        If it is missing, damaged, of an unknown version, or its files do not fit together.
    """
    return read_consistently(Path(path), _read)


def find_faults(path: str | Path) -> list[str]:
    """List everything that is wrong with a prepared directory, a line each; nothing if it is whole.

    Checks more than `read_prepared`, which checks what reading relies on: all checksums and not only up to the first
    wrong one, files that the manifest does not name, ids, the values of matrices, each held-out user's row in
    training, and the manifest's counts.
    """
    directory = Path(path)
    manifest, faults = find_file_faults(directory, KIND, VERSION, WEIGHTED)
    if manifest is None:
        return faults
    try:
        prepared = _read_content(directory, manifest)
        ids = [_find_id_faults(directory, prepared), _find_count_faults(directory, prepared)]
    except (ArtifactError, KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        return [*faults, " ".join(str(error).split())]
    found = [*_find_matrix_faults(directory, prepared.split), *_find_holdout_faults(prepared.split), *ids[0], *ids[1]]
    return faults + [f"{directory}: {fault}" for fault in found]


def _find_matrix_faults(directory: Path, split: Split) -> Iterator[str]:
    for name, matrix in _matrices(split).items():
        if not matrix.has_canonical_format:
            yield f"{name} has rows whose item indices are not ascending"
        has_weights = (directory / WEIGHTS.replace("*", name)).exists() and not name.endswith("held_out")
        if is_weighted(matrix) and not has_weights:
            yield f"{name} has values other than 1"


def _find_holdout_faults(split: Split) -> Iterator[str]:
    for name, holdout in _holdouts(split).items():
        rows = holdout.train_rows
        if rows.shape != (holdout.n_users,) or (len(rows) and not -1 <= rows.min() <= rows.max() < len(split.user_ids)):
            yield f"{name}.{_TRAIN_ROWS} has {len(rows):,} rows that do not fit {len(split.user_ids):,} training users"
        elif (wrong := split.user_ids[rows[rows >= 0]] != holdout.user_ids[rows >= 0]).any():
            yield f"{name}.{_TRAIN_ROWS} gives {wrong.sum():,} users the row of another user in training"
        if both := holdout.fold_in.multiply(holdout.held_out).nnz:
            yield f"{name} has {both:,} interactions in fold_in and in held_out"


def _find_id_faults(directory: Path, prepared: Prepared) -> list[str]:
    split, faults = prepared.split, []
    columns = {
        "item_id": [split.item_ids],
        "user_id": [split.user_ids, *(h.user_ids for h in _holdouts(split).values())],
    }
    for column, indices in columns.items():
        known = pa.parquet.read_table(directory / _INTERACTIONS, columns=[column])[column].unique().to_pandas()
        for index in indices:
            if index.hasnans or not index.is_unique:
                faults.append(f"{column} is missing, or not a different one, in {len(index) - index.nunique():,} rows")
            if unknown := int((~index.isin(known)).sum()):
                faults.append(f"{column} has {unknown:,} values that {_INTERACTIONS} does not have")
        expected = prepared.manifest["counts"].get(f"{column.removesuffix('_id')}s", len(known))
        if len(known) != expected:
            faults.append(f"{_INTERACTIONS} has {len(known):,} values of {column}; its manifest counts {expected:,}")
    return faults


def _find_count_faults(directory: Path, prepared: Prepared) -> list[str]:
    split, counts = prepared.split, prepared.manifest["counts"]
    found = {
        "interactions": pa.parquet.read_metadata(directory / _INTERACTIONS).num_rows,
        "train_users": split.train.shape[0],
        "train_items": split.train.shape[1],
        "train_interactions": split.train.nnz,
        **count_holdouts(split),
    }
    return [
        f"{name} is {n:,}; its manifest counts {counts[name]!r}"
        for name, n in found.items()
        if counts.get(name, n) != n
    ]


def _read(directory: Path) -> Prepared:
    return _read_content(directory, read_manifest(directory, KIND, VERSION, WEIGHTED))


def _read_content(directory: Path, manifest: dict[str, Any]) -> Prepared:
    for entry in ("dataset", "protocol", "filters", "counts"):
        if entry not in manifest:
            raise ArtifactError(f"{directory} is damaged: its manifest has no {entry}")
        if entry != "dataset" and not isinstance(manifest[entry], dict):
            raise ArtifactError(
                f"{directory} is damaged: its manifest has {entry} {manifest[entry]!r}; expected an object"
            )
    sides = ("validation", "test") if f"validation.{_TRAIN_ROWS}" in manifest["sha256"] else ("test",)
    weights = [file.name for file in directory.glob(WEIGHTS)]
    for name in (_INTERACTIONS, _ITEMS, _USERS, ONES, *_split_files(sides), *weights):
        if name not in manifest["sha256"]:
            raise ArtifactError(f"{directory} names no checksum for {name}")
    try:
        items = pd.read_parquet(directory / _ITEMS)
        users = pd.read_parquet(directory / _USERS)
        split = _read_split(directory, sides, users, items, manifest)
    except (KeyError, ValueError, OSError, EOFError, pa.ArrowException) as error:
        raise ArtifactError(f"{directory} is damaged: {' '.join(str(error).split())}") from None
    return Prepared(directory, split, items, manifest)


def _write_interactions(path: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Write interactions in row groups of a fixed size, so that the bytes do not depend on the frames' sizes."""
    waiting: list[pa.Table] = []
    with contextlib.ExitStack() as stack:
        writer = None
        for frame in frames:
            waiting.append(pa.Table.from_pandas(frame, preserve_index=False))
            writer = writer or stack.enter_context(pa.parquet.ParquetWriter(path, waiting[0].schema))
            while sum(map(len, waiting)) >= _ROWS_A_GROUP:
                whole = pa.concat_tables(waiting).combine_chunks()
                writer.write_table(whole[:_ROWS_A_GROUP])
                waiting = [whole[_ROWS_A_GROUP:]]
        if writer and len(rest := pa.concat_tables(waiting)):
            writer.write_table(rest.combine_chunks())


def _holdouts(split: Split) -> dict[str, Holdout]:
    return {"test": split.test} if split.validation is None else {"validation": split.validation, "test": split.test}


def _matrices(split: Split) -> dict[str, sparse.csr_matrix]:
    matrices = {"train": split.train}
    for name, holdout in _holdouts(split).items():
        matrices |= {f"{name}.fold_in": holdout.fold_in, f"{name}.held_out": holdout.held_out}
    return matrices


def _users(split: Split) -> pd.DataFrame:
    """List the users of the matrices' rows; column `part` says whether in train, validation or test."""
    ids = {"train": split.user_ids, **{name: holdout.user_ids for name, holdout in _holdouts(split).items()}}
    return pd.concat(
        [pd.DataFrame({"user_id": users, "part": name}) for name, users in ids.items()], ignore_index=True
    ).astype({"part": "str"})


def _split_files(sides: Iterable[str]) -> list[str]:
    """List the files of a split's arrays, without the values that its matrices share."""
    names = matrix_files("train")
    for side in sides:
        names += [*matrix_files(f"{side}.fold_in"), *matrix_files(f"{side}.held_out"), f"{side}.{_TRAIN_ROWS}"]
    return names


def _split_sha256(manifest: Mapping[str, Any]) -> str:
    """Compute one digest over the checksums of the split's arrays."""
    sums = [f"{name} {digest}\n" for name, digest in sorted(manifest["sha256"].items()) if name.endswith(".npy")]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def _write_split(directory: Path, split: Split) -> None:
    for name, holdout in _holdouts(split).items():
        np.save(directory / f"{name}.{_TRAIN_ROWS}", holdout.train_rows, allow_pickle=False)
    write_matrices(directory, _matrices(split))


def _read_split(
    directory: Path, sides: tuple[str, ...], users: pd.DataFrame, items: pd.DataFrame, manifest: dict[str, Any]
) -> Split:
    def ids(side: str) -> pd.Index:
        index: pd.Index = pd.Index(users["user_id"][users["part"] == side].to_numpy())
        return index

    def matrix(name: str, n_users: int) -> sparse.csr_matrix:
        return read_matrix(directory, name, (n_users, len(items)))

    def holdout(side: str) -> Holdout:
        user_ids = ids(side)
        fold_in, held_out = (matrix(f"{side}.{half}", len(user_ids)) for half in ("fold_in", "held_out"))
        return Holdout(fold_in, held_out, user_ids, np.array(read_array(directory / f"{side}.{_TRAIN_ROWS}")))

    return Split(
        train=matrix("train", len(ids("train"))),
        user_ids=ids("train"),
        item_ids=pd.Index(items["item_id"].to_numpy()),
        validation=holdout("validation") if "validation" in sides else None,
        test=holdout("test"),
        protocol=manifest["protocol"],
        counts=manifest["counts"],
    )
