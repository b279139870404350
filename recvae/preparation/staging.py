"""A ratings file as Parquet with its rows numbered, for engines: one pass, a batch at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from recvae.data.readers import Columns, Delimited, whole_numbers
from recvae.errors import DataError

_ROWS_A_BATCH = 1 << 18


@dataclass
class Staged:
    """A staged file: columns as text or numbers, and `row`.

    Attributes
    ----------
    path : Path
    n_rows : int
    numbers : dict of str to str
        Columns of text that hold nothing but numbers → their type.
    """

    path: Path
    n_rows: int = 0
    numbers: dict[str, str] = field(default_factory=dict)


def stage(source: Path, columns: Columns, target: Path) -> Staged:
    """Write the rows of a CSV, TSV or Parquet file to `target` in their order, as `read_table` reads them.

    Raises
    ------
    DataError
        As `read_table` does; the message names the line.
    """
    staged = Staged(target)
    text = None if source.suffix.lower() == ".parquet" else Delimited.of(source, columns)
    batches = _parquet(source, columns) if text is None else _delimited(text)
    where = (lambda row: f"{source} row {row}") if text is None else text.line
    candidates = {} if text is None else {"user_id": ["int64"], "item_id": ["int64"], "timestamp": ["int64", "float64"]}
    try:
        first = next(batches, None)
        if first is None:
            raise DataError(f"{source} has no rows")
        numbered = _numbered(chain([first], batches), staged, candidates, where)
        with pa.parquet.ParquetWriter(target, _schema(first.schema)) as writer:
            for batch in numbered:
                writer.write_batch(batch)
    except pa.ArrowInvalid as error:
        raise DataError(
            text.explained(error) if text else f"{source} is not a readable Parquet file: {error}"
        ) from None
    if not staged.n_rows:
        raise DataError(f"{source} has no rows")
    read = set(first.schema.names) & set(candidates)
    staged.numbers = {name: candidates[name][0] for name in sorted(read) if candidates[name]}
    if "timestamp" in read and "timestamp" not in staged.numbers:
        raise DataError(
            f"{source}: timestamp holds what is no number; expected seconds, or no backend for dates as text"
        )
    return staged


def _schema(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field("row", pa.int64()))


def _delimited(text: Delimited) -> Iterator[pa.RecordBatch]:
    for batch in text.stream():
        arrays = {text.mapping[name]: _trimmed(batch[name]) for name in batch.schema.names}
        yield pa.RecordBatch.from_pydict(arrays)


def _parquet(source: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    with pa.parquet.ParquetFile(source) as file:
        mapping = columns.present(file.schema_arrow.names, str(source))
        for batch in file.iter_batches(_ROWS_A_BATCH, columns=list(mapping)):
            yield batch.rename_columns([mapping[name] for name in batch.schema.names])


def _numbered(
    batches: Iterable[pa.RecordBatch], staged: Staged, candidates: dict[str, list[str]], where: Any
) -> Iterator[pa.RecordBatch]:
    """Each batch checked and with its rows' numbers; strikes out the types that its texts do not fit."""
    for batch in batches:
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name != "timestamp" and array.null_count:
                row = staged.n_rows + array.is_null().index(True).as_py()
                raise DataError(f"{where(row)}: {name} is missing")
            if candidates.get(name) and array.type == pa.string():
                candidates[name] = [kind for kind in candidates[name] if _fits(array, name, kind)]
        row = pa.array(range(staged.n_rows, staged.n_rows + len(batch)), pa.int64())
        staged.n_rows += len(batch)
        yield pa.RecordBatch.from_arrays([*batch.columns, row], schema=_schema(batch.schema))


def _trimmed(array: pa.Array) -> pa.Array:
    if array.type != pa.string():
        return array
    trimmed = pa.compute.utf8_trim_whitespace(array)
    return pa.compute.if_else(pa.compute.equal(trimmed, ""), None, trimmed)


def _fits(texts: pa.Array, name: str, kind: str) -> bool:
    try:
        if name == "timestamp":
            texts.cast(kind)
        else:
            whole_numbers(texts)
    except pa.ArrowInvalid:
        return False
    return True
