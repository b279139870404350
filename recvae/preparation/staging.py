"""A ratings file rewritten as Parquet with its rows numbered, for engines: a batch at a time.

Engines read files in any order and by rules of their own. Staging keeps the order of the rows, and reads ids, numbers
and dates by the rules of `recvae.data.readers`, so that an engine comes to the same result as memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from recvae.data.columns import Columns, DescribeRow, parse_dates, parse_ratings
from recvae.data.delimited import DelimitedText, parse_whole_numbers
from recvae.data.readers import convert_values, is_json_lines, is_text, unreadable_parquet
from recvae.errors import DataError

_ROWS_A_BATCH = 1 << 18
_NUMBERS = [pa.int64(), pa.float64()]
# Types that Arrow's CSV reader guesses for a column of dates, in its order; the last is its guess for all other text.
_DATES = [pa.date32(), pa.timestamp("s"), pa.timestamp("s", "UTC"), pa.timestamp("ns"), pa.timestamp("ns", "UTC")]
_TEXT = pa.string()

Candidates = dict[str, list[pa.DataType]]


@dataclass
class StagedFile:
    """A file that was staged: columns as text or numbers, and `row`.

    Attributes
    ----------
    path : Path
    n_rows : int
    numbers : dict of str to str
        Text columns that hold numbers only → the type to cast them to.
    timestamp_unit : str, optional
        "s", "ms", "us" or "ns" where timestamps are dates, staged as their int64 number of units since 1970 in UTC.
    """

    path: Path
    n_rows: int = 0
    numbers: dict[str, str] = field(default_factory=dict)
    timestamp_unit: str | None = None


def stage(source: Path, columns: Columns, target: Path) -> StagedFile:
    """Write the rows of a CSV, TSV or Parquet file to the Parquet file `target`, in their order.

    Raises
    ------
    DataError
        As `recvae.data.readers.read_table` and `Interactions.from_frame` do; the message names the line.
    """
    if is_json_lines(source):
        raise DataError(f"{source} is JSON lines, which are read in memory: leave out the backend, or convert them")
    staged = StagedFile(target)
    text = None if source.suffix.lower() == ".parquet" else DelimitedText.open(source, columns)
    batches = _read_parquet(source, columns, staged) if text is None else text.stream()
    describe_row = (lambda row: f"{source} row {row + 1}") if text is None else text.describe_row
    # The type of a text column is known only after its last row, so all types that fit so far are kept.
    candidates: Candidates = {"timestamp": [*_NUMBERS, _TEXT]}
    if text is not None:
        candidates = {"user_id": [pa.int64()], "item_id": [pa.int64()], "timestamp": [*_NUMBERS, *_DATES, _TEXT]}
    try:
        first = next(batches, None)
        if first is None:
            raise DataError(f"{source} has no rows")
        numbered = _number_rows(chain([first], batches), staged, candidates, describe_row)
        with pa.parquet.ParquetWriter(target, _add_row_number(first.schema)) as writer:
            for batch in numbered:
                writer.write_batch(batch)
    except pa.ArrowInvalid as error:
        raise DataError(text.explain(error) if text else f"{source} cannot be staged: {error}") from None
    if not staged.n_rows:
        raise DataError(f"{source} has no rows")
    found = {name: candidates[name][0] for name in candidates if candidates[name] and _is_text(first, name)}
    staged.numbers = {name: str(kind) for name, kind in found.items() if kind in _NUMBERS}
    if "timestamp" in found and "timestamp" not in staged.numbers:
        _replace_dates(staged, found["timestamp"], describe_row)
    return staged


def _is_text(batch: pa.RecordBatch, name: str) -> bool:
    return name in batch.schema.names and is_text(batch.schema.field(name).type)


def _add_row_number(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field("row", pa.int64()))


def _read_parquet(source: Path, columns: Columns, staged: StagedFile) -> Iterator[pa.RecordBatch]:
    try:
        with pa.parquet.ParquetFile(source) as file:
            mapping = columns.map_names(file.schema_arrow.names, str(source))
            for batch in file.iter_batches(_ROWS_A_BATCH, columns=list(mapping)):
                named = batch.rename_columns([mapping[name] for name in batch.schema.names])
                yield _count_dates(convert_values(named, source), staged)
    except (pa.ArrowException, OSError) as error:
        raise unreadable_parquet(source, error) from None


def _count_dates(batch: pa.RecordBatch, staged: StagedFile) -> pa.RecordBatch:
    """Replace timestamps, if they are dates, by numbers; sets their unit."""
    position = batch.schema.get_field_index("timestamp")
    if position < 0 or not _is_date(batch.schema.types[position]):
        return batch
    staged.timestamp_unit = _unit(batch.schema.types[position])
    return batch.set_column(position, "timestamp", _count_units(batch.column(position), staged.timestamp_unit))


def _is_date(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _number_rows(
    batches: Iterable[pa.RecordBatch],
    staged: StagedFile,
    candidates: Candidates,
    describe_row: DescribeRow,
) -> Iterator[pa.RecordBatch]:
    """Check each batch, add its rows' numbers, and remove the candidate types that its texts do not fit."""
    for batch in batches:
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name != "timestamp" and array.null_count:
                row = staged.n_rows + array.is_null().index(True).as_py()
                raise DataError(f"{describe_row(row)}: {name} is missing")
            if name == "rating":
                parse_ratings(array.to_pandas(), lambda row: describe_row(staged.n_rows + row))
            if candidates.get(name) and is_text(array.type):
                candidates[name] = [kind for kind in candidates[name] if _fits(array, name, kind)]
        row = pa.array(range(staged.n_rows, staged.n_rows + len(batch)), pa.int64())
        staged.n_rows += len(batch)
        yield pa.RecordBatch.from_arrays([*batch.columns, row], schema=_add_row_number(batch.schema))


def _fits(texts: pa.Array, name: str, kind: pa.DataType) -> bool:
    try:
        if name == "timestamp":
            texts.cast(kind)
        else:
            parse_whole_numbers(texts)
    except pa.ArrowInvalid:
        return False
    return True


def _replace_dates(staged: StagedFile, kind: pa.DataType, describe_row: DescribeRow) -> None:
    """Replace timestamps, texts that all fit `kind`, by numbers; sets the unit that reading into memory gives them."""
    staged.timestamp_unit = _unit(kind)
    if kind == _TEXT:  # pandas parses these in memory, and takes nanoseconds only where there are any
        units = {_parse_text(batch, describe_row).dt.unit for batch in _iter_batches(staged.path, ["timestamp", "row"])}
        staged.timestamp_unit = "ns" if "ns" in units else "us"
    target = staged.path.with_name(f"dated.{staged.path.name}")
    with pa.parquet.ParquetFile(staged.path) as file:
        schema = file.schema_arrow
    position = schema.get_field_index("timestamp")
    with pa.parquet.ParquetWriter(target, schema.set(position, pa.field("timestamp", pa.int64()))) as writer:
        for batch in _iter_batches(staged.path):
            if kind == _TEXT:
                dates = pa.array(_parse_text(batch, describe_row).dt.as_unit(staged.timestamp_unit))
            else:
                dates = batch["timestamp"].cast(kind)
            numbers = _count_units(dates, staged.timestamp_unit)
            writer.write_batch(batch.set_column(position, "timestamp", numbers))
    staged.path = target


def _unit(kind: pa.DataType) -> str:
    """Choose the unit that timestamps of a type have in memory: their own; microseconds for days and for text."""
    return str(kind.unit) if pa.types.is_timestamp(kind) else "us"


def _count_units(dates: pa.Array, unit: str) -> pa.Array:
    return dates.cast(pa.timestamp(unit, getattr(dates.type, "tz", None))).cast(pa.int64())


def _parse_text(batch: pa.RecordBatch, describe_row: DescribeRow) -> pd.Series:
    return parse_dates(batch["timestamp"].to_pandas(), lambda place: describe_row(batch["row"][place].as_py()))


def _iter_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    with pa.parquet.ParquetFile(path) as file:
        yield from file.iter_batches(_ROWS_A_BATCH, columns=columns)
