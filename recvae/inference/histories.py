"""`UserHistories`: users and their histories from Parquet files of any size, in batches, from any row on.

A file has one of two forms: one row a user (`user_id` and `history`, a list of item ids) or one row an interaction
(`user_id` and `item_id`), sorted by `user_id`. A model's own `users.parquet` is read where it lies.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from recvae.data.csr import round_weights
from recvae.errors import DataError
from recvae.inference.ids import IdIndex, decode_ids, is_text
from recvae.storage.artifact import KIND as MODEL
from recvae.storage.checksums import digest_file
from recvae.storage.manifest import MANIFEST
from recvae.storage.tables import ITEM_ROWS

USERS_A_BATCH, INTERACTIONS_A_BATCH = 4096, 1 << 17


@dataclass(frozen=True)
class UserHistories:
    """A Parquet file, or a folder of them read in the order of their names.

    Attributes
    ----------
    path : Path
    files : tuple of Path
    first_rows : tuple of int
        Number of the row with which each file begins, counted through all files; the last entry is the number of rows.
    item_column : str
        `history` where a row is a user, `item_id` where it is an interaction; a model's has `item_rows`, or `history`
        in version 1 of its format.
    weight_column : str, optional
        `weights`, lists, or `weight`, where the files have them.

    Raises
    ------
    DataError
        On opening, if a file does not exist, is not Parquet or lacks the columns, or if there are no rows; on reading,
        with the place, if rows are damaged, a user id is missing or interactions are not sorted by user.
    """

    path: Path
    files: tuple[Path, ...]
    first_rows: tuple[int, ...]
    item_column: str
    weight_column: str | None = None

    @classmethod
    def open(cls, path: str | Path) -> "UserHistories":
        """Check the files' columns and count their rows, without reading more."""
        path = Path(path)
        files = tuple(sorted(path.glob("*.parquet"))) if path.is_dir() else (path,)
        if not files:
            raise DataError(f"users is {path}, a folder without *.parquet; expected a Parquet file or a folder of them")
        columns, n_rows = list[dict[str, pa.DataType]](), list[int]()
        for file in files:
            with _open_parquet(file) as parquet:  # one at a time, since there may be more than a process may open
                columns.append(_read_column_types(file, parquet.schema_arrow))
                n_rows.append(parquet.metadata.num_rows)
            if columns[-1] != columns[0]:
                raise DataError(
                    f"{file} has {_describe_types(columns[-1])}, but {files[0]} has {_describe_types(columns[0])}; "
                    "expected the same"
                )
        first_rows = np.cumsum([0, *n_rows])
        if first_rows[-1] == 0:
            raise DataError(f"users is {path}, which has no rows; expected at least one row")
        found = cls(path, files, tuple(first_rows.tolist()), *list(columns[0])[1:])
        if found.item_column == ITEM_ROWS and found._artifact_ids is None:
            raise DataError(
                f"{path} has {ITEM_ROWS}, as a model's users.parquet, but is not beside the model; expected history, a "
                "list of item ids"
            )
        return found

    @property
    def n_rows(self) -> int:
        """Number of rows in all files."""
        return self.first_rows[-1]

    def sha256(self) -> str:
        """Return the SHA-256 of the file, or of all files' digests."""
        digests = [digest_file(file) for file in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def batches(self, first_row: int = 0) -> Iterator[pa.Table]:
        """Read the users from a row on, which must be the first row of a user.

        Yields
        ------
        Table
            `user_id`, `history` (list of item ids), `weights` (list of numbers) where the files have them, and
            `next_row`, the first row of the next user.
        """
        if self.item_column == "item_id":
            yield from self._group_interactions(first_row)
            return
        for row, table in self._read_rows(first_row, USERS_A_BATCH):
            if self._artifact_ids is not None:
                history = _one_array(table[self.item_column])
                named = self._artifact_ids.take(history.flatten())
                lengths = pc.fill_null(pc.list_value_length(history), 0)
                table = table.set_column(1, "history", _list_array(named, np.cumsum([0, *lengths.to_numpy()])))
            yield table.append_column("next_row", pa.array(np.arange(row, row + len(table)) + 1))

    def _group_interactions(self, first_row: int) -> Iterator[pa.Table]:
        waiting, start = None, first_row
        for _, interactions in self._read_rows(first_row, INTERACTIONS_A_BATCH):
            waiting = interactions if waiting is None else pa.concat_tables([waiting, interactions])
            ends = self._find_ends(waiting["user_id"].combine_chunks(), start)
            if len(ends):
                yield _users_table(waiting, ends, start)
                waiting, start = waiting[ends[-1] :], start + int(ends[-1])
        if waiting is not None:
            yield _users_table(waiting, np.array([len(waiting)]), start)

    def _find_ends(self, user_ids: pa.Array, start: int) -> npt.NDArray[np.intp]:
        """Return the places where the interactions of one user end and those of the next begin."""
        before, after = user_ids[:-1], user_ids[1:]
        falls = np.flatnonzero(pc.less(after, before))
        if len(falls):
            file, row = self._locate(start + int(falls[0]) + 1)
            raise DataError(
                f"{file} row {row + 1:,}: user_id {after[falls[0]]} comes after {before[falls[0]]}; expected the rows "
                "sorted by user_id"
            )
        return np.flatnonzero(pc.not_equal(after, before)) + 1

    def _read_rows(self, first_row: int, size: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield tables of at most `size` rows, each with the number of its first row."""
        for number, (begin, end) in enumerate(pairwise(self.first_rows)):
            if end <= first_row:
                continue
            row = begin
            with _open_parquet(self.files[number]) as parquet:
                for group in range(parquet.num_row_groups):
                    n_rows = parquet.metadata.row_group(group).num_rows
                    if row + n_rows > first_row:
                        yield from self._read_row_group(parquet, number, group, row, first_row, size)
                    row += n_rows

    def _read_row_group(
        self, parquet: pq.ParquetFile, number: int, group: int, row: int, first_row: int, size: int
    ) -> Iterator[tuple[int, pa.Table]]:
        try:
            for batch in parquet.iter_batches(size, row_groups=[group], columns=self._columns):
                rows = pa.Table.from_batches([batch])[max(first_row - row, 0) :]
                row += len(batch)
                if len(rows):
                    yield row - len(rows), self._check_rows(rows, row - len(rows))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.files[number]} row group {group} is not readable: {_one_line(error)}") from None

    def _check_rows(self, rows: pa.Table, row: int) -> pa.Table:
        """Return the two columns in order; raise `DataError` if a user id is missing."""
        rows = rows.select(self._columns)
        if rows["user_id"].null_count:
            file, place = self._locate(row + int(np.flatnonzero(rows["user_id"].is_null())[0]))
            raise DataError(f"{file} row {place + 1:,}: user_id is missing")
        return rows.set_column(0, "user_id", decode_ids(rows["user_id"].combine_chunks()))

    @property
    def _columns(self) -> list[str]:
        return [name for name in ("user_id", self.item_column, self.weight_column) if name]

    def _locate(self, row: int) -> tuple[Path, int]:
        """Return the file of a row, and its number in that file, counted from 0."""
        number = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.files[number], row - self.first_rows[number]

    @cached_property
    def _artifact_ids(self) -> pa.Array | None:
        """Item ids of a model artifact, if this is its users.parquet, whose histories are item indices; else None."""
        try:
            held = json.loads(self.path.with_name(MANIFEST).read_bytes()).get("format")
            if self.path.name == "users.parquet" and held == MODEL:
                return pq.read_table(self.path.with_name("items.parquet"))["item_id"].combine_chunks()
        except (OSError, ValueError, AttributeError):
            pass
        return None


def to_user_items(
    column: pa.ChunkedArray, items: IdIndex, weights: pa.ChunkedArray | None = None
) -> tuple[sparse.csr_matrix, npt.NDArray[np.int32]]:
    """Turn a column of histories into a matrix of weights, ones where there are none, (n_users, n_items).

    Returns
    -------
    (user_items, n_unknown)
        And the number of ids of each history that no item has, (n_users,) int32.

    Raises
    ------
    DataError
        If the histories are no lists of ids, or an item has no weight above 0, where there are weights.
    """
    if pa.types.is_null(column.type):  # every history is empty
        column = column.cast(pa.list_(items.array.type))
    if not _is_list(column.type) or pa.types.is_nested(column.type.value_type):
        raise DataError(f"history is {column.type}; expected a list of item ids for each user")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    found = items.find_column(pc.list_flatten(column))
    row = np.repeat(np.arange(len(lengths)), lengths)
    known = found >= 0
    shape = (len(lengths), len(items))
    values = np.ones(len(found), np.float32) if weights is None else _flatten_weights(weights, column)
    matrix = sparse.csr_matrix((values[known], (row[known], found[known])), shape=shape)
    if weights is None:
        matrix.data[:] = 1  # the matrix sums repeated items
    return matrix, np.bincount(row[~known], minlength=len(lengths)).astype(np.int32)


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except FileNotFoundError:
        raise DataError(f"users is {file}, which does not exist; expected a Parquet file or a folder of them") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is not readable as Parquet: {_one_line(error)}; expected columns user_id and history, or item_id"
        ) from None


def _read_column_types(file: Path, schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the types of `user_id`, of `history`, `item_rows` or `item_id`, and of weights."""
    item_column = next((name for name in ("history", ITEM_ROWS) if name in schema.names), "item_id")
    if missing := [name for name in ("user_id", item_column) if name not in schema.names]:
        raise DataError(
            f"{file} has columns {', '.join(schema.names)} and lacks {missing[-1]}; expected user_id and history (a "
            "list of item ids), or user_id and item_id"
        )
    types = {name: schema.field(name).type for name in ("user_id", item_column)}
    ids = dict(types)
    weight_column = "weight" if item_column == "item_id" else "weights"
    if weight_column in schema.names:
        types[weight_column] = schema.field(weight_column).type
    if item_column != "item_id":
        if not _is_list(types[item_column]):
            raise DataError(f"{file}: {item_column} is {types[item_column]}; expected a list of item ids")
        ids[item_column] = types[item_column].value_type
    for name, kind in ids.items():
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        empty = name == item_column and pa.types.is_null(kind)  # no list of the file holds anything
        if not (pa.types.is_integer(kind) or is_text(kind) or empty):
            raise DataError(f"{file}: {name} holds {kind}; expected whole numbers or text")
    return types


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _list_array(items: pa.Array, offsets: npt.NDArray[Any]) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items)


def _users_table(interactions: pa.Table, ends: npt.NDArray[np.intp], start: int) -> pa.Table:
    """Return one row a user from the interactions of whole users."""
    offsets = np.concatenate([[0], ends])
    items = decode_ids(_one_array(interactions["item_id"][: int(ends[-1])]))
    users = {
        "user_id": interactions["user_id"].take(pa.array(offsets[:-1])),
        "history": _list_array(items, offsets),
        "next_row": start + ends,
    }
    if "weight" in interactions.column_names:
        users["weights"] = _list_array(_one_array(interactions["weight"][: int(ends[-1])]), offsets)
    return pa.table(users)


def _describe_types(columns: dict[str, pa.DataType]) -> str:
    return " and ".join(f"{name} ({kind})" for name, kind in columns.items())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _flatten_weights(weights: pa.ChunkedArray, histories: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return the weights of all items of all histories; `DataError` unless each item has one above 0.

    What is less than float32 holds becomes the least that it holds, so that its item stays one of the history.
    """
    if pa.types.is_null(weights.type):  # every history is empty
        weights = weights.cast(pa.list_(pa.float64()))
    try:
        lengths = [pc.fill_null(pc.list_value_length(column), 0) for column in (weights, histories)]
        values: npt.NDArray[np.float64] = pc.list_flatten(weights).cast(pa.float64(), safe=False).to_numpy()
        sound = (values > 0) & (values <= np.finfo(np.float32).max)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError):
        raise DataError(f"weights is {weights.type}; expected a list of numbers for each history") from None
    if not pc.all(pc.equal(*lengths), min_count=0).as_py():
        raise DataError("weights has other lengths than history; expected a weight for each item")
    if not sound.all():
        raise DataError(f"weights holds {values[~sound][0]:g}; expected numbers above 0")
    return round_weights(values)
