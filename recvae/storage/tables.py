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


def make_item_table(items: "pd.DataFrame | pa.Table | Iterable[Any] | None", n_items: int) -> pa.Table:
    """Make the item table of an artifact.

    Parameters
    ----------
    items : table with a column `item_id`, or ids
        One row or id for each item index; indices serve as ids when None. A table is a DataFrame of pandas or
        anything that has Arrow's stream interface.

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
            table = pa.table({"item_id": pa.array(list(items), from_pandas=True)})
        check_items(table, n_items)
    except (pa.ArrowException, TypeError) as error:
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
    _check_ids(table["item_id"], "item_id")


def check_users(table: pa.Table, n_items: int) -> None:
    """Raise `ValueError`, whose message continues a sentence about the users, unless all are sound.

    Every index of every history is checked: one outside the catalogue would be read beyond the end of the weights.
    """
    if not {"user_id", "history"} <= set(table.column_names):
        raise ValueError(f"has columns {', '.join(table.column_names)}; expected user_id and history")
    _check_ids(table["user_id"], "user_id")
    history = table["history"]
    kind = history.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not (
        pa.types.is_integer(kind.value_type) or pa.types.is_null(kind.value_type)
    ):
        raise ValueError(f"has a column history of {kind}; expected lists of item indices")
    if history.null_count:
        raise ValueError(f"has {history.null_count:,} missing histories; expected a list for each user, empty or not")
    for chunk in history.chunks:
        indices = chunk.flatten()
        if indices.null_count:
            raise ValueError("has a history with a missing item index; expected whole numbers")
        bounds = pc.min_max(indices)
        for index in (bounds["min"].as_py(), bounds["max"].as_py()) if len(indices) else ():
            if not 0 <= index < n_items:
                raise ValueError(f"has a history with item index {index}; expected 0 to {n_items - 1:,}")


def read_table(file: Path) -> pa.Table:
    """Read a Parquet file whole.

    Raises
    ------
    ArtifactError
        If it is not readable.
    """
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:  # pyarrow.parquet.read_table would import pandas
            table = opened.read()
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{file} is not readable: {_one_line(error)}") from None
    return table


def _as_table(frame: Any) -> pa.Table | None:
    """A DataFrame, or anything with Arrow's stream interface, as a table; None for anything else."""
    if type(frame).__module__.startswith("pandas.") and hasattr(frame, "columns"):
        return pa.Table.from_pandas(frame, preserve_index=False)
    return pa.table(frame) if hasattr(frame, "__arrow_c_stream__") else None


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
