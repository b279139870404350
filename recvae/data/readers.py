"""Readers of interaction tables: text, JSON lines, Parquet, lists of items; messages name the line that is wrong."""

import contextlib
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet

from recvae.data.columns import Columns, DescribeRow, parse_ratings, parse_timestamps, parse_weights
from recvae.data.delimited import (
    COMPRESSED,
    JSON_LINES,
    NO_NUMBER,
    WHOLE_NUMBER,
    DelimitedText,
    parse_ids,
    trim,
    unpack,
)
from recvae.errors import LARGEST, DataError, first_line

DEEPEST = 200
"""Levels that are read; Arrow crashes from some thousands on."""
LONGEST_ROW = 2**24
"""Bytes of one object, at most."""
_GAP = 100
"""Bytes between two rows, at most; with more, they are taken for one."""
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)
_NEWLINE, _SPACE, _BRACKET, _BRACE, _END = b"\n [{}"
_JSON_FAULT = re.compile(r"JSON parse error: (.*) in row (\d+)")
_PARSERS = {"rating": parse_ratings, "weight": parse_weights, "timestamp": parse_timestamps}


def read_table(source: str | Path, columns: Columns | None = None) -> pd.DataFrame:
    """Read interactions from a CSV, TSV, JSON lines or Parquet file, or from standard input (`-`, CSV or TSV).

    Parameters
    ----------
    source : path or "-"
        A file whose name ends in `.parquet` is Parquet, one in `.jsonl` or `.ndjson` JSON lines; text may be
        compressed, `.gz` or `.zst`. Of any other file the columns are divided by the comma, tab, semicolon or bar,
        whichever the header line has most of.
    columns : Columns, optional
        The file's column names.

    Returns
    -------
    DataFrame with `user_id`, `item_id` and, where the file has them, `rating` (float64) and `timestamp` (numbers, or
    datetime64 in UTC), in the order of the file's rows. Ids of delimited text are integers when all of a column's are
    written as integers, else text, so that `007` and `7` stay two ids.

    Raises
    ------
    DataError
        For a missing or empty file, a missing column, a missing id or a value of the wrong kind; the message names the
        line, or the row, counted from 1, of a file that is not text.
    """
    columns = columns or Columns()
    if str(source) == "-":
        return read_delimited(sys.stdin.buffer.read(), columns, where="standard input")
    path = Path(source)
    if path.is_dir() or not path.exists():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'missing'}; expected a ratings file")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, columns)
    if is_json_lines(path):
        return _finish(read_json_lines(path, (columns.user, columns.item)), columns, path)
    return read_delimited(path, columns)


def read_delimited(
    source: Path | bytes,
    columns: Columns,
    *,
    delimiter: str | None = None,
    names: list[str] | None = None,
    where: str | None = None,
) -> pd.DataFrame:
    """Read delimited text with `names` as its header, or its first line when `names` is None; see `read_table`."""
    text = DelimitedText.open(source, columns, delimiter, names, where)
    table = text.read()
    for position, name in enumerate(table.column_names):
        if name in ("user_id", "item_id"):
            table = table.set_column(position, name, parse_ids(table[name]))
    if missing := _find_missing(table):
        name, row = missing
        raise DataError(f"{text.describe_row(row)}: {name} is missing ({table[name].null_count} such rows)")
    return _to_frame(table, text.where, text.describe_row)


def read_lists(path: Path) -> pd.DataFrame:
    """Read lines of `user item item …` into rows of `user_id` and `item_id`, in the file's order.

    Ids become integers when all of them are written as integers; a user without items gives no rows.

    Raises
    ------
    DataError
        If the file is missing, no UTF-8 text, or names no item.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected lines of 'user item item …'") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error.reason} at byte {error.start}") from None
    users = pd.Series([line[0] for line in lines for _ in line[1:]], dtype="str")
    items = pd.Series([item for line in lines for item in line[1:]], dtype="str")
    if items.empty:
        raise DataError(f"{path} is empty; expected lines of 'user item item …'")
    return pd.DataFrame({"user_id": _to_integers(users), "item_id": _to_integers(items)})


def is_json_lines(path: Path) -> bool:
    """Check by its name whether a file is JSON lines, compressed or not."""
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return plain.suffix.lower() in JSON_LINES


def read_json_lines(path: Path, texts: Collection[str]) -> pa.Table:
    """Read JSON lines: an object a line, with the names of the columns.

    Parameters
    ----------
    path : Path
    texts : collection of str
        Columns whose texts stay as they are written, though they look like dates.

    Raises
    ------
    DataError
        If the file is missing, empty or damaged, a line is no such object, a column changes its type, or values are
        nested very deep.
    """
    try:
        refuse_deep(path)
        table = _read_json(path, pa.schema([]))
        dates = [field.name for field in table.schema if field.name in texts and pa.types.is_timestamp(field.type)]
        if dates:
            names = table.column_names
            table = _read_json(path, pa.schema([(name, pa.string()) for name in dates])).select(names)
        table.validate(full=True)  # Arrow's reader takes text in any encoding
        return table
    except (pa.ArrowException, OSError) as error:
        found = _find_json_fault(path) if _JSON_FAULT.fullmatch(str(error)) else None
        raise DataError(found or f"{path} is not readable as JSON lines: {first_line(error)}") from None


def _read_json(path: Path, kinds: pa.Schema) -> pa.Table:
    with unpack(path) as stream:
        return pa.json.read_json(stream, parse_options=pa.json.ParseOptions(explicit_schema=kinds))


def _find_json_fault(path: Path) -> str | None:
    """Describe the first wrong row; the file is read again, as one block, because Arrow counts anew in each."""
    with unpack(path) as stream:
        content = stream.read()
    try:
        pa.json.read_json(pa.BufferReader(content), pa.json.ReadOptions(block_size=min(len(content) + 1, LARGEST)))
    except pa.ArrowInvalid as error:
        if found := _JSON_FAULT.fullmatch(str(error)):
            row, fault = int(found[2]) + 1, found[1].rstrip(".")
            return f"{path} row {row}: {fault}; expected an object a line, and values of one type in each column"
    return None


def refuse_deep(path: Path) -> None:
    """Raise `DataError` if values in JSON lines are nested deeper than `DEEPEST`.

    Rows end where } ends a line and { begins the next: no text goes over the end of a line, and nothing that is open
    may go on like that. Brackets are matched only in rows that have many.
    """
    rest = b""
    with unpack(path) as stream:
        while read := stream.read(LONGEST_ROW):
            block = rest + read
            codes = np.frombuffer(block, dtype=np.uint8)
            opening = np.flatnonzero((codes == _BRACKET) | (codes == _BRACE))
            starts = [0, *_find_rows(block, codes, opening), len(block)]
            for row in np.flatnonzero(np.diff(np.searchsorted(opening, starts)) > DEEPEST):
                _match_brackets(block[starts[row] : starts[row + 1]], path)
            rest = block[starts[-2] :]
            if len(rest) > LONGEST_ROW:
                raise DataError(f"{path} has a row of more than {LONGEST_ROW:,} bytes; expected an object a line")


def _find_rows(block: bytes, codes: npt.NDArray[np.uint8], opening: npt.NDArray[np.intp]) -> list[int]:
    """Find where rows begin, but for the first of the block."""
    braces = opening[(codes[opening] == _BRACE) & (opening > 1)]
    braces = braces[codes[braces - 1] <= _SPACE]
    usual = (codes[braces - 1] == _NEWLINE) & (codes[braces - 2] == _END)
    found: list[int] = braces[usual].tolist()
    for place in braces[~usual].tolist():  # blank lines, spaces, line ends of Windows
        gap = block[max(0, place - _GAP) : place]
        before = gap.rstrip()
        if before.endswith(b"}") and b"\n" in gap[len(before) :]:
            found.append(place)
    return sorted(found)


def _match_brackets(text: bytes, path: Path) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += bool(token[1]) - bool(token[2])
        if depth > DEEPEST:
            raise DataError(f"{path} has values nested deeper than {DEEPEST} levels; expected an object a line")


def _read_parquet(path: Path, columns: Columns) -> pd.DataFrame:
    try:
        mapping = columns.map_names(pa.parquet.read_schema(path).names, str(path))
        table = pa.parquet.read_table(path, columns=list(mapping))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_parquet(path, error) from None
    return _finish(table, columns, path)


def unreadable_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable Parquet file: {first_line(error)}")


def _finish(table: pa.Table, columns: Columns, path: Path) -> pd.DataFrame:
    """Check a table of a file that has types of its own, and give its columns their names."""
    mapping = columns.map_names(table.column_names, str(path))
    table = table.select(list(mapping))
    table = table.rename_columns([mapping[name] for name in table.column_names])
    table = convert_values(table, path)
    if missing := _find_missing(table):
        name, row = missing
        raise DataError(f"{path} row {row + 1}: {name} is missing ({table[name].null_count} such rows)")
    return _to_frame(table, str(path), lambda row: f"{path} row {row + 1}")


def convert_values(rows: Any, path: Path) -> Any:
    """Convert ratings and weights to float64, and trim text timestamps, in a table or batch of a file with types.

    Bytes that are text become text, and decimals as timestamps int64, or float64 if they have fractions.

    Raises
    ------
    DataError
        If ids are lists or the like, ratings or weights are no numbers, or timestamps larger than an int64.
    """
    rows = decode_texts(rows)
    for position, (name, kind) in enumerate(zip(rows.schema.names, rows.schema.types, strict=True)):
        if name in ("user_id", "item_id") and pa.types.is_nested(kind):
            raise DataError(f"{path}: {name} has values of type {kind}; expected numbers or text")
        decimal = name == "timestamp" and pa.types.is_decimal(kind)
        if name in ("rating", "weight") or decimal:
            number = pa.int64() if decimal and kind.scale <= 0 else pa.float64()
            try:
                rows = rows.set_column(position, name, rows[name].cast(number))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise DataError(f"{path}: {name} has values of type {kind}; expected numbers") from None
        elif name == "timestamp" and is_text(kind):
            texts = rows[name].cast(pa.large_string()) if pa.types.is_string_view(kind) else rows[name]
            rows = rows.set_column(position, name, trim(texts, NO_NUMBER))
    return rows


def decode_texts(rows: Any) -> Any:
    """Make text of columns of bytes that are UTF-8: some writers of Parquet, such as Impala, do not mark texts."""
    for position, (name, kind) in enumerate(zip(rows.schema.names, rows.schema.types, strict=True)):
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            with contextlib.suppress(pa.ArrowInvalid):
                rows = rows.set_column(position, name, rows[name].cast(pa.string()))
    return rows


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _find_missing(table: pa.Table) -> tuple[str, int] | None:
    """Find the first column, and its first row, in which a value is missing that must be there."""
    for name in ("user_id", "item_id", "rating", "weight", "event"):
        if name in table.column_names and table[name].null_count:
            return name, table[name].is_null().index(True).as_py()
    return None


def _to_frame(table: pa.Table, where: str, describe_row: DescribeRow) -> pd.DataFrame:
    if table.num_rows == 0:
        raise DataError(f"{where} has no rows")
    frame: pd.DataFrame = table.to_pandas(self_destruct=True, split_blocks=True)
    for name, parse in _PARSERS.items():
        if name in frame:
            frame[name] = parse(frame[name], describe_row)
    return frame


def _to_integers(ids: pd.Series) -> pd.Series:
    return ids.astype("int64") if ids.str.match(WHOLE_NUMBER).all() else ids
