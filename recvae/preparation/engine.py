"""Connection to a database engine through Ibis: tables go to it; frames, counts and streams come back."""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from recvae.errors import DataError, MissingDependencyError, ParameterError, first_line, redact_url
from recvae.memory import available_bytes

ROWS_A_BATCH = 1 << 20
# Modules whose exceptions mean that the engine failed; any other exception is a bug of ours and keeps its traceback.
_DRIVERS = {"_duckdb", "duckdb", "ibis", "psycopg", "py4j", "pyspark"}


@dataclass(frozen=True)
class Engine:
    """A connection to a database engine, and a scratch folder for the files that go to it and come from it."""

    connection: Any
    scratch: Path

    @classmethod
    def connect(cls, url: str, scratch: Path) -> Self:
        """Connect to "duckdb", which runs in this process and spills to `scratch`, or to a URL that Ibis knows.

        `pyspark://?spark.master=…&…` takes or starts a Spark session with those settings; its workers must be able to
        reach `scratch`.

        Raises
        ------
        MissingDependencyError
            If Ibis or the engine's driver is not installed.
        ParameterError
            If nothing answers at the URL.
        """
        try:
            return cls(_connect(url, scratch), scratch)
        except ImportError as error:
            raise MissingDependencyError(
                f"backend {redact_url(url)} needs {error.name}; install it, or recvae[scale] or [spark]"
            ) from None
        except Exception as error:  # noqa: BLE001  (each driver has errors of its own)
            reason = first_line(error)
            raise ParameterError(f"backend is {redact_url(url)}, which cannot be opened: {reason}") from None

    @property
    def is_spark(self) -> bool:
        # Spark differs in all exchange of data: Ibis would collect every row in its driver, by way of pandas.
        return bool(self.connection.name == "pyspark")

    def create_table(self, frame: pd.DataFrame) -> Any:
        """Make a table of the engine with these rows."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if not self.is_spark:
            return ibis.memtable(table)
        path = self._make_path(".parquet")
        pa.parquet.write_table(table, path)
        return self.connection.read_parquet(str(path))

    def materialise(self, expression: Any) -> Any:
        """Store the rows of an expression in a temporary table, so that they are computed once."""
        if self.is_spark:
            return expression.cache()
        return self.connection.create_table(f"recvae_{secrets.token_hex(8)}", expression, temp=True)

    def stream(self, expression: Any) -> Iterator[pa.RecordBatch]:
        """Read the rows of an expression in its order, a batch at a time."""
        if not self.is_spark:
            yield from expression.to_pyarrow_batches(chunk_size=ROWS_A_BATCH)
            return
        for path in sorted(self._write_parquet(expression).glob("part-*.parquet")):  # Spark's names, in row order
            with pa.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(ROWS_A_BATCH)

    def read_frame(self, expression: Any) -> pd.DataFrame:
        """Read all rows of an expression in its order into memory."""
        frame: pd.DataFrame = self._read_arrow(expression).to_pandas()
        return frame

    def read_row(self, expression: Any) -> dict[str, Any]:
        """Read the one row of an aggregate."""
        row: dict[str, Any] = self._read_arrow(expression).to_pylist()[0]
        return row

    def read_count(self, expression: Any) -> int:
        """Read a number of rows."""
        return int(next(iter(self.read_row(expression.as_table()).values())))

    def _read_arrow(self, expression: Any) -> pa.Table:
        if not self.is_spark:
            return expression.to_pyarrow()
        return pa.parquet.read_table(self._write_parquet(expression))

    def _write_parquet(self, expression: Any) -> Path:
        folder = self._make_path("")
        expression.to_parquet_dir(str(folder))
        return folder

    def _make_path(self, suffix: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.scratch)) / f"rows{suffix}"


@contextmanager
def open_engine(url: str, folder: Path) -> Iterator[Engine]:
    """Connect to an engine, with a scratch folder inside `folder` that is removed in the end.

    Raises
    ------
    DataError
        If the engine fails while it is in use, or the scratch folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".recvae.", dir=folder) as scratch:
            engine = Engine.connect(url, Path(scratch))
            try:
                yield engine
            finally:
                if not engine.is_spark:  # others may be using the Spark session
                    engine.connection.disconnect()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"backend {redact_url(url)} failed: {reason}; its scratch files are in {folder}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _DRIVERS:
            raise
        raise DataError(f"backend {redact_url(url)} failed: {first_line(error)}") from error


def _connect(url: str, scratch: Path) -> Any:
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
