"""The tables of an artifact: its items, and its users with their histories."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recvae.errors import ArtifactError, ParameterError

if TYPE_CHECKING:
    import pandas as pd


ITEM_ROWS = "item_rows"
"""A history in a model's file: rows of its items, under a name that no reader takes for ids."""
BYTES_FOR_ANY_FILE, BYTES_FOR_EACH_BYTE = 64 * 2**20, 100
"""A table may take so many bytes in memory, and so many more for each byte of its file."""


def make_item_table(items: "pd.DataFrame | pa.Table | Iterable[Any] | None", n_items: int) -> pa.Table:
    """Make the item table of an artifact.

    Parameters
    ----------
    items : table with a column `item_id`, or ids
        One row or id for each item index; indices serve as ids when None. A table is a DataFrame of pandas or
        anything with columns that has Arrow's stream interface.

    Raises
    ------
    ParameterError
        If ids are missing, repeat, or are of mixed types, or their number is not `n_items`.
    """
    try:
        if items is None:
            table = pa.table({"item_id": pa.array(range(n_items), pa.int64())})
        elif (given := _as_table(items)) is not None:
            table = given
        else:
            ids = items if hasattr(items, "dtype") else list(items)  # whose type Arrow takes over, such as uint64
            table = pa.table({"item_id": pa.array(ids, from_pandas=True)})
        check_items(table, n_items)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ParameterError(f"items cannot be stored: {_one_line(error)}; expected ids of one type") from None
    except ValueError as error:
        raise ParameterError(f"items {error}") from None
    return table


def make_user_table(users: "pd.DataFrame | pa.Table | None", n_items: int) -> pa.Table | None:
    """Make the user table of an artifact.

    Parameters
    ----------
    users : table with columns `user_id` and `history`, optional
        `history` holds lists of item indices.

    Raises
    ------
    ParameterError
        If a column is missing, user ids are missing, repeat or are of mixed types, or an index lies outside the
        catalogue.
    """
    if users is None:
        return None
    try:
        table = _as_table(users)
        if table is None:
            raise ValueError(f"is a {type(users).__name__}; expected a DataFrame with user_id and history")
        if ITEM_ROWS in table.column_names:
            raise ValueError(f"has a column {ITEM_ROWS}, as the file names the history; expected another name")
        check_users(table, n_items)
    except (pa.ArrowException, TypeError) as error:
        raise ParameterError(f"users cannot be stored: {_one_line(error)}; expected ids of one type") from None
    except ValueError as error:
        raise ParameterError(f"users {error}") from None
    return table


def check_items(table: pa.Table, n_items: int) -> None:
    """Raise `ValueError`, whose message continues a sentence about the items, unless they can belong to a model."""
    if len(table) != n_items or "item_id" not in table.column_names:
        raise ValueError(f"has {len(table):,} rows; expected {n_items:,}, one for each item, with an item_id")
    _check_names(table)
    _check_ids(table["item_id"], "item_id")


def check_users(table: pa.Table, n_items: int) -> None:
    """Raise `ValueError`, whose message continues a sentence about the users, unless all are sound.

    Every index of every history is checked: one outside the catalogue would be read beyond the end of the weights.
    """
    if not {"user_id", "history"} <= set(table.column_names):
        raise ValueError(f"has columns {', '.join(table.column_names)}; expected user_id and history")
    _check_names(table)
    _check_ids(table["user_id"], "user_id")
    history = table["history"]
    kind = history.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not (
        pa.types.is_integer(kind.value_type) or pa.types.is_null(kind.value_type)
    ):
        raise ValueError(f"has a column history of {kind}; expected lists of item indices")
    if history.null_count:
        raise ValueError(f"has {history.null_count:,} missing histories; expected a list for each user, empty or not")
    if "weights" in table.column_names:
        _check_weights(table["weights"], history)
    for chunk in history.chunks:
        indices = chunk.flatten()
        if indices.null_count:
            raise ValueError("has a history with a missing item index; expected whole numbers")
        bounds = pc.min_max(indices)
        for index in (bounds["min"].as_py(), bounds["max"].as_py()) if len(indices) else ():
            if not 0 <= index < n_items:
                raise ValueError(f"has a history with item index {index}; expected 0 to {n_items - 1:,}")


def _check_weights(weights: pa.ChunkedArray, history: pa.ChunkedArray) -> None:
    kind = weights.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"has a column weights of {kind}; expected lists of numbers")
    lengths = (pc.fill_null(pc.list_value_length(column), 0) for column in (weights, history))
    if weights.null_count or not pc.all(pc.equal(*lengths), min_count=0).as_py():
        raise ValueError("has weights of another number than its history; expected one for each item")
    for chunk in weights.chunks:
        values = chunk.flatten()
        sound = pc.and_(pc.greater(values, 0), pc.is_finite(values))
        if values.null_count or not pc.all(sound, min_count=0).as_py():
            raise ValueError("has weights that are not above 0; expected finite numbers above 0")


def read_table(file: Path, n_rows: int | None = None) -> pa.Table:
    """Read a Parquet file whole, unless it would need far more memory than a file of its size should.

    Compression and dictionaries let a file of a megabyte hold gigabytes of repeated values. So the numbers of rows and
    values are read from the file's metadata first, and texts as dictionaries, whose full size is known before they are
    expanded.

    Parameters
    ----------
    n_rows : int, optional
        Refuse any other number of rows before reading them.

    Raises
    ------
    ArtifactError
        If it is not readable, or too large.
    """
    limit = BYTES_FOR_ANY_FILE + BYTES_FOR_EACH_BYTE * file.stat().st_size
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:  # pyarrow.parquet.read_table would import pandas
            metadata = opened.metadata
            if n_rows is not None and metadata.num_rows != n_rows:
                raise ArtifactError(f"{file} has {metadata.num_rows:,} rows; expected {n_rows:,}, one for each item")
            _refuse_larger(file, _count_bytes(metadata), limit)
            texts = [c.path for c in map(metadata.schema.column, range(metadata.num_columns)) if _is_text(c)]
        with pyarrow.parquet.ParquetFile(file, read_dictionary=texts) as opened:
            table = opened.read()
        expanded = 0
        for i, name in enumerate(table.column_names):
            column = table.column(i)
            if pa.types.is_dictionary(column.type):
                expanded += _count_text_bytes(column)
                _refuse_larger(file, expanded, limit)
                table = table.set_column(i, name, column.cast(column.type.value_type))
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{file} is not readable: {_one_line(error)}") from None
    return table


def _refuse_larger(file: Path, n_bytes: int, limit: int) -> None:
    if n_bytes > limit:
        size = file.stat().st_size
        raise ArtifactError(f"{file}, of {size:,} bytes, holds {n_bytes:,} bytes of values; expected at most {limit:,}")


def _count_bytes(metadata: Any) -> int:
    """Bytes that a file's values need at least, by its metadata: 4 or 8 a value, and texts as they are stored."""
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            width = {"INT32": 4, "FLOAT": 4, "BYTE_ARRAY": 4}.get(chunk.physical_type, 8)
            total += chunk.num_values * width
            total += chunk.total_uncompressed_size if chunk.physical_type == "BYTE_ARRAY" else 0
    return total


def _is_text(column: Any) -> bool:
    """Check that a column of a Parquet schema holds texts, and not in lists."""
    return column.physical_type == "BYTE_ARRAY" and "." not in column.path


def _count_text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a column of dictionaries when every value is written out."""
    total = 0
    for chunk in column.chunks:
        lengths = pc.cast(pc.binary_length(chunk.dictionary), pa.int64())
        total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _as_table(given: Any) -> pa.Table | None:
    """A DataFrame, or any table with Arrow's stream interface, as a table of plain types; None for anything else."""
    if type(given).__module__.startswith("pandas.") and hasattr(given, "columns"):
        table = pa.Table.from_pandas(given, preserve_index=False)
    elif hasattr(given, "__arrow_c_stream__"):
        values = pa.chunked_array(given)
        if not pa.types.is_struct(values.type):  # a column, such as a Series
            return None
        table = pa.Table.from_struct_array(values)
    else:
        return None
    for i, name in enumerate(table.column_names):
        table = table.set_column(i, name, _as_plain(table.column(i)))
    return table


def _as_plain(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Categories as their values, and views of texts, which Arrow can neither count nor compare, as texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        chunks = [_as_plain(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
        return pa.chunked_array(chunks, None if chunks else kind.value_type)
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_string_view(kind.value_type):
        return column.cast(pa.large_list(pa.large_string()))
    return column


def _check_names(table: pa.Table) -> None:
    if repeated := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise ValueError(f"has the column {repeated[0]!r} {len(repeated)} times; expected every name once")


def _check_ids(column: pa.ChunkedArray, name: str) -> None:
    missing = column.null_count
    if pa.types.is_floating(column.type):
        missing += pc.sum(pc.is_nan(column)).as_py() or 0
    if missing:
        raise ValueError(f"has {missing:,} rows without {name}; expected an id in each")
    if pc.count_distinct(column).as_py() != len(column):
        counts = pc.value_counts(column.combine_chunks())
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0]
        raise ValueError(f"has {name} {repeated} more than once; expected every id once")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
