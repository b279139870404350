"""Tables of other libraries give the same interactions as the DataFrame with the same rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recvae.data.frames import to_frame
from recvae.data.interactions import Interactions
from recvae.errors import ParameterError

FRAME = pd.DataFrame(
    {
        "user_id": ["ann", "bob", "ann"],
        "item_id": [7, 9, 9],
        "rating": [4.0, 2.5, 5.0],
        "timestamp": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"]),
    }
)


def to_polars(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("polars").from_pandas(frame)


def to_duckdb(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("duckdb").from_arrow(pa.Table.from_pandas(frame))


def to_ibis(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("ibis").memtable(frame)


@pytest.mark.parametrize("convert", [pa.Table.from_pandas, to_polars, to_duckdb, to_ibis])
def test_tables_of_other_libraries(convert: Callable[[pd.DataFrame], Any]) -> None:
    found, expected = Interactions.from_frame(convert(FRAME)), Interactions.from_frame(FRAME)
    assert found.user_ids.tolist() == expected.user_ids.tolist()
    assert found.item_ids.tolist() == expected.item_ids.tolist()
    assert np.array_equal(found.user_items.toarray(), expected.user_items.toarray())
    assert found.rating is not None
    assert found.timestamp is not None
    assert expected.timestamp is not None
    assert found.rating.tolist() == FRAME["rating"].tolist()
    assert (found.timestamp.astype("datetime64[s]") == expected.timestamp.astype("datetime64[s]")).all()


def test_categories_of_polars() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"user_id": ["b", "a"], "item_id": [1, 1]}).cast({"user_id": polars.Categorical})
    assert Interactions.from_frame(frame).user_ids.tolist() == ["a", "b"]


def test_column_names_become_text() -> None:
    assert to_frame(pd.DataFrame([[1]], columns=[7]), "items").columns.tolist() == ["7"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([(1, 2)], "the table is a builtins.list; expected a pandas or polars DataFrame"),
        ({"user_id": [1]}, "the table is a builtins.dict; expected"),
        (None, "the table is a builtins.NoneType; expected"),
        (pa.chunked_array([[1]]), "the table cannot be read as an Arrow table"),
    ],
)
def test_other_objects_are_refused(table: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Interactions.from_frame(table)


def test_a_lazy_table_is_to_be_collected() -> None:
    polars = pytest.importorskip("polars")
    with pytest.raises(ParameterError, match=r"LazyFrame; expected .*; call its collect\(\) first"):
        Interactions.from_frame(polars.LazyFrame({"user_id": [1], "item_id": [1]}))
