"""A Parquet file that is written table by table, whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recvae.errors import ArtifactError, ParameterError
from recvae.storage.directories import check_output_file
from recvae.storage.files import replace_file


def write_parquet(out: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of the same columns into one file, at least one table.

    Raises
    ------
    ParameterError
        If the file's name does not end in .parquet.
    ArtifactError
        If the file cannot be written, or is inside of a directory of recvae's; what was there is unchanged.
    """
    if out.suffix.lower() != ".parquet":
        raise ParameterError(f"out is {out}; expected a name that ends in .parquet")
    check_output_file("out", out)
    try:
        with replace_file(out) as temporary:
            writer = None
            try:
                for table in tables:
                    writer = writer or pq.ParquetWriter(temporary, table.schema)
                    writer.write_table(table)
            finally:
                if writer is not None:
                    writer.close()
    except OSError as error:
        raise ArtifactError(f"{out} could not be written: {error.strerror or error}") from None
