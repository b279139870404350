"""A ratings file rewritten as Parquet with its rows numbered, for engines: in one pass, a batch at a time.

Engines read files in any order and by rules of their own. Staging keeps the order of the rows, and reads ids and
numbers by the rules of `recvae.data.readers`, so that an engine comes to the same result as memory.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from recvae.data.columns import Columns
from recvae.data.delimited import DelimitedText, parse_whole_numbers
from recvae.errors import DataError

_ROWS_A_BATCH = 1 << 18


@dataclass
class StagedFile:
    """A file that was staged: columns as text or numbers, and `row`.

    Attributes
    ----------
    path : Path
    n_rows : int
    numbers : dict of str to str
        Text columns that hold numbers only → the type to cast them to.
    """

    path: Path
    n_rows: int = 0
    numbers: dict[str, str] = field(default_factory=dict)


def stage(source: Path, columns: Columns, target: Path) -> StagedFile:
    """Write the rows of a CSV, TSV or Parquet file to the Parquet file `target`, in their order.

    Raises
    ------
    DataError
        As `recvae.data.readers.read_table` does; the message names the line.
    """
    staged = StagedFile(target)
    text = None if source.suffix.lower() == ".parquet" else DelimitedText.open(source, columns)
    batches = _read_parquet(source, columns) if text is None else _read_delimited(text)
    describe_row = (lambda row: f"{source} row {row}") if text is None else text.describe_row
    # A column's type is known only after its last row, so all types that fit so far are kept.
    candidates = {} if text is None else {"user_id": ["int64"], "item_id": ["int64"], "timestamp": ["int64", "float64"]}
    try:
        first = next(batches, None)
        if first is None:
            raise DataError(f"{source} has no rows")
        numbered = _number_rows(chain([first], batches), staged, candidates, describe_row)
        with pa.parquet.ParquetWriter(target, _add_row_number(first.schema)) as writer:
            for batch in numbered:
                writer.write_batch(batch)
    except pa.ArrowInvalid as error:
        raise DataError(text.explain(error) if text else f"{source} is not a readable Parquet file: {error}") from None
    if not staged.n_rows:
        raise DataError(f"{source} has no rows")
    read = set(first.schema.names) & set(candidates)
    staged.numbers = {name: candidates[name][0] for name in sorted(read) if candidates[name]}
    if "timestamp" in read and "timestamp" not in staged.numbers:
        raise DataError(
            f"{source}: timestamp holds what is no number; expected seconds, or no backend for dates as text"
        )
    return staged


def _add_row_number(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field("row", pa.int64()))


def _read_delimited(text: DelimitedText) -> Iterator[pa.RecordBatch]:
    for batch in text.stream():
        arrays = {text.mapping[name]: _trim(batch[name]) for name in batch.schema.names}
        yield pa.RecordBatch.from_pydict(arrays)


def _read_parquet(source: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    with pa.parquet.ParquetFile(source) as file:
        mapping = columns.map_names(file.schema_arrow.names, str(source))
        for batch in file.iter_batches(_ROWS_A_BATCH, columns=list(mapping)):
            yield batch.rename_columns([mapping[name] for name in batch.schema.names])


def _number_rows(
    batches: Iterable[pa.RecordBatch],
    staged: StagedFile,
    candidates: dict[str, list[str]],
    describe_row: Callable[[int], str],
) -> Iterator[pa.RecordBatch]:
    """Check each batch, add its rows' numbers, and remove the candidate types that its texts do not fit."""
    for batch in batches:
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name != "timestamp" and array.null_count:
                row = staged.n_rows + array.is_null().index(True).as_py()
                raise DataError(f"{describe_row(row)}: {name} is missing")
            if candidates.get(name) and array.type == pa.string():
                candidates[name] = [kind for kind in candidates[name] if _fits(array, name, kind)]
        row = pa.array(range(staged.n_rows, staged.n_rows + len(batch)), pa.int64())
        staged.n_rows += len(batch)
        yield pa.RecordBatch.from_arrays([*batch.columns, row], schema=_add_row_number(batch.schema))


def _trim(array: pa.Array) -> pa.Array:
    if array.type != pa.string():
        return array
    trimmed = pa.compute.utf8_trim_whitespace(array)
    return pa.compute.if_else(pa.compute.equal(trimmed, ""), None, trimmed)


def _fits(texts: pa.Array, name: str, kind: str) -> bool:
    try:
        if name == "timestamp":
            texts.cast(kind)
        else:
            parse_whole_numbers(texts)
    except pa.ArrowInvalid:
        return False
    return True
