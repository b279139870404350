"""Interactions: ids of every kind, duplicates, filters, and an order of rows that changes nothing."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recvae.data.columns import Columns
from recvae.data.interactions import Interactions
from recvae.errors import DataError, ParameterError

ARROW_TEXT, ARROW_DICTIONARY = (pd.ArrowDtype(kind) for kind in (pa.string(), pa.dictionary(pa.int32(), pa.string())))


def table(*interactions: tuple[Any, ...]) -> pd.DataFrame:
    names = ["user_id", "item_id", "rating", "timestamp"]
    return pd.DataFrame(list(interactions), columns=names[: len(interactions[0])])


def dated(times: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"user_id": range(len(times)), "item_id": 1, "timestamp": times})


def named(data: Interactions) -> list[tuple[Any, Any]]:
    return list(zip(data.user_ids[data.user_idx], data.item_ids[data.item_idx], strict=True))


def test_from_frame() -> None:
    data = Interactions.from_frame(table(("bob", 7, 4), ("ann", 9, 5), ("bob", 3, 1)))
    assert data.user_ids.tolist() == ["ann", "bob"]
    assert data.item_ids.tolist() == [3, 7, 9]
    assert named(data) == [("bob", 7), ("ann", 9), ("bob", 3)]
    assert data.rating is not None
    assert data.rating.tolist() == [4.0, 5.0, 1.0]
    assert data.timestamp is None
    assert data.part is None
    assert (len(data), data.n_users, data.n_items, data.n_duplicates) == (3, 2, 3, 0)
    assert data.user_idx.dtype == data.item_idx.dtype == np.int32


def test_user_items_is_binary_float32_and_sorted() -> None:
    user_items = Interactions.from_frame(table(("b", 7, 4), ("a", 9, 5), ("b", 3, 0), ("b", 9, 2))).user_items
    assert isinstance(user_items, sparse.csr_matrix)
    assert user_items.dtype == np.float32
    assert user_items.has_sorted_indices
    assert user_items.toarray().tolist() == [[0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("ids", "in_order"),
    [
        ([3, -1, 2], [-1, 2, 3]),
        (["b", "B", "é"], ["B", "b", "é"]),
        ([2.5, 1.5, -3.0], [-3.0, 1.5, 2.5]),
        (pd.Series([2.5, 1, 7], dtype=object), [1, 2.5, 7]),
        ([pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-01"), pd.Timestamp("2025-01-01")], None),
        (pd.Categorical(["b", "c", "a"], categories=["c", "b", "a"]), ["a", "b", "c"]),
        (pd.array([3, 1, 2], dtype="Int64"), [1, 2, 3]),
        (pd.array(["b", "a", "c"], dtype="string"), ["a", "b", "c"]),
        (pd.Series(["b", "a", "c"], dtype=ARROW_DICTIONARY), ["a", "b", "c"]),
    ],
)
def test_ids_of_any_kind(ids: Any, in_order: list[Any] | None) -> None:
    series = pd.Series(ids)
    data = Interactions.from_frame(pd.DataFrame({"user_id": series, "item_id": series}))
    for index in (data.user_ids, data.item_ids):
        assert index.tolist() == (in_order or sorted(ids))
        assert not isinstance(index, pd.MultiIndex | pd.CategoricalIndex)
        assert index.get_indexer(index).tolist() == [0, 1, 2]
    assert named(data) == [(id_, id_) for id_ in ids]


@pytest.mark.parametrize(
    "ids",
    [
        np.array([2.0, 1.0, 2.0]),
        np.array([2.0, 1.0, 2.0], dtype=np.float32),
        pd.array([2, 1, 2], dtype="Float64"),
        np.array([2, 1, 2], dtype=np.int32),
        np.array([2, 1, 2], dtype=np.uint64),
        pd.array([2, 1, 2], dtype="UInt8"),
        np.array([2, 1.0, 2.0], dtype=object),
        pd.Categorical([2.0, 1.0, 2.0]),
        [Decimal(2), Decimal("1.0"), Decimal(2)],
        pd.Series([2, 1, 2], dtype=pd.ArrowDtype(pa.decimal128(20, 0))),
    ],
)
def test_whole_numbers_of_any_type_are_the_same_ids(ids: Any) -> None:
    data = Interactions.from_frame(pd.DataFrame({"user_id": ids, "item_id": [5, 6, 7]}))
    assert data.user_ids.dtype == np.int64
    assert data.user_ids[data.user_idx].tolist() == [2, 1, 2]


def test_numbers_that_int64_does_not_hold_stay_what_they_are() -> None:
    large = Interactions.from_frame(pd.DataFrame({"user_id": np.array([2**63, 1], np.uint64), "item_id": [5, 6]}))
    assert large.user_ids.tolist() == [1, 2**63]
    for number in (Decimal(2**63), Decimal("1.5")):
        kept = Interactions.from_frame(pd.DataFrame({"user_id": [Decimal(1), number], "item_id": [5, 6]}))
        assert kept.user_ids.tolist() == [Decimal(1), number]


def test_columns_are_named_by_text_or_number() -> None:
    frame = pd.DataFrame([[5, "x", 1.0], [6, "y", 2.0]], columns=[0, 1, 2])
    data = Interactions.from_frame(frame, Columns(user="0", item="1", rating="2"))
    assert named(data) == [(5, "x"), (6, "y")]
    assert frame.columns.equals(pd.RangeIndex(3))


def test_duplicates_are_one_play_with_the_highest_rating_at_its_earliest_time() -> None:
    frame = table(("a", 1, 2, 50), ("b", 1, 3, 9), ("a", 1, 5, 70), ("a", 2, 1, 1), ("a", 1, 5, 99), ("a", 1, 4, 10))
    data = Interactions.from_frame(frame.assign(part=[2, 0, 0, 1, 1, 1]))
    assert data.n_duplicates == 3
    assert named(data) == [("a", 1), ("b", 1), ("a", 2)]
    assert data.rating is not None
    assert data.timestamp is not None
    assert data.part is not None
    assert data.rating.tolist() == [5.0, 3.0, 1.0]
    assert data.timestamp.tolist() == [70, 9, 1]
    assert data.part.tolist() == [0, 0, 1]
    assert data.part.dtype == np.int8
    assert data.user_items.max() == 1


def test_a_duplicate_without_timestamp_takes_the_one_there_is() -> None:
    data = Interactions.from_frame(table(("a", 1, 2, np.nan), ("a", 1, 2, 7.0), ("b", 1, 2, np.nan)))
    assert data.timestamp is not None
    assert np.array_equal(data.timestamp, [7.0, np.nan], equal_nan=True)


@pytest.mark.parametrize("kind", ["int64", "uint64", "datetime64[ns]"])
def test_times_that_float64_does_not_hold_stay_exact_beside_a_duplicate(kind: str) -> None:
    frame = table(("a", 1, 3, 2**60 + 1), ("a", 1, 5, 2**60 + 3), ("a", 1, 5, 2**60 + 2), ("b", 1, 3, 2**60 + 5))
    data = Interactions.from_frame(frame.astype({"timestamp": kind}))
    assert data.timestamp is not None
    assert data.timestamp.dtype == kind
    assert data.timestamp.astype("int64").tolist() == [2**60 + 2, 2**60 + 5]


def test_the_missing_time_of_the_highest_rating_stays_missing_beside_a_duplicate() -> None:
    data = Interactions.from_frame(table(("a", 1, 2, 7.0), ("a", 1, 5, np.nan), ("b", 1, 2, 9.0)))
    assert data.timestamp is not None
    assert np.array_equal(data.timestamp, [np.nan, 9.0], equal_nan=True)


@st.composite
def rated_interactions(draw: st.DrawFn) -> pd.DataFrame:
    ids = draw(st.sampled_from([st.integers(0, 8), st.sampled_from("abcde"), st.sampled_from([0.5, 2.5, -1.0])]))
    row = st.tuples(ids, st.integers(0, 8), st.integers(1, 5), st.integers(0, 9), st.integers(0, 2))
    rows = draw(st.lists(row, min_size=1, max_size=40))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp", "part"])


@pytest.mark.parametrize("spread", [1, 3, 1000, 2**40])
@pytest.mark.parametrize("least", [0, -5, 2**62, -(2**63)])
def test_integer_ids_near_and_far_apart(least: int, spread: int) -> None:
    ids = [least + spread * step for step in (3, 0, 7, 3, 1)]
    data = Interactions.from_frame(pd.DataFrame({"user_id": ids, "item_id": range(5)}))
    assert data.user_ids.tolist() == sorted(set(ids))
    assert data.user_ids.dtype == np.int64
    assert [user_id for user_id, _ in named(data)] == ids
    assert data.user_idx.dtype == np.int32


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rated_interactions(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(frame: pd.DataFrame, random: Any) -> None:
    order = list(range(len(frame)))
    random.shuffle(order)
    one, other = Interactions.from_frame(frame), Interactions.from_frame(frame.iloc[order])
    assert one.user_ids.tolist() == other.user_ids.tolist()
    assert one.item_ids.tolist() == other.item_ids.tolist()
    assert np.array_equal(one.user_items.toarray(), other.user_items.toarray())
    assert one.n_duplicates == other.n_duplicates == len(frame) - len(one)
    for name in ("rating", "timestamp", "part"):
        values, shuffled = (dict(zip(named(data), getattr(data, name), strict=True)) for data in (one, other))
        assert values == shuffled


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rated_interactions())
def test_interactions_stand_in_the_order_of_the_source(frame: pd.DataFrame) -> None:
    expected = list(dict.fromkeys(zip(frame["user_id"], frame["item_id"], strict=True)))
    assert named(Interactions.from_frame(frame)) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([3, 1, 2], [3, 1, 2]),
        ([3.5, 1.0, 2.0], [3.5, 1.0, 2.0]),
        (["3", "1", "20"], [3, 1, 20]),
        (pd.array([3, 1, 2], dtype="Int64"), [3, 1, 2]),
        ([datetime.date(2024, 1, d) for d in (3, 1, 2)], ["2024-01-03", "2024-01-01", "2024-01-02"]),
        (["2024-01-03", "2024-01-01T12:00:00", "2024-01-02"], ["2024-01-03", "2024-01-01T12", "2024-01-02"]),
        (["2024-01-03T00:00+02:00", "2024-01-03T00:00Z", "2024-01-02"], ["2024-01-02T22", "2024-01-03", "2024-01-02"]),
        (pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02"]), ["2024-01-03", "2024-01-01", "2024-01-02"]),
        (
            pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02"]).tz_localize("Asia/Tokyo"),
            ["2024-01-02T15", "2023-12-31T15", "2024-01-01T15"],
        ),
        (pd.Series([3, 1, 2], dtype=pd.ArrowDtype(pa.int64())), [3, 1, 2]),
        (pd.Series(["3", "1", "20"], dtype=ARROW_TEXT), [3, 1, 20]),
        (pd.Series(["2024-01-03", "2024-01-01", "1066"], dtype=ARROW_TEXT), ["2024-01-03", "2024-01-01", "1066"]),
        (pd.Series(["2024-01-03"] * 3, dtype=ARROW_DICTIONARY), ["2024-01-03"] * 3),
    ],
)
def test_timestamps(times: Any, expected: list[Any]) -> None:
    frame = pd.DataFrame({"user_id": [1, 2, 3], "item_id": [1, 2, 3], "timestamp": pd.Series(times)})
    found = Interactions.from_frame(frame).timestamp
    assert found is not None
    if isinstance(expected[0], str):
        assert found.dtype.kind == "M"
        assert (found == np.array(expected, dtype="datetime64[ns]")).all()
    else:
        assert found.dtype.kind in "if"
        assert found.tolist() == expected


def test_missing_timestamps_stay_missing() -> None:
    for times in ([1, None, 3], pd.array([1, None, 3], dtype="Int64"), ["2024-01-01", None, "2024-01-02"], [None] * 3):
        frame = pd.DataFrame({"user_id": [1, 2, 3], "item_id": [1, 2, 3], "timestamp": pd.Series(times)})
        found = Interactions.from_frame(frame).timestamp
        assert found is not None
        assert found.dtype.kind in "fM"
        assert np.isnat(found)[1] if found.dtype.kind == "M" else np.isnan(found)[1]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table((1, 2)).iloc[:0], "the table has no rows"),
        (table((1, 1j), (2, 2j)), "item_id has values of type complex such as 1j; expected numbers or text"),
        (table((1, 2, 3, 4.0), (1, 3, 4, -np.inf)), "timestamp is -inf in row 1; expected a finite number"),
        (
            table((1, 2), (1, 3)).assign(timestamp=pd.array([None, np.inf], dtype="Float64")),
            "timestamp is inf in row 1; expected a finite number",
        ),
        (table((1, 2), (None, 3), (None, 4)), "user_id is missing in 2 rows, first in row 1"),
        (table(("a", "x"), ("b", None)), "item_id is missing in 1 rows, first in row 1"),
        (table((1, 2), (3, np.nan)), "item_id is missing in 1 rows, first in row 1"),
        (table((1, [2]), (3, [4])), "item_id has values of unhashable type: 'list'; expected numbers or text"),
        (
            table(("7", 1), (7, 1), ("a", 1)),
            "user_id has numbers such as 7 and text such as '7'; expected ids of one kind, numbers or text",
        ),
        (table((1, True), (1, 2)), "item_id has bool such as True and numbers such as 2; expected ids of one kind"),
        (table(((2, "a"), 1), ((1, "b"), 1)), r"user_id has values of type tuple such as \(2, 'a'\); expected numbers"),
        (table((b"7", 1), (b"8", 1)), "user_id has values of type bytes such as b'7'; expected numbers or text"),
        (
            table((1, 1), (2, 1)).assign(user_id=pd.Series(["b", "\ud800a"], dtype=object)),
            r"user_id is '.ud800a' somewhere, which no file can hold \(surrogates not allowed\)",
        ),
        (table((UUID(int=7), 1), (UUID(int=8), 1)), r"user_id has values of type UUID such as UUID\(.*\); expected "),
        (table((1, {"x"}.__class__), (1, 2)), "item_id has numbers such as 2 and type such as"),
        (table((1, 2, 3.0), (1, 3, None)), "rating is nan in row 1; expected a number"),
        (table((1, 2, "3"), (1, 3, "good")), "rating is 'good' in row 1; expected a number"),
        (table((1, 2, 3, 4), (1, 3, 4, "03/04/2020")), "timestamp is '03/04/2020' in row 1; expected a number or an"),
        (table((1, 2, 3, "2020-01-01"), (1, 3, 4, "x")), "timestamp is 'x' in row 1; expected a number or an ISO 8601"),
        (table((1, 2), (1, 3)).assign(part=[0, 3]), r"part is 3 in row 1; expected 0 \(train\), 1 \(validation\) or 2"),
        (table((1, 2), (1, 3)).assign(part=["train", "test"]), "part is 'train' in row 0; expected 0"),
        (table((1, 2)).set_axis(["user_id", "film"], axis=1), "the table has no column 'item_id' .* user_id, film"),
        (table((1, 2)).set_axis(["user_id", "user_id"], axis=1), "the table has 2 columns named 'user_id'"),
        (table((1, 2, 3, 4)).set_axis(["user_id", "item_id", "part", "part"], axis=1), "2 columns named 'part'"),
        (dated(pd.Series(["x"], dtype=ARROW_TEXT)), "timestamp is 'x' in row 0; expected a number or"),
        (
            dated(pd.Series([datetime.time(1)], dtype=pd.ArrowDtype(pa.time64("us")))),
            "timestamp is '01:00:00' in row 0",
        ),
        (
            dated(pd.Series([1], dtype=pd.ArrowDtype(pa.duration("s")))),
            r"timestamp is Timedelta\(.*\) in row 0; expected",
        ),
        (dated(pd.Series([pd.Timedelta(1)])), r"timestamp is Timedelta\(.*\) in row 0; expected a number or an ISO"),
        (dated(pd.Series([1j])), "timestamp is 1j in row 0; expected a number or an ISO 8601 date"),
        (table((1, 2, 1j)), "rating is 1j in row 0; expected a number"),
        (table((1, 2, pd.Timestamp(0))), r"rating is Timestamp\(.*\) in row 0; expected a number"),
        (
            table((pd.Interval(0, 1), 2)),
            r"user_id has values of type Interval such as Interval\(0, 1, .*; expected numb",
        ),
        (
            table((1, pd.Period("2024-01-01"))),
            r"item_id has values of type Period such as Period\(.*; expected numbers",
        ),
        (
            table((2**70, 2), (1, 2)),
            "user_id has numbers that int64 does not hold; expected text, or a column of uint64",
        ),
        (
            table((1, 2), (2**70, 2)),
            "user_id has numbers that int64 does not hold; expected text, or a column of uint64",
        ),
        (
            table((Fraction(1, 3), 2), (1, 2)),
            "user_id has Fraction such as .* and numbers such as 1; expected ids of one",
        ),
        (
            table((Decimal(1), 2), (Decimal("inf"), 2)),
            "user_id has numbers that are not finite; expected finite ones or text",
        ),
    ],
)
def test_what_a_table_cannot_hold(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Interactions.from_frame(frame)


def test_a_column_cannot_be_two_things() -> None:
    with pytest.raises(DataError, match="column 'item_id' of the table is named for both item_id and rating"):
        Interactions.from_frame(table((1, 2)), Columns(rating="item_id"))


def test_from_file(tmp_path: Path) -> None:
    path = tmp_path / "interactions.tsv"
    path.write_text("who\tuser_id\titem_id\n7\tx\tb\n3\ty\ta\n7\tz\tb\n")
    data = Interactions.from_file(path, Columns(user="who"))
    assert named(data) == [(7, "b"), (3, "a")]
    assert data.n_duplicates == 1


MATRIX = np.array([[0, 3, 0, 0], [1, 0, 0, 2], [0, 0, 0, 0]], dtype=np.float32)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.coo_matrix])
def test_from_csr(kind: Callable[[Any], Any]) -> None:
    user_items = kind(MATRIX)
    data = Interactions.from_csr(user_items)
    assert data.user_ids.tolist() == [0, 1]
    assert data.item_ids.tolist() == [0, 1, 3]
    assert data.rating is not None
    assert dict(zip(named(data), data.rating, strict=True)) == {(0, 1): 3.0, (1, 0): 1.0, (1, 3): 2.0}
    assert (user_items.toarray() == MATRIX).all()


def test_from_csr_skips_zeros_that_are_stored() -> None:
    user_items = sparse.csr_matrix(([1.0, 0.0, 2.0], [0, 1, 2], [0, 2, 3]), shape=(2, 3))
    assert named(Interactions.from_csr(user_items)) == [(0, 0), (1, 2)]
    assert user_items.nnz == 3


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize(
    ("users", "items"), [(["b", "a"], ["x", "z", "y"]), (["", "ü"], [5, 3, 9]), ([9, -4], [0.5, 3.0, 2.5])]
)
def test_from_csr_round_trip(kind: Callable[[Any], Any], users: list[Any], items: list[Any]) -> None:
    interactions = [(users[0], items[0]), (users[0], items[2]), (users[1], items[1]), (users[1], items[0])]
    frame = pd.DataFrame({"user_id": [user for user, _ in interactions], "item_id": [item for _, item in interactions]})
    data = Interactions.from_frame(frame)
    for user_ids, item_ids in ((data.user_ids, data.item_ids), (iter(data.user_ids), (i for i in data.item_ids))):
        back = Interactions.from_csr(kind(data.user_items), user_ids, item_ids)
        assert back.user_ids.equals(data.user_ids)
        assert back.item_ids.equals(data.item_ids)
        assert np.array_equal(back.user_items.toarray(), data.user_items.toarray())


@pytest.mark.parametrize(("values", "expected"), [([2, 3, 1], {(0, 0): 5.0, (0, 1): 1.0}), ([2, -2, 1], {(0, 1): 1.0})])
def test_from_csr_sums_repeated_entries_as_scipy_does(values: list[float], expected: dict[Any, float]) -> None:
    user_items = sparse.csr_matrix((np.array(values, dtype=np.float64), [0, 0, 1], [0, 3]), shape=(1, 2))
    data = Interactions.from_csr(user_items)
    assert data.rating is not None
    assert dict(zip(named(data), data.rating, strict=True)) == expected
    assert user_items.data.tolist() == values
    assert data.n_duplicates == 0


def test_from_csr_keeps_the_matrixs_order() -> None:
    user_items = sparse.csr_matrix(([1.0, 2.0, 3.0], [2, 0, 1], [0, 2, 3]), shape=(2, 3))
    assert named(Interactions.from_csr(user_items)) == [(0, 2), (0, 0), (1, 1)]


def test_from_csr_takes_one_row_of_an_array() -> None:
    row: Any = sparse.csr_array(MATRIX)[1]
    data = Interactions.from_csr(row, user_ids=["u"])
    assert row.ndim == 1
    assert named(data) == [("u", 0), ("u", 3)]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (None, "user_items is a NoneType; expected a scipy CSR matrix"),
        ("x", "user_items is a str; expected a scipy CSR matrix"),
        (MATRIX, "user_items is a ndarray; expected a scipy CSR matrix"),
        (sparse.csr_matrix(([1.0], [7], [0, 1]), shape=(1, 2)), "user_items has indices from 7 to 7; expected 0 to 1"),
    ],
    ids=["None", "text", "dense", "index outside"],
)
def test_from_csr_refuses_what_is_no_matrix(matrix: Any, message: str) -> None:
    with pytest.raises(ParameterError) as refused:
        Interactions.from_csr(matrix)
    assert str(refused.value) == message


def test_from_csr_needs_an_id_for_every_row_and_column() -> None:
    with pytest.raises(ParameterError, match="user_ids has 2 entries but user_items has 3 rows"):
        Interactions.from_csr(sparse.csr_matrix(MATRIX), user_ids=["a", "b"])
    with pytest.raises(ParameterError, match="item_ids has 5 entries but user_items has 4 columns"):
        Interactions.from_csr(sparse.csr_matrix(MATRIX), item_ids=iter("abcde"))
    with pytest.raises(
        ParameterError, match="item_ids has 'a' more than once; expected a different id for each of the"
    ):
        Interactions.from_csr(sparse.csr_matrix(MATRIX), item_ids=list("aaba"))
    with pytest.raises(ParameterError, match="user_ids has 7 more than once"):
        Interactions.from_csr(sparse.csr_matrix(MATRIX), user_ids=[7, 8, 7])
    with pytest.raises(DataError, match="the table has no rows"):
        Interactions.from_csr(sparse.csr_matrix((2, 2)))


def test_select_drops_what_no_longer_occurs() -> None:
    data = Interactions.from_frame(table(("a", 1, 2, 5), ("b", 2, 3, 6), ("c", 1, 4, 7)).assign(part=[0, 1, 2]))
    kept = data.select(np.array([False, True, True]))
    assert named(kept) == [("b", 2), ("c", 1)]
    assert kept.user_ids.tolist() == ["b", "c"]
    assert kept.rating is not None
    assert kept.timestamp is not None
    assert kept.part is not None
    assert (kept.rating.tolist(), kept.timestamp.tolist(), kept.part.tolist()) == ([3, 4], [6, 7], [1, 2])
    assert len(data) == 3


STARRED = table(
    ("ann", "x", 5.0),
    ("ann", "y", 4.0),
    ("ann", "z", 3.5),
    ("bob", "x", 4.0),
    ("bob", "w", 4.5),
    ("cat", "x", 2.0),
    ("cat", "y", 1.0),
    ("ann", "x", 1.0),
)


def test_filters_count_what_they_take() -> None:
    data, counts = Interactions.from_frame(STARRED).filter(min_rating=3.5, min_item_users=2)
    assert named(data) == [("ann", "x"), ("bob", "x")]
    assert counts == {
        "rows": 8,
        "duplicate_rows": 1,
        "interactions_below_min_rating": 2,
        "interactions_below_min_item_users": 3,
        "users_dropped": 1,
    }


def test_filtering_by_rating_includes_the_bound() -> None:
    data, counts = Interactions.from_frame(STARRED).filter(min_rating=4.0)
    assert named(data) == [("ann", "x"), ("ann", "y"), ("bob", "x"), ("bob", "w")]
    assert counts == {"rows": 8, "duplicate_rows": 1, "interactions_below_min_rating": 3, "users_dropped": 1}
    assert data.item_ids.tolist() == ["w", "x", "y"]


def test_items_are_filtered_before_users() -> None:
    data, counts = Interactions.from_frame(STARRED).filter(min_item_users=2, min_user_items=2)
    assert named(data) == [("ann", "x"), ("ann", "y"), ("cat", "x"), ("cat", "y")]
    assert counts["interactions_below_min_item_users"] == 2
    assert counts["interactions_below_min_user_items"] == 1
    assert counts["users_dropped"] == 1


def test_no_filter_takes_nothing() -> None:
    data = Interactions.from_frame(STARRED)
    kept, counts = data.filter(min_user_items=1, min_item_users=1)
    assert named(kept) == named(data)
    assert counts == {"rows": 8, "duplicate_rows": 1, "users_dropped": 0}


def test_nothing_left_says_which_filter_took_how_many() -> None:
    data = Interactions.from_frame(STARRED)
    with pytest.raises(DataError) as error:
        data.filter(min_rating=4.0, min_item_users=2, min_user_items=2)
    assert str(error.value) == (
        "no interactions are left of 8 rows: 1 duplicate rows, 3 interactions below min rating, "
        "2 interactions below min item users, "
        "2 interactions below min user items 2"
    )
    with pytest.raises(
        DataError, match=r"no interactions are left of 8 rows: 1 duplicate rows, 7 interactions below min rating 9$"
    ):
        data.filter(min_rating=9)


def test_filters_refuse() -> None:
    data = Interactions.from_frame(STARRED)
    with pytest.raises(ParameterError, match="min_user_items is -1; expected a whole number of at least 0"):
        data.filter(min_user_items=-1)
    with pytest.raises(ParameterError, match="min_item_users is -5; expected a whole number of at least 0"):
        data.filter(min_item_users=-5)
    wrong: list[tuple[str, Any]] = [("min_user_items", "x"), ("min_item_users", 2.5), ("min_rating", "x")]
    for name, value in [*wrong, ("min_rating", np.nan), ("min_rating", True)]:
        with pytest.raises(ParameterError, match=rf"^{name} is {value!r}; expected a (whole )?number of at least"):
            data.filter(**{name: value})
    with pytest.raises(ParameterError, match=r"min_rating is 3\.5 but the data have no ratings"):
        Interactions.from_frame(STARRED.drop(columns="rating")).filter(min_rating=3.5)
