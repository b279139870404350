"""Wrong values in files: the message names the line, or the row counted from 1."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest

from recvae.data.columns import Columns
from recvae.data.interactions import Interactions
from recvae.data.readers import read_table
from recvae.errors import DataError

HEADER = "user_id,item_id,rating,timestamp,w\n"
WEIGHTED = Columns(weight="w")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}1,2,3,4,1\n1,3,inf,4,1\n", "line 3: rating is inf; expected a number"),
        (f"\n\n{HEADER}1,2,3,4,1\n\n\n1,3,4,4,0\n", "line 7: weight is 0.0; expected a number above 0 that float32"),
        (f'{HEADER}1,"2\n\n",3,4,1\n1,3,4,x,1\n', "line 5: timestamp is 'x'; expected a number or an ISO 8601 date"),
        (f"{HEADER}1,2,3,4,1\n1,3,4,2020-01-01x,1\n", "line 3: timestamp is '2020-01-01x'; expected a number"),
        (f"{HEADER}1,2,3,true,1\n1,3,4,false,1\n", "line 2: timestamp is True; expected a number or an ISO 8601 date"),
    ],
)
@pytest.mark.parametrize("name", ["interactions.csv", "interactions.csv.gz", "-"])
def test_the_line_of_a_wrong_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    with pa.output_stream(f"./{name}", compression="detect") as stream:
        stream.write(text.encode())
    with pytest.raises(DataError) as error:
        read_table(name, WEIGHTED)
    assert str(error.value).startswith(f"{'standard input' if name == '-' else name} {message}")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rating": [1.0, float("inf")]}, "row 2: rating is inf; expected a number"),
        ({"timestamp": ["2020-01-01", "x"]}, "row 2: timestamp is 'x'; expected a number or an ISO 8601 date"),
        ({"timestamp": [True, False]}, "row 1: timestamp is True; expected a number or an ISO 8601 date"),
        ({"timestamp": [None, True]}, "row 2: timestamp is True; expected a number or an ISO 8601 date"),
        ({"w": [1.0, -1.0]}, "row 2: weight is -1.0; expected a number above 0"),
    ],
)
def test_the_row_of_a_wrong_value_of_other_files(tmp_path: Path, wrong: dict[str, list[object]], message: str) -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "w": 1.0} | wrong)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    for name in ["rows.parquet"] + ["rows.jsonl"] * ("rating" not in wrong):  # JSON has no infinity
        with pytest.raises(DataError) as error:
            read_table(tmp_path / name, WEIGHTED)
        assert f"{name} {message}" in str(error.value)


def test_lists_are_no_ids(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [[3], [4]]})
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    for name in ("rows.parquet", "rows.jsonl"):
        with pytest.raises(DataError, match=rf"{name}: item_id has values of type list<.*>; expected numbers or text"):
            read_table(tmp_path / name)


def test_truth_values_are_ratings_and_no_timestamps() -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "rating": [True, False]})
    ratings = Interactions.from_frame(frame).rating
    assert ratings is not None
    assert ratings.tolist() == [1, 0]
    with pytest.raises(DataError, match="timestamp is True in row 0; expected a number or an ISO 8601 date"):
        Interactions.from_frame(frame.rename(columns={"rating": "timestamp"}))


def test_dates_with_spaces_around_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "timestamp": [" 2020-01-01 ", "2020-01-02"]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        times = Interactions.from_file(tmp_path / name).timestamp
        assert times is not None
        assert times.astype("datetime64[D]").astype(str).tolist() == ["2020-01-01", "2020-01-02"]


@pytest.mark.parametrize("kind", ["period[D]", "date32[pyarrow]", "timestamp[us][pyarrow]"])
def test_dates_of_other_types(kind: str) -> None:
    days = pd.to_datetime(pd.Series(["2020-01-01", "2020-01-02"]))
    column = days.dt.to_period("D") if kind == "period[D]" else pd.Series(days, dtype=kind)
    times = Interactions.from_frame(pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "timestamp": column})).timestamp
    assert times is not None
    assert times.astype("datetime64[D]").astype(str).tolist() == ["2020-01-01", "2020-01-02"]


def test_durations_are_no_times() -> None:
    frame = pd.DataFrame({"user_id": [1], "item_id": [3], "timestamp": pd.to_timedelta([5], unit="D")})
    with pytest.raises(DataError, match=r"timestamp is Timedelta.* in row 0; expected a number or an ISO 8601 date"):
        Interactions.from_frame(frame)


@pytest.mark.parametrize(("scale", "kind"), [(0, "int64"), (2, "float64")])
def test_decimals_as_times(tmp_path: Path, scale: int, kind: str) -> None:
    times = pa.array([1720673629, 5]).cast(pa.decimal128(38, scale))
    pa.parquet.write_table(pa.table({"user_id": [1, 2], "item_id": [3, 4], "timestamp": times}), tmp_path / "x.parquet")
    found = read_table(tmp_path / "x.parquet", Columns())["timestamp"]
    assert found.dtype == kind
    assert found.tolist() == [1720673629, 5]
