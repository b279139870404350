"""Tables of items: read as they are, matched to the ids of a catalogue, and refused by name."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recvae.data.items import match_items, read_items
from recvae.errors import DataError


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf8")
    return path


def test_every_column_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "items.csv", "title,item_id,year,price\n1984,007,1949,2.5\n,7,,3\n")
    items = read_items(path)
    assert items.columns.tolist() == ["title", "item_id", "year", "price"]
    assert items["item_id"].tolist() == ["007", "7"]
    assert items["title"].tolist()[0] == "1984"
    assert items["title"].isna().tolist() == [False, True]
    assert items["price"].tolist() == [2.5, 3.0]


def test_codes_are_no_numbers(tmp_path: Path) -> None:
    """A postal code or a brand's code has its leading zeros, and 007 is another than 7."""
    text = "item_id,zip,sku,price,stock\n1,00024,7,0.5,0\n2,10001,007,12,\n"
    items = read_items(write(tmp_path / "items.csv", text))
    assert items.drop(columns="stock").to_dict("list") == {
        "item_id": ["1", "2"],
        "zip": ["00024", "10001"],
        "sku": ["7", "007"],
        "price": [0.5, 12.0],
    }
    assert pd.api.types.is_float_dtype(items["stock"])


def test_ids_and_titles_of_json_lines_may_look_like_dates(tmp_path: Path) -> None:
    rows = [{"item_id": f"2024-01-0{day}", "title": "2024-02-01", "since": "2024-03-01"} for day in (1, 2)]
    pd.DataFrame(rows).to_json(tmp_path / "items.jsonl", orient="records", lines=True)
    items = read_items(tmp_path / "items.jsonl")
    assert items["item_id"].tolist() == ["2024-01-01", "2024-01-02"]
    assert items["title"].tolist() == ["2024-02-01"] * 2
    assert pd.api.types.is_datetime64_any_dtype(items["since"])


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    items = read_items(write(tmp_path / "items.csv", ",item_id,title,,\n0,7,x,,\n1,8,y,,\n"))
    assert items.to_dict("list") == {"item_id": ["7", "8"], "title": ["x", "y"]}


def test_columns_named_as_those_of_interactions_are_what_they_look_like(tmp_path: Path) -> None:
    path = write(tmp_path / "items.csv", "item_id,rating,weight,event,timestamp\n1,PG-13,1kg,2,1999\n2,R,,3,2000\n")
    items = read_items(path)
    assert items["rating"].tolist() == ["PG-13", "R"]
    assert items["weight"].tolist() == ["1kg", ""]
    assert items["event"].tolist() == [2, 3]
    assert items["timestamp"].tolist() == [1999, 2000]


def test_the_column_of_ids_may_have_another_name(tmp_path: Path) -> None:
    path = write(tmp_path / "items.tsv", "sku\tname\nNA\tOne\nb\tTwo\n")
    assert read_items(path, "sku")["item_id"].tolist() == ["NA", "b"]
    assert read_items(write(tmp_path / "others.csv", "item_id,title\n1,a\n"), "sku")["item_id"].tolist() == ["1"]


def test_a_parquet_file(tmp_path: Path) -> None:
    pd.DataFrame({"sku": [1, 2], "title": ["a", "b"]}).to_parquet(tmp_path / "items.parquet")
    assert read_items(tmp_path / "items.parquet", "sku")["item_id"].tolist() == [1, 2]
    pd.DataFrame({"item_id": [b"a", b"b"], "image": [b"\xff", b"\xfe"]}).to_parquet(tmp_path / "bytes.parquet")
    items = read_items(tmp_path / "bytes.parquet")
    assert items.to_dict("list") == {"item_id": ["a", "b"], "image": [b"\xff", b"\xfe"]}
    pd.DataFrame({"item_id": [1.0, 2.0]}).to_parquet(tmp_path / "floats.parquet")
    assert match_items(read_items(tmp_path / "floats.parquet"), pd.Index(["1", "x"]))[0]["item_id"].tolist() == ["1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a header line"),
        ("id,title\n1,a\n", "has no column 'item_id'; it has: id, title"),
        ("item_id,title,title\n1,a,b\n", "has several columns named 'title'; expected one"),
        ("item_id,title\n1,a\n ,b\n", "item_id is missing in 1 rows"),
        ("item_id,title\n1,a\n2,b\n1,c\n", "has item_id '1' more than once; expected a row for each item"),
        ("item_id,title\n1,a,b\n", "line 2: 3 columns; expected 2"),
    ],
)
def test_what_is_no_table_of_items(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_items(write(tmp_path / "items.csv", content))


def test_files_that_are_not_there_or_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items.csv is missing; expected a file of items"):
        read_items(tmp_path / "items.csv")
    with pytest.raises(DataError, match="is a folder; expected a file of items"):
        read_items(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv is no regular file; expected a file of items"):
        read_items(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        read_items(write(tmp_path / "items.parquet", "text"))
    with pytest.raises(DataError, match="has columns 'sku' and 'item_id'; expected one column of ids"):
        read_items(write(tmp_path / "two.csv", "sku,item_id\n1,2\n"), "sku")


@pytest.mark.parametrize(
    ("ids", "catalogue", "found"),
    [
        (["1", "2", "x", "03"], pd.Index([1, 2, 3]), [1, 2]),
        (["a", "b"], pd.Index(["b", "c"]), ["b"]),
        ([1, 2], pd.Index(["1", "x"]), ["1"]),
        ([1, 2], pd.Index([2]), [2]),
        (["007", "7"], pd.Index(["007", "7", "x"]), ["007", "7"]),
        (["1", "99999999999"], pd.Index([1, 2], dtype="int32"), [1]),
        (["1", "-1", str(2**64 - 1)], pd.Index([1, 2**64 - 1], dtype="uint64"), [1, 2**64 - 1]),
        ([2.0, 1.5], pd.Index([1, 2]), [2]),
    ],
)
def test_ids_take_the_type_of_the_catalogue(ids: list[Any], catalogue: pd.Index, found: list[Any]) -> None:
    items, note = match_items(pd.DataFrame({"item_id": ids, "title": "t"}), catalogue)
    assert items["item_id"].tolist() == found
    assert items["item_id"].dtype == catalogue.dtype
    assert note.startswith(f"items: item_id, title of {len(found)} of {len(catalogue)} items")
    assert (f"; {len(catalogue) - len(found)} items have no row" in note) == (len(catalogue) > len(found))
    assert (f"; {len(ids) - len(found)} rows are of other items" in note) == (len(ids) > len(found))


def test_a_table_of_other_items_is_refused() -> None:
    items = pd.DataFrame({"item_id": ["a"], "title": ["t"]})
    with pytest.raises(DataError, match="items has 1 rows, none of an item of the training data: 'a' here, 1 there"):
        match_items(items, pd.Index([1]))
    with pytest.raises(DataError, match="items has 0 rows, none of an item of the training data"):
        match_items(items[:0], pd.Index([1]))
