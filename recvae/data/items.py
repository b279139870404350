"""Tables of items: titles and other columns for the items of a catalogue."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from recvae.data.delimited import DelimitedText, check_file, trim
from recvae.data.ids import make_whole
from recvae.data.readers import decode_texts, is_json_lines, read_json_lines, unreadable_parquet
from recvae.errors import DataError

_CODE = r"^\s*[-+]?0\d"


def read_items(source: str | Path, id_column: str = "item_id") -> pd.DataFrame:
    """Read a table of items from a CSV, TSV, JSON lines or Parquet file; text may be compressed, `.gz` or `.zst`.

    Parameters
    ----------
    source : path
    id_column : str
        Name of the column of ids, if the file has it; else the ids are in `item_id`.

    Returns
    -------
    DataFrame with `item_id`, and every other column of the file that has a name, such as `title`. Ids of delimited text
    are text; see `match_items`.

    Raises
    ------
    DataError
        If the file cannot be read, has no such column or two of a name, or an id is missing or there twice.
    """
    path = Path(source)
    check_file(path, "items")
    if path.suffix.lower() == ".parquet":
        table = _read_parquet(path, id_column)
    elif is_json_lines(path):
        table = read_json_lines(path, {id_column, "item_id", "title"})
        table = table.rename_columns(list(_map_names(table.column_names, id_column, path).values()))
    else:
        table = _read_text(path, id_column)
    items: pd.DataFrame = table.to_pandas()
    items["item_id"] = check_item_ids(items["item_id"], str(path))
    return items


def check_item_ids(column: pd.Series, where: str) -> pd.Index:
    """Make the ids of a table of items whole numbers, if all are; `DataError` if one is missing or there twice."""
    if column.isna().any():
        raise DataError(f"{where}: item_id is missing in {column.isna().sum():,} rows")
    ids = make_whole(pd.Index(column), f"{where}: item_id")
    if (repeated := ids[ids.duplicated()]).size:
        raise DataError(f"{where} has item_id {repeated.tolist()[0]!r} more than once; expected a row for each item")
    return ids


def match_items(items: pd.DataFrame, item_ids: pd.Index) -> tuple[pd.DataFrame, str]:
    """Find the rows of a catalogue's items, and convert their ids to the catalogue's type.

    Returns
    -------
    (items, note)
        The rows whose `item_id` is in `item_ids`, and a line for people that counts the others.

    Raises
    ------
    DataError
        If no item of the table is in the catalogue.
    """
    ids = items["item_id"]
    if pd.api.types.is_numeric_dtype(ids.dtype) == pd.api.types.is_numeric_dtype(item_ids.dtype):
        places = item_ids.get_indexer(pd.Index(ids))
    else:  # the text of a number is the number, however large: 007 is not 7
        places = item_ids.astype("str").get_indexer(pd.Index(ids.astype("str")))
    known = places >= 0
    found = items[known].assign(item_id=item_ids[places[known]])
    if found.empty:
        examples = f": {ids.tolist()[0]!r} here, {item_ids.tolist()[0]!r} there" if len(ids) else ""
        raise DataError(f"items has {len(ids):,} rows, none of an item of the training data{examples}")
    note = f"items: {', '.join(map(str, items.columns))} of {len(found):,} of {len(item_ids):,} items"
    if missing := len(item_ids) - len(found):
        note += f"; {missing:,} items have no row"
    if surplus := len(ids) - len(found):
        note += f"; {surplus:,} rows are of other items"
    return found, note


def _map_names(names: list[str], id_column: str, path: Path) -> dict[str, str]:
    """Map the column of ids to `item_id`, and every other column to its own name."""
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{path} has several columns named {min(repeated)!r}; expected one")
    column = id_column if id_column in names else "item_id"
    if column not in names:
        raise DataError(f"{path} has no column {id_column!r}; it has: {', '.join(names)}")
    if column != "item_id" and "item_id" in names:
        raise DataError(f"{path} has columns {column!r} and 'item_id'; expected one column of ids")
    return {name: "item_id" if name == column else name for name in names}


def _read_text(path: Path, id_column: str) -> pa.Table:
    text = DelimitedText.open(path, None)
    # By these names ids and titles stay text, as they are written: 007 is not 7, and 1984 a title.
    named = [name for name in text.header if name]  # rows of a spreadsheet may end in columns without a name
    text = replace(text, mapping=_map_names(named, id_column, path))
    table = text.read()
    texts = {name: table[name] for name in ("item_id", "title") if name in table.column_names}
    for name, column in (texts | _read_codes(text, table)).items():
        table = table.set_column(table.schema.get_field_index(name), name, trim(column, [""]))
    return table


def _read_codes(text: DelimitedText, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Read as text the columns of numbers of which one is written with a leading zero, as postal codes are."""
    numbers = [f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    if not numbers:
        return {}
    chosen = {given: name for given, name in text.mapping.items() if name in numbers}
    written = replace(text, mapping=chosen, texts=tuple(numbers)).read()
    return {
        name: written[name]
        for name in numbers
        if pa.compute.any(pa.compute.match_substring_regex(written[name], _CODE)).as_py()
    }


def _read_parquet(path: Path, id_column: str) -> pa.Table:
    try:
        table = decode_texts(pa.parquet.read_table(path))
        return table.rename_columns(list(_map_names(table.column_names, id_column, path).values()))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_parquet(path, error) from None
