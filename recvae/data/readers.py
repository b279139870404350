"""Read a table of who-interacted-with-what from a file, and say which line is wrong when one is."""

import csv
import io
import re
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from recvae.errors import DataError

_DELIMITERS = ",\t;|"
_WHOLE_NUMBER = r"^(0|-?[1-9]\d{0,17})$"
_LONGEST_NUMBER = 10**18
_MOVIELENS = {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a file hold what; `rating` and `timestamp` are optional in the file when None.

    A header of just `userId,movieId,rating,timestamp`, as MovieLens has it, is known where no column is named.
    """

    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    timestamp: str | None = None

    def present(self, names: list[str], where: str) -> dict[str, str]:
        """Map the file's own column names onto `user_id`, `item_id`, `rating` and `timestamp`.

        Raises
        ------
        DataError
            If a column is not there, is there twice, or is named for two things.
        """
        if self == Columns() and names == list(_MOVIELENS):
            return dict(_MOVIELENS)
        wanted = {
            "user_id": self.user,
            "item_id": self.item,
            "rating": self.rating,
            "timestamp": self.timestamp,
        }
        mapping: dict[str, str] = {}
        for standard, given in wanted.items():
            if given is None:
                if standard not in names or standard in mapping:
                    continue
                given = standard
            if given not in names:
                option = f"--{standard.removesuffix('_id')}-column"
                raise DataError(f"{where} has no column {given!r} ({option}); it has: {', '.join(names)}")
            if names.count(given) > 1:
                raise DataError(f"{where} has {names.count(given)} columns named {given!r}; expected one")
            if given in mapping:
                raise DataError(f"column {given!r} of {where} is named for both {mapping[given]} and {standard}")
            mapping[given] = standard
        return mapping


def read_table(source: str | Path, columns: Columns | None = None) -> pd.DataFrame:
    """Read interactions from a CSV, TSV or Parquet file, or from standard input (`-`, CSV or TSV).

    Parameters
    ----------
    source : path or "-"
        Files ending in `.parquet` are Parquet. Of anything else the columns are divided by the comma, tab, semicolon or
        bar, whichever the header line has most of.
    columns : Columns, optional
        The file's column names.

    Returns
    -------
    DataFrame with `user_id`, `item_id` and, where the file has them, `rating` (float64) and `timestamp` (as the
    file gives it: numbers, dates, text), in the order of the file's rows. Ids of delimited text are integers
    when all of a column's are written as such, else text, so that `007` and `7` stay two ids.

    Raises
    ------
    DataError
        For a missing or empty file, a missing column, a missing id or a value that is not a number; the
        message names the line.
    """
    columns = columns or Columns()
    if str(source) == "-":
        return read_delimited(sys.stdin.buffer.read(), columns, where="standard input")
    path = Path(source)
    if path.is_dir() or not path.exists():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'missing'}; expected a ratings file")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, columns)
    return read_delimited(path, columns)


def read_delimited(
    source: Path | bytes,
    columns: Columns,
    *,
    delimiter: str | None = None,
    names: list[str] | None = None,
    where: str | None = None,
) -> pd.DataFrame:
    """Read delimited text with `names` as its header, or its first line when `names` is None."""
    text = Delimited.of(source, columns, delimiter, names, where)
    try:
        table = text.read()
    except pa.ArrowInvalid:
        try:  # again on one thread, because only then does Arrow name the row that is wrong
            table = text.read(use_threads=False)
        except pa.ArrowInvalid as error:
            raise DataError(text.explained(error)) from None
    if any(
        pa.types.is_binary(kind) for kind in table.schema.types
    ):  # what Arrow makes of a column it was left to guess
        raise DataError(f"{text.where} is not UTF-8 text")
    table = table.rename_columns([text.mapping[name] for name in table.column_names])
    for position, name in enumerate(table.column_names):
        if name in ("user_id", "item_id"):
            table = table.set_column(position, name, _ids(table[name]))
    if missing := _first_missing(table):
        name, row = missing
        raise DataError(f"{text.line(row)}: {name} is missing ({table[name].null_count} such rows)")
    return _frame(table, text.where)


@dataclass(frozen=True)
class Delimited:
    """Delimited text and what its first line tells of it.

    Attributes
    ----------
    source : Path or bytes
    where : str
        What errors call it.
    delimiter : str
    header : list of str
    skipped : int
        Lines before the first row.
    mapping : dict of str to str
        The file's own names of the columns that are read → `user_id`, `item_id`, `rating`, `timestamp`.
    """

    source: Path | bytes
    where: str
    delimiter: str
    header: list[str]
    skipped: int
    mapping: dict[str, str]

    @classmethod
    def of(
        cls,
        source: Path | bytes,
        columns: Columns,
        delimiter: str | None = None,
        names: list[str] | None = None,
        where: str | None = None,
    ) -> Self:
        """Look at the first line that is not blank: the header, unless there are `names`.

        Raises
        ------
        DataError
            For an unreadable or empty file, or a missing column.
        """
        where = where or str(source)
        try:
            number, head = _first_line(source)
        except OSError as error:
            raise DataError(f"{where} cannot be read: {error.strerror}") from None
        if any(ord(character) < 32 and character != "\t" for character in head):
            raise DataError(f"{where} is not text of one row a line; compressed files must be unpacked first")
        if not head:
            raise DataError(f"{where} is empty; expected a header line and at least one row")
        delimiter = delimiter or max(_DELIMITERS, key=head.count)
        header = names or [name.strip() for name in next(csv.reader([head], delimiter=delimiter))]
        return cls(source, where, delimiter, header, 0 if names else number, columns.present(header, where))

    def read(self, use_threads: bool = True) -> pa.Table:
        """All rows under the file's own names, ids as text; raises `ArrowInvalid` for what is no such table."""
        return pa.csv.read_csv(self._input(), **self._options(use_threads))

    def stream(self) -> pa.csv.CSVStreamingReader:
        """The same in batches, timestamps as text too."""
        return pa.csv.open_csv(self._input(), **self._options(False, timestamp=pa.string()))

    def line(self, row: int) -> str:
        """Where a row, counted from 0, stands, as blank lines are no rows."""
        with _open(self.source) as stream:
            lines = enumerate(stream, start=1)
            filled = (number for number, line in lines if number > self.skipped and line.strip(b"\r\n"))
            return f"{self.where} line {next(islice(filled, row, None), self.skipped + row + 1)}"

    def explained(self, error: pa.ArrowInvalid) -> str:
        """Arrow's error in the file's own terms."""
        message = str(error)
        if "Could not skip" in message:
            return f"{self.where} has no rows"
        row = re.search(r"Row #(\d+)", message)
        where = self.line(int(row.group(1)) - self.skipped - 1) if row else self.where
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

    def _input(self) -> Path | BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source

    def _options(self, use_threads: bool, **others: pa.DataType) -> dict[str, Any]:
        types = {"user_id": pa.string(), "item_id": pa.string(), "rating": pa.float64(), **others}
        return {
            "read_options": pa.csv.ReadOptions(
                use_threads=use_threads, column_names=self.header, skip_rows=self.skipped
            ),
            "parse_options": pa.csv.ParseOptions(delimiter=self.delimiter),
            "convert_options": pa.csv.ConvertOptions(
                include_columns=list(self.mapping),
                column_types={name: types[standard] for name, standard in self.mapping.items() if standard in types},
                strings_can_be_null=True,
                null_values=["", "NaN", "nan", "NA"],
            ),
        }


def _open(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _first_line(source: Path | bytes) -> tuple[int, str]:
    """Number and text of the first line that is not blank; no text if there is none."""
    with _open(source) as stream:
        for number, line in enumerate(stream, start=1):
            if text := line.decode("utf-8-sig", errors="replace").strip("\r\n"):
                return number, text
    return 0, ""


def _ids(texts: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Ids as integers when every one of them is written as an integer is, else as text."""
    try:
        return pa.chunked_array([whole_numbers(chunk) for chunk in texts.chunks], pa.int64())
    except pa.ArrowInvalid:
        pass
    coded = texts.dictionary_encode().combine_chunks()
    values = pa.compute.utf8_trim_whitespace(coded.dictionary.cast(pa.large_string()))
    values = pa.compute.if_else(pa.compute.equal(values, ""), None, values)
    if pa.compute.all(pa.compute.match_substring_regex(values, _WHOLE_NUMBER)).as_py():
        values = values.cast(pa.int64())
    return values.take(coded.indices)


def whole_numbers(texts: pa.StringArray) -> pa.Int64Array:
    """The integers; raises `ArrowInvalid` if one is not written as `_WHOLE_NUMBER` is."""
    numbers = texts.cast(pa.int64())
    if not pa.compute.all(pa.compute.equal(numbers.cast(pa.string()), texts)).as_py():
        raise pa.ArrowInvalid("written in another way")
    bounds = pa.compute.min_max(numbers).as_py()
    if numbers.null_count < len(numbers) and not -_LONGEST_NUMBER < bounds["min"] <= bounds["max"] < _LONGEST_NUMBER:
        raise pa.ArrowInvalid("too long")
    return numbers


def _read_parquet(path: Path, columns: Columns) -> pd.DataFrame:
    try:
        mapping = columns.present(pa.parquet.read_schema(path).names, str(path))
        table = pa.parquet.read_table(path, columns=list(mapping))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
    table = table.rename_columns([mapping[name] for name in table.column_names])
    if "rating" in table.column_names:
        position = table.column_names.index("rating")
        try:
            table = table.set_column(position, "rating", table["rating"].cast(pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            kind = table["rating"].type
            raise DataError(f"{path}: rating has values of type {kind}; expected numbers") from None
    if missing := _first_missing(table):
        name, row = missing
        raise DataError(f"{path} row {row}: {name} is missing ({table[name].null_count} such rows)")
    return _frame(table, str(path))


def _first_missing(table: pa.Table) -> tuple[str, int] | None:
    for name in ("user_id", "item_id", "rating"):
        if name in table.column_names and table[name].null_count:
            return name, table[name].is_null().index(True).as_py()
    return None


def _frame(table: pa.Table, where: str) -> pd.DataFrame:
    if table.num_rows == 0:
        raise DataError(f"{where} has no rows")
    frame: pd.DataFrame = table.to_pandas(self_destruct=True, split_blocks=True)
    return frame


def read_lists(path: Path) -> pd.DataFrame:
    """Read `user item item …` lines into rows of `user_id` and `item_id`, in the file's order.

    Ids become integers when all of them are written as such; a user without items gives no rows.
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
    return pd.DataFrame({"user_id": _as_integers(users), "item_id": _as_integers(items)})


def _as_integers(ids: pd.Series) -> pd.Series:
    return ids.astype("int64") if ids.str.match(_WHOLE_NUMBER).all() else ids
