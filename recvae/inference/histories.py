"""Users and their histories from Parquet files of any size, a batch at a time and from any row on.

Two forms are read: one row a user (`user_id` and `history`, a list of item ids), and one row an interaction (`user_id`
and `item_id`), sorted by `user_id`.
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

from recvae.errors import DataError
from recvae.inference.ids import decode_ids
from recvae.storage.artifact import KIND as MODEL
from recvae.storage.checksums import digest_file
from recvae.storage.manifest import MANIFEST

USERS_A_BATCH, INTERACTIONS_A_BATCH = 4096, 1 << 17


@dataclass(frozen=True)
class UserHistories:
    """A Parquet file, or a folder of them read in the order of their names.

    Attributes
    ----------
    path : Path
    files : tuple of Path
    first_rows : tuple of int
        The row, counted through all files, that each file begins with; at the end the number of rows.
    item_column : str
        `history` where a row is a user, `item_id` where it is an interaction.

    Raises
    ------
    DataError
        On opening, if there is no such file, one is no Parquet or lacks the columns, or nobody is in them; on reading,
        if rows are damaged, a user id is missing or the interactions are not sorted by user, saying where.
    """

    path: Path
    files: tuple[Path, ...]
    first_rows: tuple[int, ...]
    item_column: str

    @classmethod
    def open(cls, path: str | Path) -> "UserHistories":
        """Look at the files' columns and rows; nothing else is read yet."""
        path = Path(path)
        files = tuple(sorted(path.glob("*.parquet"))) if path.is_dir() else (path,)
        if not files:
            raise DataError(f"users is {path}, a folder without *.parquet; expected a Parquet file or a folder of them")
        opened = [_opened(file) for file in files]
        columns = [_columns(file, parquet.schema_arrow) for file, parquet in zip(files, opened, strict=True)]
        for file, found in zip(files, columns, strict=True):
            if found != columns[0]:
                raise DataError(f"{file} has {_text(found)}, but {files[0]} has {_text(columns[0])}; expected the same")
        first_rows = np.cumsum([0, *(parquet.metadata.num_rows for parquet in opened)])
        if first_rows[-1] == 0:
            raise DataError(f"users is {path}, which holds nobody; expected at least one row")
        return cls(path, files, tuple(first_rows.tolist()), list(columns[0])[1])

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return self.first_rows[-1]

    def sha256(self) -> str:
        """SHA-256 of the file, or of the files' digests."""
        digests = [digest_file(file) for file in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def batches(self, first_row: int = 0) -> Iterator[pa.Table]:
        """The users from a row on, at which a user begins.

        Yields
        ------
        Table
            `user_id`, `history` (list of item ids), and `next_row`, at which the next user begins.
        """
        if self.item_column == "item_id":
            yield from self._of_interactions(first_row)
            return
        for row, table in self._rows(first_row, USERS_A_BATCH):
            if self._ids_of_indices is not None:
                history = _array(table["history"])
                named = self._ids_of_indices.take(history.flatten())
                lengths = pc.fill_null(pc.list_value_length(history), 0)
                table = table.set_column(1, "history", _lists(named, np.cumsum([0, *lengths.to_numpy()])))
            yield table.append_column("next_row", pa.array(np.arange(row, row + len(table)) + 1))

    def _of_interactions(self, first_row: int) -> Iterator[pa.Table]:
        waiting, start = None, first_row
        for _, interactions in self._rows(first_row, INTERACTIONS_A_BATCH):
            waiting = interactions if waiting is None else pa.concat_tables([waiting, interactions])
            ends = self._ends(waiting["user_id"].combine_chunks(), start)
            if len(ends):
                yield _users(waiting, ends, start)
                waiting, start = waiting[ends[-1] :], start + int(ends[-1])
        if waiting is not None:
            yield _users(waiting, np.array([len(waiting)]), start)

    def _ends(self, user_ids: pa.Array, start: int) -> npt.NDArray[np.intp]:
        """Where a user's interactions end and another's begin."""
        before, after = user_ids[:-1], user_ids[1:]
        falls = np.flatnonzero(pc.less(after, before))
        if len(falls):
            file, row = self._place(start + int(falls[0]) + 1)
            raise DataError(
                f"{file} row {row:,}: user_id {after[falls[0]]} comes after {before[falls[0]]}; expected the rows "
                "sorted by user_id"
            )
        return np.flatnonzero(pc.not_equal(after, before)) + 1

    def _rows(self, first_row: int, size: int) -> Iterator[tuple[int, pa.Table]]:
        """Tables of at most `size` rows, and the row that each begins with."""
        for number, (begin, end) in enumerate(pairwise(self.first_rows)):
            if end <= first_row:
                continue
            parquet, row = _opened(self.files[number]), begin
            for group in range(parquet.num_row_groups):
                n_rows = parquet.metadata.row_group(group).num_rows
                if row + n_rows > first_row:
                    yield from self._group(parquet, number, group, row, first_row, size)
                row += n_rows

    def _group(
        self, parquet: pq.ParquetFile, number: int, group: int, row: int, first_row: int, size: int
    ) -> Iterator[tuple[int, pa.Table]]:
        try:
            for batch in parquet.iter_batches(size, row_groups=[group], columns=["user_id", self.item_column]):
                rows = pa.Table.from_batches([batch])[max(first_row - row, 0) :]
                row += len(batch)
                if len(rows):
                    yield row - len(rows), self._checked(rows, row - len(rows))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.files[number]} row group {group} is not readable: {_line(error)}") from None

    def _checked(self, rows: pa.Table, row: int) -> pa.Table:
        """The two columns in order, without a missing user."""
        rows = rows.select(["user_id", self.item_column])
        if rows["user_id"].null_count:
            file, place = self._place(row + int(np.flatnonzero(rows["user_id"].is_null())[0]))
            raise DataError(f"{file} row {place:,}: user_id is missing")
        return rows.set_column(0, "user_id", decode_ids(rows["user_id"].combine_chunks()))

    def _place(self, row: int) -> tuple[Path, int]:
        """File and row in it, counted from 0."""
        number = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.files[number], row - self.first_rows[number]

    @cached_property
    def _ids_of_indices(self) -> pa.Array | None:
        """The item ids of a model artifact, if this is its users.parquet: histories are item indices there."""
        try:
            held = json.loads(self.path.with_name(MANIFEST).read_bytes()).get("format")
            if self.path.name == "users.parquet" and held == MODEL:
                return pq.read_table(self.path.with_name("items.parquet"))["item_id"].combine_chunks()
        except (OSError, ValueError, AttributeError):
            pass
        return None


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except FileNotFoundError:
        raise DataError(f"users is {file}, which does not exist; expected a Parquet file or a folder of them") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not readable as Parquet: {_line(error)}") from None


def _columns(file: Path, schema: pa.Schema) -> dict[str, pa.DataType]:
    """The types of `user_id` and of `history` or `item_id`."""
    item_column = "history" if "history" in schema.names else "item_id"
    if missing := [name for name in ("user_id", item_column) if name not in schema.names]:
        raise DataError(
            f"{file} has columns {', '.join(schema.names)} and lacks {missing[-1]}; expected user_id and history (a "
            "list of item ids), or user_id and item_id"
        )
    types = {name: schema.field(name).type for name in ("user_id", item_column)}
    ids = dict(types)
    if item_column == "history":
        if not _is_list(types["history"]):
            raise DataError(f"{file}: history is {types['history']}; expected a list of item ids")
        ids["history"] = types["history"].value_type
    for name, kind in ids.items():
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{file}: {name} holds {kind}; expected whole numbers or text")
    return types


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _lists(items: pa.Array, offsets: npt.NDArray[Any]) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items)


def _users(interactions: pa.Table, ends: npt.NDArray[np.intp], start: int) -> pa.Table:
    """One row a user from the interactions of whole users."""
    offsets = np.concatenate([[0], ends])
    items = decode_ids(_array(interactions["item_id"][: int(ends[-1])]))
    return pa.table(
        {
            "user_id": interactions["user_id"].take(pa.array(offsets[:-1])),
            "history": _lists(items, offsets),
            "next_row": start + ends,
        }
    )


def _text(columns: dict[str, pa.DataType]) -> str:
    return " and ".join(f"{name} ({kind})" for name, kind in columns.items())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
