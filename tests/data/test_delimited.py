"""Delimited text whose fields hold line ends: every row is read, and an error names the line on which a row begins."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from recvae.data.columns import Columns
from recvae.data.delimited import DelimitedText, count_lines_in_fields
from recvae.data.items import read_items
from recvae.errors import DataError

N_ROWS = 1200
LINES = '\n\nA line of a review, with 1,2,3 and a quote: ""good"".\r\n'


def write_reviews(path: Path, end: str = "") -> Path:
    """Write rows with reviews of many lines, over several of the blocks that Arrow reads a file in."""
    rows = "".join(f'{i % 40},"{LINES * (20 + i % 30)}",{i}\n' for i in range(N_ROWS))
    content = f"user_id,review,item_id\n{rows}{end}".encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_whole(path: Path) -> pa.Table:
    return DelimitedText.open(path, Columns()).read()


def read_in_batches(path: Path) -> pa.Table:
    return pa.Table.from_batches(DelimitedText.open(path, Columns()).stream())


@pytest.mark.parametrize("read", [read_whole, read_in_batches])
@pytest.mark.parametrize("name", ["reviews.csv", "reviews.csv.gz"])
def test_line_ends_in_fields(tmp_path: Path, name: str, read: Callable[[Path], pa.Table]) -> None:
    table = read(write_reviews(tmp_path / name))
    assert table["user_id"].to_pylist() == [str(i % 40) for i in range(N_ROWS)]
    assert table["item_id"].to_pylist() == [str(i) for i in range(N_ROWS)]


def test_line_ends_in_columns_of_items(tmp_path: Path) -> None:
    items: pd.DataFrame = read_items(write_reviews(tmp_path / "items.csv"))
    assert items["item_id"].tolist() == [str(i) for i in range(N_ROWS)]
    assert items["review"].tolist() == [LINES.replace('""', '"') * (20 + i % 30) for i in range(N_ROWS)]


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.csv.gz"])
def test_an_error_after_line_ends_in_fields_names_the_line(tmp_path: Path, name: str) -> None:
    path = write_reviews(tmp_path / name, end="\n7,fine,8\n7,8\n")
    n_lines = 1 + sum(1 + 3 * (20 + i % 30) for i in range(N_ROWS))
    with pytest.raises(DataError, match=rf"csv[.gz]* line {n_lines + 3}: 2 columns; expected 3"):
        read_whole(path)


@pytest.mark.parametrize(
    ("content", "row", "where"),
    [
        ('user_id,item_id\n1,"a\n\nb"\n\n2,c\n', 1, "line 6"),
        ('\nuser_id,item_id\n"a\nb",1\n2,c\n', 0, "line 3"),
        ('user_id,item_id\n1,5" pipe\n2,c\n', 1, "line 3"),
        ('user_id,item_id\n1,"a ""b""\n"\r\n2,c\n', 1, "line 4"),
        ("user_id,item_id\r\n1,a\r2,c\r\n", 1, "line 3"),
        (f'user_id,item_id\n1,"{"x" * 200_000}\n"\n2,c\n', 1, "row 2"),
    ],
)
def test_the_line_on_which_a_row_begins(content: str, row: int, where: str) -> None:
    text = DelimitedText.open(content.encode(), Columns(), where="it")
    assert text.read()["user_id"][row].as_py() is not None
    assert text.describe_row(row) == f"it {where}"


@pytest.mark.parametrize(
    ("content", "n_lines"),
    [
        ("user_id,item_id\n1,a\n\n2,b\n\n", 0),
        ('\nuser_id,item_id\n"1",a\n2,b', 0),
        ('user_id,item_id\n\n"1",a\r\n\r\n2,b\n', 0),
        ('user_id,item_id\n1,5" pipe\n2,b', 0),
        ('user_id,item_id\n1,"a\n2,b"', 1),
        ('user_id,item_id\n1,"a\n\n2,b"\n3,c\n', 1),
        ('user_id,item_id\n1,"a\n2,b\n3,c\n', 2),
    ],
)
def test_lines_in_fields_are_counted(tmp_path: Path, content: str, n_lines: int) -> None:
    path = tmp_path / "text.csv"
    path.write_bytes(content.encode())
    packed = tmp_path / "text.csv.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    for source in (path, packed, content.encode()):
        assert count_lines_in_fields(source, read_whole(path).num_rows) == n_lines
