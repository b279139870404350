"""Reading tables: every delimited variant that people bring, and an error that names the line."""

import gzip
import io
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.data.columns import Columns
from recvae.data.interactions import Interactions
from recvae.data.items import read_items
from recvae.data.readers import read_delimited, read_lists, read_table
from recvae.errors import DataError

PLAIN = "user_id,item_id,rating,timestamp\n1,20,4.5,100\n2,10,3,200\n"
RATED = Columns(rating="rating", timestamp="timestamp")


def write(tmp_path: Path, content: str | bytes, name: str = "ratings.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def columns_of(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): frame[name].tolist() for name in frame.columns}


EXPECTED = {"user_id": [1, 2], "item_id": [20, 10], "rating": [4.5, 3.0], "timestamp": [100, 200]}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (PLAIN, "ratings.csv"),
        (PLAIN.replace(",", "\t"), "ratings.tsv"),
        (PLAIN.replace(",", "\t"), "RATINGS.TAB"),
        (PLAIN.replace(",", "\t"), "ratings.txt"),
        (PLAIN.replace(",", ";"), "ratings.csv"),
        (PLAIN.replace(",", "|"), "ratings.txt"),
        (PLAIN, "ratings"),
        ("\ufeff" + PLAIN, "ratings.csv"),
        (PLAIN.replace("\n", "\r\n"), "ratings.csv"),
        ("\ufeff" + PLAIN.replace("\n", "\r\n"), "ratings.csv"),
        (PLAIN.rstrip("\n"), "ratings.csv"),
        ("\n\n" + PLAIN.replace("\n", "\n\n"), "ratings.csv"),
        (PLAIN.replace(",", ", "), "ratings.csv"),
        ('"user_id","item_id","rating","timestamp"\n"1","20","4.5","100"\n"2","10","3","200"\n', "ratings.csv"),
        ('"a, b",rating,timestamp,user_id,item_id\nx,4.5,100,1,20\n"y, z",3,200,2,10\n', "ratings.csv"),
    ],
)
def test_delimited_text(tmp_path: Path, content: str, name: str) -> None:
    frame = read_table(write(tmp_path, content, name))
    assert columns_of(frame) == EXPECTED
    assert frame["rating"].dtype == "float64"
    assert frame["user_id"].dtype == frame["item_id"].dtype == "int64"


def test_the_columns_names_are_given(tmp_path: Path) -> None:
    path = write(tmp_path, "when,stars,film,who,user_id\n100,4.5,20,1,x\n200,3,10,2,y\n")
    assert columns_of(read_table(path, Columns("who", "film", "stars", "when"))) == EXPECTED


def test_the_header_of_movielens_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN.replace("user_id,item_id", "userId,movieId"))
    assert columns_of(read_table(path)) == EXPECTED
    with pytest.raises(DataError, match="has no column 'who'"):
        read_table(path, Columns("who"))


@pytest.mark.parametrize(
    "texts",
    [
        ["0", "-7", "999999999999999999"],
        ["007", "7", "70"],
        ["+7", "7"],
        ["-0", "0"],
        ["0x1F", "31"],
        ["0x174876E800", "100000000000"],
        ["1000000000000000000", "1"],
        ["-1000000000000000000", "1"],
        ["9223372036854775808", "1"],
        ["1e3", "1000"],
        ["1.0", "1"],
        ["1_0", "10"],
        ["٣", "3"],
    ],
)
def test_ids_are_integers_only_when_written_as_such(tmp_path: Path, texts: list[str]) -> None:
    whole = all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) for text in texts)
    read = read_table(write(tmp_path, "user_id,item_id\n" + "".join(f"{text},1\n" for text in texts)))
    assert read["user_id"].tolist() == ([int(text) for text in texts] if whole else texts)


def test_rating_and_timestamp_are_optional(tmp_path: Path) -> None:
    assert columns_of(read_table(write(tmp_path, "item_id,other,user_id\n20,x,1\n10,y,2\n"))) == {
        "user_id": [1, 2],
        "item_id": [20, 10],
    }


@pytest.mark.parametrize("content", [PLAIN, PLAIN.replace(",", "\t")])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert columns_of(read_table("-")) == EXPECTED


def test_an_error_of_standard_input_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"user_id,item_id\n1,2\n3\n")))
    with pytest.raises(DataError, match=r"^standard input line 3: 1 columns; expected 2"):
        read_table("-")


@pytest.mark.parametrize("name", ["ratings.parquet", "RATINGS.PARQUET"])
def test_parquet(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"rating": [4, 3], "item_id": ["b", "a"], "who": [1, 2], "other": [None, "x"]})
    frame.to_parquet(tmp_path / name)
    read = read_table(tmp_path / name, Columns(user="who"))
    assert columns_of(read) == {"user_id": [1, 2], "item_id": ["b", "a"], "rating": [4.0, 3.0]}
    assert read["rating"].dtype == "float64"


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    times = pd.to_datetime(["2024-01-02", "2024-01-01"])
    frame = pd.DataFrame({"user_id": ["007", "7"], "item_id": [1.5, 2.5], "timestamp": times})
    frame.to_parquet(tmp_path / "ratings.parquet")
    read = read_table(tmp_path / "ratings.parquet")
    assert columns_of(read) == {"user_id": ["007", "7"], "item_id": [1.5, 2.5], "timestamp": times.tolist()}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["3", "-1", "0"], [3, -1, 0]),
        (["3", "x", "0"], ["3", "x", "0"]),
        (["007", "7", "0"], ["007", "7", "0"]),
        (["0x1F", "1", "2"], ["0x1F", "1", "2"]),
        (["true", "false", "true"], ["true", "false", "true"]),
        (["2024-01-01", "2024-01-02", "1"], ["2024-01-01", "2024-01-02", "1"]),
        (["1.0", "2.0", "3"], ["1.0", "2.0", "3"]),
        (["9" * 18, "1", "2"], [10**18 - 1, 1, 2]),
        (["9" * 25, "1", "2"], ["9" * 25, "1", "2"]),
        ([" 1", "2 ", "3"], [1, 2, 3]),
        (["Ünïcode ☃", '"a,b"', "c d"], ["Ünïcode ☃", "a,b", "c d"]),
        (["-0", "0", "1"], ["-0", "0", "1"]),
    ],
)
def test_ids_are_integers_only_when_all_are_written_so(tmp_path: Path, ids: list[str], expected: list[Any]) -> None:
    rows = "".join(f"{user},{number}\n" for number, user in enumerate(ids))
    frame = read_table(write(tmp_path, "user_id,item_id\n" + rows))
    assert columns_of(frame) == {"user_id": expected, "item_id": [0, 1, 2]}


def test_ids_that_turn_to_text_far_into_the_file(tmp_path: Path) -> None:
    users = [*map(str, range(150_000)), "last"]
    frame = read_table(write(tmp_path, "user_id,item_id\n" + "".join(f"{user},{user}0\n" for user in users)))
    assert frame["user_id"].tolist() == users
    assert frame["item_id"].tolist() == [f"{user}0" for user in users]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(-(10**18) + 1, 10**18 - 1), st.floats(0, 5)), min_size=1, max_size=8),
    st.sampled_from([",", "\t", ";", "|"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_numbers_come_back_as_they_were(rows: list[tuple[int, float]], delimiter: str, end: str) -> None:
    lines = [delimiter.join(("user_id", "item_id", "rating")), *(f"{u}{delimiter}7{delimiter}{r!r}" for u, r in rows)]
    frame = read_delimited((end.join(lines) + end).encode(), Columns())
    assert list(zip(frame["user_id"], frame["rating"], strict=True)) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a header line and at least one row"),
        ("\ufeff", "is empty; expected a header line and at least one row"),
        ("\n\r\n\n", "is empty; expected a header line and at least one row"),
        ("user_id,item_id", "has no rows"),
        ("user_id,item_id\n", "has no rows"),
        ("user_id,item_id\n\n\n", "has no rows"),
        ("user_id,item_id\n1,2\n,4\n5,\n,8\n", "line 3: user_id is missing (2 such rows)"),
        ('user_id,item_id\n1,2\n"",4\n', "line 3: user_id is missing (1 such rows)"),
        ("user_id,item_id\n1,2\n3,4\n\n\n5,\t\n", "line 6: item_id is missing (1 such rows)"),
        ("user_id,item_id\n1,2\nx,  \n", "line 3: item_id is missing (1 such rows)"),
        ("user_id,item_id,rating\n1,2,3\n3,4,good\n", "line 3: rating is 'good'; expected a number"),
        ("\nuser_id,item_id,rating\n\n1,2,3\n\n3,4,good\n", "line 6: rating is 'good'; expected a number"),
        ("rating,user_id,item_id\n1,2,3\n,4,5\n", "line 3: rating is missing (1 such rows)"),
        ("user_id,item_id\n1,2\n3\n", "line 3: 1 columns; expected 2, as in the first line"),
        ("user_id,item_id\n1,2\n\n3,4,5\n", "line 4: 3 columns; expected 2, as in the first line"),
        (b"user_id,item_id\n1,2\n3,caf\xe9\n", "line 3 is not UTF-8 text"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert str(error.value) in {f"{path} {message}", f"{path}: {message}"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1::2::3::4\n1::x::good::4\n", "line 2: rating is 'good'; expected a number"),
        ("1::2::3::4\n1::::3::4\n", "line 2: item_id is missing (1 such rows)"),
        ("1::2::3::4\n1::2\n", "line 2: 3 columns; expected 7, as in the first line"),
    ],
)
def test_without_a_header_lines_count_from_the_first(content: str, message: str) -> None:
    names = ["user_id", "_1", "item_id", "_2", "rating", "_3", "timestamp"]
    with pytest.raises(DataError) as error:
        read_delimited(content.encode(), RATED, delimiter=":", names=names, where="ratings.dat")
    assert str(error.value) == f"ratings.dat {message}"


def test_a_wrong_column_lists_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path, "userId,movieId,score\n1,2,3\n")
    for columns, message in (
        (Columns(), "has no column 'user_id' (--user-column); it has: userId, movieId, score"),
        (Columns("userId"), "has no column 'item_id' (--item-column); it has: userId, movieId, score"),
        (Columns("userId", "movieId", "stars"), "has no column 'stars' (--rating-column); it has: "),
        (Columns("userId", "movieId", None, "time"), "has no column 'time' (--timestamp-column); it has: "),
    ):
        with pytest.raises(DataError) as error:
            read_table(path, columns)
        assert f"{path} {message}" in str(error.value)


def test_another_delimiter_shows_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'user_id' .* it has: user_id:item_id$"):
        read_table(write(tmp_path, "user_id:item_id\n1:2\n"))


def test_a_column_cannot_be_two_things(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match=r"column 'user_id' of .* is named for both user_id and item_id"):
        read_table(path, Columns(item="user_id"))


@pytest.mark.parametrize("given", [{}, {"rating": "rating"}, {"timestamp": "timestamp"}, {"weight": "rating"}])
def test_movielens_names_need_no_options_beside_those_of_other_columns(tmp_path: Path, given: dict[str, str]) -> None:
    found = columns_of(read_table(write(tmp_path, "userId,movieId,rating,timestamp\n1,2,3,4\n"), Columns(**given)))
    value = "weight" if "weight" in given else "rating"
    assert found == {"user_id": [1], "item_id": [2], value: [3.0], "timestamp": [4]}


def test_a_column_named_for_something_else_is_not_taken_for_its_own_name(tmp_path: Path) -> None:
    path = write(tmp_path, "rating,timestamp,extra\n1,2,x\n")
    assert columns_of(read_table(path, Columns(user="rating", item="timestamp"))) == {"user_id": [1], "item_id": [2]}
    path = write(tmp_path, "user_id,item_id,rating,timestamp\n1,2,3,4\n")
    found = columns_of(read_table(path, Columns(weight="rating", event="timestamp")))
    assert found == {"user_id": [1], "item_id": [2], "weight": [3.0], "event": ["4"]}
    with pytest.raises(DataError, match="named for both rating and weight"):
        read_table(path, Columns(rating="rating", weight="rating"))


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,item_id,item_id\n1,2,3\n")
    with pytest.raises(DataError, match="has 2 columns named 'item_id'; expected one"):
        read_table(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv is missing; expected a ratings file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="is a folder; expected a ratings file"):
        read_table(tmp_path)


def test_broken_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        read_table(write(tmp_path, "user_id,item_id\n1,2\n", "ratings.parquet"))
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        read_table(write(tmp_path, "", "empty.parquet"))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"user_id": [1], "movie": [2]}), r"has no column 'item_id' .* it has: user_id, movie"),
        (pd.DataFrame({"user_id": [], "item_id": []}), "has no rows"),
        (pd.DataFrame({"user_id": [1, 2], "item_id": ["a", None]}), r"row 2: item_id is missing \(1 such rows\)"),
        (pd.DataFrame({"user_id": [1], "item_id": [2], "rating": ["good"]}), "rating has values of type .*string"),
    ],
)
def test_an_error_of_parquet_names_the_row(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    frame.to_parquet(tmp_path / "ratings.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "ratings.parquet")


def test_lists(tmp_path: Path) -> None:
    frame = read_lists(write(tmp_path, "0 5 3\n\n7\n2 5\r\n", "train.txt"))
    assert columns_of(frame) == {"user_id": [0, 0, 2], "item_id": [5, 3, 5]}
    assert frame["user_id"].dtype == "int64"


def test_lists_of_text_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    frame = read_lists(write(tmp_path, "\ufeff0 05 é\n1 5", "train.txt"))
    assert columns_of(frame) == {"user_id": [0, 0, 1], "item_id": ["05", "é", "5"]}


def test_errors_of_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt is missing; expected lines of 'user item item …'"):
        read_lists(tmp_path / "none.txt")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_lists(tmp_path)
    for content in ("", "\n", "1\n2\n"):
        with pytest.raises(DataError, match="is empty; expected lines of 'user item item …'"):
            read_lists(write(tmp_path, content))
    with pytest.raises(DataError, match=r"is not text: .* at byte 2"):
        read_lists(write(tmp_path, b"1 \xff\n"))


def test_compressed_and_binary_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "interactions.csv"
    path.write_bytes(gzip.compress(b"user_id,item_id\n1,2\n"))
    with pytest.raises(DataError, match=r"compressed files must end in \.gz or \.zst, others be unpacked first"):
        read_table(path)
    path.write_text("user_id,item_id\n1,2\n", encoding="utf-16")
    with pytest.raises(DataError, match="is not UTF-8 text of one row a line"):
        read_table(path)
    path.write_text("x" * 200_000)
    with pytest.raises(DataError, match="has no header line: field larger than field limit"):
        read_table(path)


@pytest.mark.parametrize("text", ['{"user_id": 7, "item_id": 1}\n', '[{"user_id": 7}]', "[\n  {\n", "{\n"])
def test_json_without_its_name_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"rows\.json is JSON; expected .* in a file that ends in \.jsonl or \.ndjson"):
        read_table(packed(tmp_path / "rows.json", text))


ROWS = "user_id,item_id,rating\n7,x,4.5\n8,y,3\n7,y,1\n"


def packed(path: Path, text: str) -> Path:
    with pa.output_stream(path, compression="detect") as stream:
        stream.write(text.encode(errors="surrogateescape"))
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_text(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "plain.csv").write_text(ROWS)
    expected = read_table(tmp_path / "plain.csv")
    pd.testing.assert_frame_equal(read_table(packed(tmp_path / f"packed.csv{suffix}", ROWS)), expected)
    with pytest.raises(DataError, match=rf"wrong.csv{suffix} line 3: rating is 'good'; expected a number"):
        read_table(packed(tmp_path / f"wrong.csv{suffix}", "user_id,item_id,rating\n7,x,1\n7,y,good\n"))
    whole = packed(tmp_path / f"long.csv{suffix}", ROWS + "".join(f"{i},z,1\n" for i in range(9999))).read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("other", b"no such thing, at all")):
        (tmp_path / f"{name}.csv{suffix}").write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.csv{suffix} (cannot be read|is empty)"):
            read_table(tmp_path / f"{name}.csv{suffix}")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson.gz", "rows.jsonl.zst"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    rows = '{"user_id": 7, "item_id": "x", "rating": 4.5, "more": [1]}\n{"user_id": 8, "item_id": "y", "rating": 3}\n'
    frame = read_table(packed(tmp_path / name, rows))
    assert frame.to_dict("list") == {"user_id": [7, 8], "item_id": ["x", "y"], "rating": [4.5, 3.0]}
    renamed = read_table(packed(tmp_path / name, rows.replace("user_id", "who")), Columns(user="who"))
    assert renamed["user_id"].tolist() == [7, 8]
    items = read_items(packed(tmp_path / name, '{"item_id": 1, "genre": ["a", "b"]}\n{"item_id": 2}\n'))
    assert [None if genres is None else list(genres) for genres in items["genre"]] == [["a", "b"], None]
    for text, said in (
        ('{"user_id": 7}\n', "has no column 'item_id'"),
        ('{"user_id": 7, "item_id": null}\n{"user_id": 7, "item_id": 1}\n', "row 1: item_id is missing"),
        ('{"user_id": 7, "item_id": 1, "rating": "good"}\n', "rating has values of type string; expected numbers"),
        ("user_id,item_id\n1,2\n", "row 1: Invalid value; expected an object a line"),
        ('[{"user_id": 7, "item_id": 1}]\n', "row 1: .* from object to array; expected an object a line"),
        (
            '{"user_id": 7, "item_id": 1}\n' * 50_000 + '{"user_id": "x", "item_id": 1}\n',
            r"row 50001: Column\(/user_id\) changed from number to string; expected an object a line, and values",
        ),
        ("", "is not readable as JSON lines: Empty JSON file"),
        ('{"user_id": "\udcfc", "item_id": 1}\n', "is not readable as JSON lines: .*UTF8"),
    ):
        with pytest.raises(DataError, match=said):
            read_table(packed(tmp_path / name, text))


def test_numbers_that_floats_confuse_are_no_ids(tmp_path: Path) -> None:
    """Readers of JSON turn whole numbers of more than 64 bits into floats."""
    rows = "".join(f'{{"user_id": {2**64 + i}, "item_id": {i}}}\n' for i in range(9))
    with pytest.raises(DataError, match=r"^user_id has floats of 2\^53 and more"):
        Interactions.from_frame(read_table(packed(tmp_path / "rows.jsonl", rows)))


def test_ids_of_json_lines_that_look_like_dates_stay_text(tmp_path: Path) -> None:
    """As of a newspaper's issues: the same ids as from CSV, and two ways to write a moment are two ids."""
    frame = pd.DataFrame({"day": ["2024-01-05", "2024-01-05 00:00:00"], "item_id": [1, 2], "timestamp": "2024-02-01"})
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for name in ("rows.jsonl", "rows.csv"):
        found = read_table(tmp_path / name, Columns(user="day"))
        assert found["user_id"].tolist() == frame["day"].tolist()
        assert found["timestamp"].astype("datetime64[s]").astype(str).tolist() == ["2024-02-01"] * 2


@pytest.mark.parametrize("name", ["rows.csv.GZ", "rows.JSONL.GZ"])
def test_compressed_files_in_upper_case(tmp_path: Path, name: str) -> None:
    text = b'{"user_id": 1, "item_id": 2}\n' if "JSONL" in name else b"user_id,item_id\n1,2\n"
    (tmp_path / name).write_bytes(gzip.compress(text))
    assert columns_of(read_table(tmp_path / name)) == {"user_id": [1], "item_id": [2]}
