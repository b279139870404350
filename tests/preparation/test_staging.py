"""Staging under fire: whatever the bytes, a staged file or an error of one line, and the same verdict as in memory."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recvae.data.columns import Columns
from recvae.data.interactions import Interactions
from recvae.data.readers import read_table
from recvae.errors import DataError
from recvae.preparation.staging import stage
from tests.test_fuzz import CSV, damaged, fuzzed, parquet

DATES = b"user_id,item_id,timestamp\n1,20,2020-01-05\n2,10,2020-01-06 10:00:00\n3,5,\n3,NA,1999-12-31T23:59:59.5Z\n"


def verdict(read: Callable[[], int]) -> int | str:
    """The number of rows, or the error."""
    try:
        return read()
    except DataError as error:
        return str(error)


def judge(path: Path) -> None:
    """Stage a file and read it into memory: the same number of rows, or an error of each."""

    def read() -> int:
        data = Interactions.from_frame(read_table(path))
        return len(data) + data.n_duplicates

    staged, in_memory = verdict(lambda: stage(path, Columns(), path.with_name("staged.parquet")).n_rows), verdict(read)
    if isinstance(staged, int):  # timestamps of other types are left to the engine
        assert in_memory == staged or "timestamp is" in str(in_memory)
    else:
        assert isinstance(in_memory, str)
        assert "\n" not in staged


@pytest.mark.parametrize("true", [CSV, DATES])
@pytest.mark.parametrize("name", ["interactions.csv", "interactions.tsv"])
@fuzzed
@given(st.data())
def test_delimited_text(tmp_path: Path, name: str, true: bytes, data: st.DataObject) -> None:
    content = true.replace(b",", b"\t") if name.endswith("tsv") else true
    (tmp_path / name).write_bytes(data.draw(st.one_of(st.binary(max_size=200), damaged(content))))
    judge(tmp_path / name)


@fuzzed
@given(damaged(parquet()))
def test_parquet_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "interactions.parquet").write_bytes(content)
    judge(tmp_path / "interactions.parquet")


def test_texts_that_a_parquet_file_has_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"user_id": [b"ann", "bäm".encode()], "item_id": [1, 2], "rating": [b"3", b"4"]}).to_parquet(path)
    expected = {"user_id": ["ann", "bäm"], "item_id": [1, 2], "rating": [3.0, 4.0]}
    assert read_table(path).to_dict("list") == expected
    staged = stage(path, Columns(), tmp_path / "staged.parquet")
    assert pd.read_parquet(staged.path).drop(columns="row").to_dict("list") == expected


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_text_is_staged_as_plain_text_is(tmp_path: Path, suffix: str) -> None:
    rows = "user_id,item_id\n" + "".join(f"{i % 7},{i}\n" for i in range(50))
    (tmp_path / "plain.csv").write_text(rows)
    with pa.output_stream(tmp_path / f"packed.csv{suffix}", compression="detect") as stream:
        stream.write(rows.encode())
    staged = [
        stage(tmp_path / name, Columns(), tmp_path / f"{name}.parquet") for name in ("plain.csv", f"packed.csv{suffix}")
    ]
    assert pa.parquet.read_table(staged[0].path).equals(pa.parquet.read_table(staged[1].path))
    (tmp_path / f"cut.csv{suffix}").write_bytes((tmp_path / f"packed.csv{suffix}").read_bytes()[:-3])
    with pytest.raises(DataError, match=f"cut.csv{suffix} cannot be read: Truncated"):
        stage(tmp_path / f"cut.csv{suffix}", Columns(), tmp_path / "cut.parquet")


def test_json_lines_are_not_staged(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"user_id": 1, "item_id": 2}\n')
    with pytest.raises(DataError, match="is JSON lines, which are read in memory"):
        stage(tmp_path / "rows.jsonl", Columns(), tmp_path / "staged.parquet")
