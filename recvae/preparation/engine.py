"""Interactions in a database engine: filters, counts and vocabularies of `recvae.data.interactions` in Ibis.

The engine counts, joins and sorts, and spills to its disk as it likes. What comes back is either as long as the users
or the items, or a stream.
"""

import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import ibis
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from recvae.data.interactions import empty_data_error, refuse_negative, sort_ids
from recvae.data.readers import Columns
from recvae.errors import DataError, MissingDependencyError, ParameterError
from recvae.memory import available_bytes
from recvae.preparation.staging import stage

ROWS_A_BATCH = 1 << 20
PAIR = ("user_id", "item_id")
_DRIVERS = {"_duckdb", "duckdb", "ibis", "psycopg", "py4j", "pyspark"}


@dataclass(frozen=True)
class Engine:
    """A connection, and a folder for what passes to it and from it."""

    connection: Any
    scratch: Path

    @classmethod
    def of(cls, url: str, scratch: Path) -> Self:
        """Connect to "duckdb" in this process, which spills to `scratch`, or to whatever a URL names that Ibis knows.

        `pyspark://?spark.master=…&…` takes or starts a Spark session of those settings; the folder must then be one
        that its workers reach.

        Raises
        ------
        MissingDependencyError
            If Ibis or the engine's driver is not installed.
        ParameterError
            If nothing answers at the URL.
        """
        try:
            return cls(_connected(url, scratch), scratch)
        except ImportError as error:
            raise MissingDependencyError(
                f"backend {_shown(url)} needs {error.name}; install it, or recvae[scale] or [spark]"
            ) from None
        except Exception as error:  # noqa: BLE001  (each driver has errors of its own)
            raise ParameterError(f"backend is {_shown(url)}, which cannot be opened: {_told(error)}") from None

    def table(self, frame: pd.DataFrame) -> Any:
        """A table of the engine with these rows."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if self.connection.name != "pyspark":
            return ibis.memtable(table)
        path = self._fresh(".parquet")
        pa.parquet.write_table(table, path)
        return self.connection.read_parquet(str(path))

    def kept(self, expression: Any) -> Any:
        """The rows of an expression as a temporary table, so that they are worked out once."""
        if self.connection.name == "pyspark":
            return expression.cache()
        return self.connection.create_table(f"recvae_{secrets.token_hex(8)}", expression, temp=True)

    def stream(self, expression: Any) -> Iterator[pa.RecordBatch]:
        """The rows of an expression in its order."""
        if self.connection.name != "pyspark":
            yield from expression.to_pyarrow_batches(chunk_size=ROWS_A_BATCH)
            return
        for part in sorted(self._written(expression).glob("part-*.parquet")):
            with pa.parquet.ParquetFile(part) as file:
                yield from file.iter_batches(ROWS_A_BATCH)

    def frame(self, expression: Any) -> pd.DataFrame:
        """All rows of an expression in its order, in memory."""
        frame: pd.DataFrame = self._arrow(expression).to_pandas()
        return frame

    def row(self, expression: Any) -> dict[str, Any]:
        """The one row of an aggregate."""
        found: dict[str, Any] = self._arrow(expression).to_pylist()[0]
        return found

    def value(self, expression: Any) -> int:
        """A count."""
        return int(next(iter(self.row(expression.as_table()).values())))

    def _arrow(self, expression: Any) -> pa.Table:
        if self.connection.name != "pyspark":
            return expression.to_pyarrow()
        return pa.parquet.read_table(self._written(expression))

    def _written(self, expression: Any) -> Path:
        """A folder with the rows, because Ibis collects all of Spark's at once, and as pandas makes them."""
        folder = self._fresh("")
        expression.to_parquet_dir(str(folder))
        return folder

    def _fresh(self, suffix: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.scratch)) / f"part{suffix}"


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Engine]:
    """An engine with a scratch folder inside `folder`, which goes in the end.

    Raises
    ------
    DataError
        For what the engine itself fails at meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix=".recvae.", dir=folder) as scratch:
        engine = Engine.of(url, Path(scratch))
        try:
            yield engine
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in _DRIVERS:
                raise
            raise DataError(f"backend {_shown(url)} failed: {_told(error)}") from error
        finally:
            if engine.connection.name != "pyspark":  # whose session others may be using
                engine.connection.disconnect()


def _shown(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def _told(error: Exception) -> str:
    """The first line of an error that has any number."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _connected(url: str, scratch: Path) -> Any:
    if url == "duckdb":
        connection = ibis.duckdb.connect(temp_directory=str(scratch / "spilled"))
        connection.raw_sql("SET enable_progress_bar = false")
        if available := available_bytes():
            connection.raw_sql(f"SET memory_limit = '{available // 2 >> 20}MiB'")
        return connection
    if url.startswith("pyspark://"):
        builder = import_module("pyspark.sql").SparkSession.builder
        for name, value in parse_qsl(urlsplit(url).query):
            builder = builder.config(name, value)
        return ibis.pyspark.connect(builder.getOrCreate())
    if "://" not in url:
        raise ValueError("expected duckdb or a URL such as postgres://host/database")
    return ibis.connect(url)


def read(engine: Engine, source: str, columns: Columns) -> Any:
    """The table of a source: `user_id`, `item_id`, and `rating`, `timestamp` (numbers) and `row` where it has any.

    Parameters
    ----------
    source : str
        A CSV, TSV or Parquet file, whose rows are numbered; a folder of Parquet files, or a table's name, whose rows
        have no order.

    Raises
    ------
    DataError
        If it cannot be read, or a value is missing or of the wrong kind.
    """
    path = Path(source)
    if path.is_file():
        staged = stage(path, columns, engine.scratch / "staged.parquet")
        table = engine.connection.read_parquet(str(staged.path))
        return _checked(engine, table.mutate(**{n: table[n].cast(kind) for n, kind in staged.numbers.items()}), source)
    if path.is_dir():
        table = engine.connection.read_parquet(str(path / "*.parquet"))
    else:
        database, _, name = source.rpartition(".")
        try:
            table = engine.connection.table(name, database=database or None)
        except Exception as error:  # noqa: BLE001  (each driver has errors of its own)
            raise DataError(f"{source} is neither a file, a folder nor a table of the backend ({error})") from None
    mapping = columns.present(list(table.columns), source)
    return _checked(engine, table.select(**{standard: table[given] for given, standard in mapping.items()}), source)


def _checked(engine: Engine, table: Any, where: str) -> Any:
    """With ratings as float64 and timestamps as numbers, none of them wrong."""
    types = table.schema()
    missing = {name: table[name].isnull().sum() for name in PAIR}
    if "rating" in types:
        if not types["rating"].is_numeric():
            raise DataError(f"{where}: rating has values of type {types['rating']}; expected numbers")
        table = table.mutate(rating=table.rating.cast("float64"))
        missing["rating"] = (~(table.rating.abs() <= np.finfo(np.float64).max).fill_null(False)).sum()
    if "timestamp" in types:
        if types["timestamp"].is_timestamp():
            table = table.mutate(timestamp=table.timestamp.epoch_seconds().cast("int64"))
        elif not types["timestamp"].is_numeric():
            raise DataError(
                f"{where}: timestamp has values of type {types['timestamp']}; expected numbers or timestamps"
            )
        missing["timestamp"] = table.timestamp.isnull().sum()
    found = engine.row(table.aggregate(rows=table.count(), **missing))
    if not found["rows"]:
        raise DataError(f"{where} has no rows")
    for name in (*PAIR, "rating"):
        if found.get(name):
            raise DataError(f"{where}: {name} is missing or no number in {found[name]:,} rows")
    if found.get("timestamp"):  # as in memory, where what is missing makes numbers of whole ones
        table = table.mutate(timestamp=table.timestamp.cast("float64"))
    return table


@dataclass(frozen=True, eq=False)
class Plays:
    """Interactions in an engine; see `Interactions`, whose methods these share.

    Attributes
    ----------
    table : Ibis table
        `user_id`, `item_id`, and `rating`, `timestamp`, `row` where the source has them.
    n_duplicates : int
    """

    engine: Engine
    table: Any
    n_duplicates: int

    @classmethod
    def of(cls, engine: Engine, table: Any) -> Self:
        """From a table as `read` gives it; a repeated pair is one interaction, as in `Interactions`."""
        rows = engine.value(table.count())
        pairs = engine.value(table.select(*PAIR).distinct().count())
        return cls(engine, engine.kept(_collapsed(table)) if pairs < rows else table, rows - pairs)

    @cached_property
    def n_interactions(self) -> int:
        return self.engine.value(self.table.count())

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def timestamp_type(self) -> np.dtype[Any] | None:
        return np.dtype(np.float64) if "timestamp" in self.table.columns else None

    @cached_property
    def user_ids(self) -> pd.Index:
        return self._ids("user_id")

    @cached_property
    def item_ids(self) -> pd.Index:
        return self._ids("item_id")

    def filter(
        self, *, min_rating: float | None = None, min_user_items: int = 0, min_item_users: int = 0
    ) -> tuple[Self, dict[str, int]]:
        """As `Interactions.filter`, with the same counts and the same errors."""
        refuse_negative(min_user_items=min_user_items, min_item_users=min_item_users)
        counts = {"rows": self.n_interactions + self.n_duplicates, "duplicate_rows": self.n_duplicates}
        users, table = self.engine.value(self.table.user_id.nunique()), self.table
        steps: list[tuple[str, Callable[[Any], Any], str]] = []
        if min_rating is not None:
            if "rating" not in table.columns:
                raise ParameterError(f"min_rating is {min_rating} but the data have no ratings")
            steps.append(
                ("interactions_below_min_rating", lambda t: t.filter(t.rating >= min_rating), f" {min_rating:g}")
            )
        if min_item_users > 1:
            steps.append(("interactions_below_min_item_users", lambda t: _often(t, "item_id", min_item_users), ""))
        if min_user_items > 1:
            steps.append(("interactions_below_min_user_items", lambda t: _often(t, "user_id", min_user_items), ""))
        data = self
        for name, kept, bound in steps:
            before = data.n_interactions
            data = replace(data, table=self.engine.kept(kept(data.table)))
            counts[name] = before - data.n_interactions
            if not data.n_interactions:
                raise empty_data_error(counts, bound)
        return data, counts | {"users_dropped": users - len(data.user_ids)}

    @cached_property
    def indexed(self) -> Any:
        """The table with `user_idx`, `item_idx` (int32) and `row` (int64) in place of the ids.

        Rows that have no order of their own are taken by user and by item.
        """
        table = self.table
        for name, ids in (("user", self.user_ids), ("item", self.item_ids)):
            places = pd.DataFrame({f"{name}_id": ids, f"{name}_idx": np.arange(len(ids), dtype=np.int32)})
            table = table.inner_join(self.engine.table(places), f"{name}_id").drop(f"{name}_id")
        if "row" not in table.columns:
            row = table.user_idx.cast("int64") * len(self.item_ids) + table.item_idx
            table = table.mutate(row=row)
        return self.engine.kept(table)

    def frames(self) -> Iterator[pd.DataFrame]:
        """All interactions in row order: `user_id`, `item_id`, and `rating` and `timestamp` where there are any."""
        names = [name for name in ("rating", "timestamp") if name in self.table.columns]
        ordered = self.indexed.order_by("row").select("user_idx", "item_idx", *names)
        for batch in self.engine.stream(ordered):
            ids = {"user_id": self.user_ids[batch["user_idx"]], "item_id": self.item_ids[batch["item_idx"]]}
            yield pd.DataFrame(ids | {name: batch[name].to_pandas() for name in names})

    def places(self, expression: Any) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Rows and columns, in that order, of an expression with those names."""
        for batch in self.engine.stream(expression.select("user_row", "column").order_by("user_row", "column")):
            yield batch["user_row"].to_numpy(), batch["column"].to_numpy()

    def _ids(self, name: str) -> pd.Index:
        return sort_ids(self.engine.frame(self.table.select(name).distinct())[name])


def _collapsed(table: Any) -> Any:
    """One row a pair: the highest rating, its earliest timestamp, the first row."""
    kept = {"row": table.row.min()} if "row" in table.columns else {}
    if "rating" in table.columns:
        table = table.group_by(*PAIR).mutate(best=lambda t: t.rating.max())
        kept = {name: table.row.min() for name in kept} | {"rating": table.rating.max()}
    if "timestamp" in table.columns:
        best = table.rating == table.best if "rating" in table.columns else None
        kept["timestamp"] = table.timestamp.min(where=best)
    return table.group_by(*PAIR).aggregate(**kept)


def _often(table: Any, name: str, least: int) -> Any:
    counted = table.group_by(name).mutate(often=lambda t: t.count())
    return counted.filter(counted.often >= least).drop("often")
