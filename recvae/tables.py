"""Read a table of who-interacted-with-what from a file, and say which line is wrong when one is."""

import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from recvae.errors import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a file hold what; `rating` and `timestamp` are optional in the file when None."""

    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    timestamp: str | None = None

    def present(self, names: list[str], where: str) -> dict[str, str]:
        """Map the file's own column names onto `user_id`, `item_id`, `rating` and `timestamp`."""
        wanted = {
            "user_id": self.user,
            "item_id": self.item,
            "rating": self.rating,
            "timestamp": self.timestamp,
        }
        mapping: dict[str, str] = {}
        for standard, given in wanted.items():
            if given is None and standard in names:
                given = standard
            if given is None:
                continue
            if given not in names:
                option = f"--{standard.removesuffix('_id')}-column"
                raise DataError(f"{where} has no column {given!r} ({option}); it has: {', '.join(names)}")
            if given in mapping:
                raise DataError(f"column {given!r} of {where} is named for both {mapping[given]} and {standard}")
            mapping[given] = standard
        return mapping


def read_table(source: str | Path, columns: Columns | None = None) -> pd.DataFrame:
    """Read plays from a CSV, TSV or Parquet file, or from standard input (`-`, CSV or TSV).

    Parameters
    ----------
    source : path or "-"
        Files ending in `.parquet` are Parquet, `.tsv` and `.tab` tab-separated; of anything else, and of
        standard input, the header line decides between tab and comma.
    columns : Columns, optional
        The file's column names.

    Returns
    -------
    DataFrame with `user_id`, `item_id` and, where the file has them, `rating` (float64) and `timestamp`
    (float64 seconds, or whatever orderable type a Parquet file holds), in the order of the file's rows.

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
    if path.suffix == ".parquet":
        return _read_parquet(path, columns)
    return read_delimited(path, columns, delimiter=_DELIMITERS.get(path.suffix.lower()))


def read_delimited(
    source: Path | bytes,
    columns: Columns,
    *,
    delimiter: str | None = None,
    names: list[str] | None = None,
    encoding: str = "utf8",
    where: str | None = None,
) -> pd.DataFrame:
    """Read delimited text with `names` as its header, or its first line when `names` is None."""
    where = where or str(source)
    head = _first_line(source, encoding)
    if not head.strip():
        raise DataError(f"{where} is empty; expected a header line and at least one row")
    delimiter = delimiter or ("\t" if "\t" in head else ",")
    header = names or [name.strip().strip('"') for name in head.split(delimiter)]
    mapping = columns.present(header, where)
    first_line = 1 if names else 2
    types: dict[str, pa.DataType] = {c: pa.float64() for c, standard in mapping.items() if standard == "rating"}
    ids = [c for c, standard in mapping.items() if standard in ("user_id", "item_id")]
    attempts: list[dict[str, pa.DataType]] = [types, {**types, **dict.fromkeys(ids, pa.string())}]
    for attempt, column_types in enumerate(attempts):
        try:
            table = _parse(source, delimiter, names, encoding, mapping, column_types)
        except pa.ArrowInvalid as error:
            if attempt == len(attempts) - 1:
                raise DataError(_explain(error, header, mapping, where)) from None
        else:
            break
    table = table.rename_columns([mapping[name] for name in table.column_names])
    return _checked(table, where, first_line)


def _first_line(source: Path | bytes, encoding: str) -> str:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        return stream.readline().decode(encoding, errors="replace").removeprefix("\ufeff").rstrip("\r\n")


def _parse(
    source: Path | bytes,
    delimiter: str,
    names: list[str] | None,
    encoding: str,
    mapping: dict[str, str],
    types: dict[str, pa.DataType],
) -> pa.Table:
    # One thread, because only then does Arrow name the row that is wrong.
    return pa.csv.read_csv(
        io.BytesIO(source) if isinstance(source, bytes) else source,
        read_options=pa.csv.ReadOptions(use_threads=False, column_names=names, encoding=encoding),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
        convert_options=pa.csv.ConvertOptions(
            include_columns=list(mapping),
            column_types=types,
            strings_can_be_null=True,
            null_values=["", "NaN", "nan", "NA"],
        ),
    )


def _explain(error: pa.ArrowInvalid, header: list[str], mapping: dict[str, str], where: str) -> str:
    message = str(error)
    row = re.search(r"Row #(\d+)", message)
    line = f" line {int(row.group(1))}" if row else ""
    if column := re.search(r"CSV column #(\d+).*?conversion error to \w+: invalid value '(.*)'", message, re.DOTALL):
        name = header[int(column.group(1))]
        return f"{where}{line}: {mapping.get(name, name)} is {column.group(2)!r}; expected a number"
    if fields := re.search(r"Expected (\d+) columns, got (\d+)", message):
        return f"{where}{line}: {fields.group(2)} columns; expected {fields.group(1)}, as in the first line"
    return f"{where}{line} cannot be read as delimited text: {message.splitlines()[0]}"


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
    return _checked(table, str(path), first_line=None)


def _checked(table: pa.Table, where: str, first_line: int | None) -> pd.DataFrame:
    if table.num_rows == 0:
        raise DataError(f"{where} has no rows")
    for name in ("user_id", "item_id", "rating"):
        if name in table.column_names and table[name].null_count:
            position = table[name].is_null().index(True).as_py()
            place = f"line {position + first_line}" if first_line else f"row {position}"
            raise DataError(f"{where} {place}: {name} is missing ({table[name].null_count} such rows)")
    frame: pd.DataFrame = table.to_pandas(self_destruct=True, split_blocks=True)
    return frame


def read_lists(path: Path) -> pd.DataFrame:
    """Read `user item item …` lines into rows of `user_id` and `item_id`, in the file's order.

    Ids become integers when all of them are; a user without items gives no rows.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected lines of 'user item item …'") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error.reason} at byte {error.start}") from None
    users = pd.Series([line[0] for line in lines for _ in line[1:]], dtype="str")
    items = pd.Series([item for line in lines for item in line[1:]], dtype="str")
    if items.empty:
        raise DataError(f"{path} is empty; expected lines of 'user item item …'")
    return pd.DataFrame({"user_id": _as_integers(users), "item_id": _as_integers(items)})


def _as_integers(ids: pd.Series) -> pd.Series:
    return ids.astype("int64") if ids.str.fullmatch(r"-?\d{1,18}").all() else ids
