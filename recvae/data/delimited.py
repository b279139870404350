"""Delimited text (CSV, TSV), also compressed; messages name the line on which the row begins that is wrong."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from recvae.data.columns import Columns
from recvae.errors import DataError, first_line

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
JSON_LINES = (".jsonl", ".ndjson")
NO_NUMBER = ["", "NaN", "nan", "NA"]  # a missing rating or timestamp
WHOLE_NUMBER = r"^(0|-?[1-9]\d{0,17})$"
_DELIMITERS = ",\t;|"
_LONGEST_NUMBER = 10**18
_BYTES_A_CHUNK = 1 << 18


@dataclass(frozen=True)
class DelimitedText:
    """Delimited text, and the format that its first line shows.

    Attributes
    ----------
    source : Path or bytes
    where : str
        The source's name in messages.
    delimiter : str
    header : list of str
    n_skipped : int
        Lines before the first row.
    mapping : dict of str to str
        The file's own names of the columns that are read → `user_id`, `item_id`, `rating`, `timestamp`.
    of_interactions : bool
        Whether `rating` and `weight` are numbers and `event` is text; in other tables they are what they look like.
    texts : tuple of str
        Columns, by the names that `mapping` gives, that are not guessed to be numbers or dates.
    """

    source: Path | bytes
    where: str
    delimiter: str
    header: list[str]
    n_skipped: int
    mapping: dict[str, str]
    of_interactions: bool = True
    texts: tuple[str, ...] = ("user_id", "item_id", "title")

    @classmethod
    def open(
        cls,
        source: Path | bytes,
        columns: Columns | None,
        delimiter: str | None = None,
        names: list[str] | None = None,
        where: str | None = None,
    ) -> Self:
        """Read the first line that is not blank: the header, unless `names` are given.

        Without `columns` every column is read, under its own name.

        Raises
        ------
        DataError
            For an unreadable or empty file, or a missing column.
        """
        where = where or str(source)
        try:
            number, head = _read_first_line(source)
        except OSError as error:
            raise _unreadable(where, error) from None
        if any(ord(character) < 32 and character != "\t" for character in head):
            raise DataError(
                f"{where} is not UTF-8 text of one row a line; "
                f"compressed files must end in {' or '.join(COMPRESSED)}, others be unpacked first"
            )
        if not head:
            raise DataError(f"{where} is empty; expected a header line and at least one row")
        if head.lstrip().startswith(('{"', "[{")) or head.strip() in ("{", "["):
            raise DataError(
                f"{where} is JSON; expected text with a header line, or JSON lines in a file that ends in "
                f"{' or '.join(JSON_LINES)}"
            )
        delimiter = delimiter or max(_DELIMITERS, key=head.count)
        try:
            header = names or [name.strip() for name in next(csv.reader([head], delimiter=delimiter))]
        except csv.Error as error:  # a name of more than 128 KiB
            raise DataError(f"{where} has no header line: {error}") from None
        mapping = columns.map_names(header, where) if columns else {name: name for name in header}
        return cls(source, where, delimiter, header, 0 if names else number, mapping, columns is not None)

    def read(self) -> pa.Table:
        """Read all rows, with columns `user_id`, `item_id` (text), and `rating` and `timestamp` where it has them.

        Raises
        ------
        DataError
            If a line has another number of columns, a rating is no number, or the text is not UTF-8.
        """
        try:
            # To find where rows end for other threads is a third more work where line ends may stand inside fields,
            # which pays off neither on one core nor where one thread unpacks the file.
            table = self._read(use_threads=pa.cpu_count() > 1 and not _is_compressed(self.source))
        except pa.ArrowInvalid:
            try:  # again on one thread, because only then does Arrow name the row that is wrong
                table = self._read(use_threads=False)
            except pa.ArrowInvalid as error:
                raise DataError(self.explain(error)) from None
        except OSError as error:  # a damaged compressed file
            raise _unreadable(self.where, error) from None
        if any(pa.types.is_binary(kind) for kind in table.schema.types):  # Arrow's guess where text is not UTF-8
            raise DataError(f"{self.where} is not UTF-8 text")
        table = table.rename_columns([self.mapping[name] for name in table.column_names])
        position = table.schema.get_field_index("timestamp")
        if position >= 0 and table.schema.types[position] == pa.string():
            table = table.set_column(position, "timestamp", trim(table["timestamp"], NO_NUMBER))
        return table

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Read the rows in batches, with the columns of `read`, timestamps as text; raises `ArrowInvalid`."""
        for batch in self._stream():
            names = [self.mapping[name] for name in batch.schema.names]
            missing = {"user_id": [""], "item_id": [""], "timestamp": NO_NUMBER}
            arrays = [
                trim(array, missing[name]) if name in missing else array
                for name, array in zip(names, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names)

    def _stream(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from pa.csv.open_csv(self._open_input(), **self._options(False, timestamp=pa.string()))
        except OSError as error:
            raise _unreadable(self.where, error) from None

    def describe_row(self, row: int) -> str:
        """Name the file and the line on which a row, counted from 0, begins; blank lines are not rows."""
        try:
            line = next(islice(self._number_lines(), row, None), self.n_skipped + row + 1)
        except csv.Error:  # a field of more than 128 KiB
            return f"{self.where} row {row + 1}"
        return f"{self.where} line {line}"

    def _number_lines(self) -> Iterator[int]:
        """Number the lines on which rows begin; raises `csv.Error`."""
        with _open(self.source) as stream:
            number = 1 + sum(1 for _ in islice(stream, self.n_skipped))
            rows = csv.reader(io.TextIOWrapper(stream, "latin-1"), delimiter=self.delimiter)
            for fields in rows:
                if fields:
                    yield number
                number = 1 + self.n_skipped + rows.line_num

    def explain(self, error: pa.ArrowInvalid) -> str:
        """Translate Arrow's message into one that names the line and the value."""
        message = str(error)
        if "Could not skip" in message:
            return f"{self.where} has no rows"
        row = re.search(r"Row #(\d+)", message)
        where = self.describe_row(int(row.group(1)) - self.n_skipped - 1) if row else self.where
        if column := re.search(
            r"CSV column #(\d+).*?conversion error to \w+: invalid value '(.*)'", message, re.DOTALL
        ):
            name = self.header[int(column.group(1))]
            return f"{where}: {self.mapping.get(name, name)} is {column.group(2)!r}; expected a number"
        if fields := re.search(r"Expected (\d+) columns, got (\d+)", message):
            return f"{where}: {fields.group(2)} columns; expected {fields.group(1)}, as in the first line"
        if "invalid UTF8" in message:
            return f"{where} is not UTF-8 text"
        return f"{where} cannot be read as delimited text: {message.splitlines()[0]}"

    def _read(self, use_threads: bool) -> pa.Table:
        return pa.csv.read_csv(self._open_input(), **self._options(use_threads))

    def _open_input(self) -> Path | BinaryIO | pa.NativeFile:
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        return unpack(self.source) if _is_compressed(self.source) else self.source

    def _options(self, use_threads: bool, **others: pa.DataType) -> dict[str, Any]:
        types = {**dict.fromkeys(self.texts, pa.string()), **others}
        if self.of_interactions:
            types |= {"rating": pa.float64(), "weight": pa.float64(), "event": pa.string()}
        return {
            "read_options": pa.csv.ReadOptions(
                use_threads=use_threads, column_names=self.header, skip_rows=self.n_skipped
            ),
            "parse_options": pa.csv.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=_may_break_lines(self.source)
            ),
            "convert_options": pa.csv.ConvertOptions(
                include_columns=list(self.mapping),
                column_types={name: types[standard] for name, standard in self.mapping.items() if standard in types},
                strings_can_be_null=False,  # NA and nan are ids like any other; an id is missing only where it is blank
                null_values=NO_NUMBER,
            ),
        }


def check_file(path: Path, content: str) -> None:
    """Raise `DataError` unless there is a regular file, which can be read more than once; `content` says of what."""
    if not path.is_file():
        found = "missing" if not path.exists() else "a folder" if path.is_dir() else "no regular file"
        raise DataError(f"{path} is {found}; expected a file of {content}")


def count_lines_in_fields(source: Path | bytes, n_rows: int) -> int:
    """Count the lines of a text of `n_rows` rows that are inside fields and not blank, as after a quote left open.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    try:
        n_before, _ = _read_first_line(source)
        with _open(source) as stream:
            n_lines, quoted, chunk = 0, False, b"\n"
            for chunk in _iter_chunks(stream):
                n_lines += chunk.count(b"\n")
                quoted = quoted or b'"' in chunk
        n_lines += not chunk.endswith(b"\n")
        if not quoted or n_lines <= n_before + n_rows:  # far faster than to look at each line
            return 0
        with _open(source) as stream:
            return sum(1 for line in islice(stream, n_before, None) if line.strip(b"\r\n")) - n_rows
    except OSError as error:
        raise _unreadable(str(source), error) from None


def parse_ids(texts: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Parse ids as integers when every one of them is written as an integer, else keep them as text."""
    try:
        return pa.chunked_array([parse_whole_numbers(chunk) for chunk in texts.chunks], pa.int64())
    except pa.ArrowInvalid:
        pass
    # Trimming and matching each distinct id once is many times faster than doing so in every row.
    coded = texts.dictionary_encode().combine_chunks()
    values = trim(coded.dictionary.cast(pa.large_string()), [""])
    if pa.compute.all(pa.compute.match_substring_regex(values, WHOLE_NUMBER)).as_py():
        values = values.cast(pa.int64())
    return values.take(coded.indices)


def trim(texts: pa.Array | pa.ChunkedArray, missing: list[str]) -> pa.Array | pa.ChunkedArray:
    """Remove white space around texts; those in `missing` become null."""
    trimmed = pa.compute.utf8_trim_whitespace(texts)
    is_missing = pa.compute.is_in(trimmed, pa.array(missing, trimmed.type))
    return pa.compute.if_else(is_missing, pa.scalar(None, trimmed.type), trimmed)


def parse_whole_numbers(texts: pa.StringArray) -> pa.Int64Array:
    """Parse integers; raises `ArrowInvalid` if one is not written as `WHOLE_NUMBER` asks, so that 007 is not 7."""
    numbers = texts.cast(pa.int64())
    if not pa.compute.all(pa.compute.equal(numbers.cast(pa.string()), texts)).as_py():
        raise pa.ArrowInvalid("written in another way")
    bounds = pa.compute.min_max(numbers).as_py()
    if numbers.null_count < len(numbers) and not -_LONGEST_NUMBER < bounds["min"] <= bounds["max"] < _LONGEST_NUMBER:
        raise pa.ArrowInvalid("too long")
    return numbers


def _open(source: Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if _is_compressed(source):
        return io.BufferedReader(unpack(source))
    return source.open("rb")


def unpack(path: Path) -> pa.NativeFile:
    """Open a file, unpacked where its name ends in .gz or .zst; Arrow itself does not know .GZ."""
    return pa.input_stream(path, compression=COMPRESSED.get(path.suffix.lower()))


def _is_compressed(source: Path | bytes) -> bool:
    return isinstance(source, Path) and source.suffix.lower() in COMPRESSED


def _may_break_lines(source: Path | bytes) -> bool:
    """Check whether line ends may stand inside fields, which Arrow is slower to read: not where there are no quotes."""
    if _is_compressed(source):
        return True  # looking would take longer, because it unpacks the file once more
    with _open(source) as stream:
        return any(b'"' in chunk for chunk in _iter_chunks(stream))


def _iter_chunks(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(_BYTES_A_CHUNK), b"")


def _unreadable(where: str, error: OSError) -> DataError:
    """Make the error for a file that the system does not read, or that is damaged where it is compressed."""
    return DataError(f"{where} cannot be read: {error.strerror or first_line(error)}")


def _read_first_line(source: Path | bytes) -> tuple[int, str]:
    """Read number and text of the first line that is not blank; no text if there is none."""
    with _open(source) as stream:
        for number, line in enumerate(stream, start=1):
            if text := line.decode("utf-8-sig", errors="replace").strip("\r\n"):
                return number, text
    return 0, ""
