"""Values of other types than numbers: an engine comes to what memory does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recvae.errors import DataError
from recvae.preparation.pipeline import prepare
from tests.preparation.test_engine import SPLITS, assert_same, content, table

pytest.importorskip("ibis", reason="the extra 'scale' is not installed")


@pytest.mark.parametrize(
    ("name", "split", "convert"),
    [
        ("rating", "leave-last", lambda values: values.astype(str)),
        ("rating", "leave-last", lambda values: values > 0),
        ("rating", "leave-last", lambda values: values.astype("int8")),
        ("timestamp", "temporal", lambda values: values.map(" {} ".format)),
        ("timestamp", "temporal", lambda values: pd.to_datetime(values.tolist(), unit="D").strftime(" %Y-%m-%d ")),
        ("timestamp", "strong", lambda values: values.map(" {} ".format).where(values > 3, "NA ")),
    ],
)
def test_types_of_a_parquet_file(tmp_path: Path, name: str, split: str, convert: Any) -> None:
    frame = table()
    frame[name] = convert(frame[name])
    frame.to_parquet(tmp_path / "interactions.parquet", index=False)
    assert_same(tmp_path / "interactions.parquet", SPLITS[split], "duckdb", tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("rating", ["good"], "rating has values of type .*string; expected numbers"),
        ("rating", [float("inf")], "row 3: rating is inf; expected a number"),
        ("timestamp", ["x"], "row 3: timestamp is 'x'; expected a number or an ISO 8601 date"),
    ],
)
@pytest.mark.parametrize("backend", [None, "duckdb"])
def test_wrong_values_of_a_parquet_file(
    tmp_path: Path, name: str, values: list[Any], message: str, backend: str | None
) -> None:
    frame = table().astype({name: object})
    frame[name] = pd.Series([frame[name][0] if isinstance(values[0], float) else "4"] * 2 + values * (len(frame) - 2))
    frame.to_parquet(tmp_path / "interactions.parquet", index=False)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "interactions.parquet", tmp_path / "out", replace(SPLITS["leave-last"], backend=backend))
    assert list(content(tmp_path)) == ["interactions.parquet"]


def test_likes_of_a_folder(tmp_path: Path) -> None:
    frame = table().drop_duplicates(["user_id", "item_id"])
    frame["rating"] = frame["rating"] > 2
    (tmp_path / "parts").mkdir()
    (tmp_path / "out").mkdir()
    frame.sort_values(["user_id", "item_id"]).to_parquet(tmp_path / "parts" / "0.parquet", index=False)
    frame.sort_values(["user_id", "item_id"]).to_parquet(tmp_path / "like.parquet", index=False)
    assert_same(tmp_path / "parts", SPLITS["leave-last"], "duckdb", tmp_path / "out", like=tmp_path / "like.parquet")


def test_infinite_times_of_a_folder(tmp_path: Path) -> None:
    frame = table().astype({"timestamp": "float64"})
    frame.loc[[1, 3], "timestamp"] = [float("inf"), float("-inf")]
    (tmp_path / "parts").mkdir()
    frame.to_parquet(tmp_path / "parts" / "0.parquet", index=False)
    with pytest.raises(DataError, match="timestamp is infinite in 2 rows; expected finite numbers"):
        prepare(tmp_path / "parts", tmp_path / "out", replace(SPLITS["leave-last"], backend="duckdb"))
