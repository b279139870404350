"""`Metadata`: every operator on every kind of column gives the items that a loop over the rows gives."""

import gc
from datetime import UTC, date, datetime
from typing import Any
from weakref import ref

import numpy as np
import pyarrow as pa
import pytest

from recvae.inference.rules.item_column import RuleError
from recvae.inference.rules.metadata import MOST_CHOICES, Metadata

ROWS: list[dict[str, Any]] = [
    {"genre": "Drama|Crime", "year": 1994, "price": 9.5, "in_stock": True, "tags": ["new", "blue"], "studio": "A"},
    {"genre": "Comedy", "year": 1990, "price": None, "in_stock": False, "tags": [], "studio": "B"},
    {"genre": None, "year": None, "price": 0.0, "in_stock": None, "tags": None, "studio": ""},
    {"genre": " Drama ", "year": 2010, "price": float("nan"), "in_stock": True, "tags": ["new"], "studio": " B "},
    {"genre": "", "year": 1989, "price": -3.25, "in_stock": True, "tags": ["red", None, "blue"], "studio": "é"},
]
DATES = [date(2020, 1, 1), None, date(2021, 6, 1), date(1960, 2, 29), date(2021, 6, 2)]
TITLES = ["One | Two", "One", "Two", "Three", "|"]


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    table = pa.Table.from_pylist([{"item_id": i, **row} for i, row in enumerate(ROWS)])
    table = table.append_column("released", pa.array(DATES)).append_column("title", pa.array(TITLES))
    table = table.append_column("shape", pa.array([{"a": 1}] * 5))
    return Metadata(table.append_column("code", pa.array(["x", "y", "x", None, "z"]).dictionary_encode()))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"genre": "Drama"}, [0, 3]),
        ({"genre": ["Crime", "Comedy"]}, [0, 1]),
        ({"genre": {"all": ["Crime", "Drama"]}}, [0]),
        ({"genre": {"not": "Drama"}}, [1, 2, 4]),
        ({"genre": {"not": ["Drama", "Comedy"]}}, [2, 4]),
        ({"genre": "no such genre"}, []),
        ({"genre": {"not": "no such genre"}}, [0, 1, 2, 3, 4]),
        ({"studio": "B"}, [1, 3]),
        ({"studio": ["é", "A"]}, [0, 4]),
        ({"year": 1990}, [1]),
        ({"year": [1990, 1994.0, 7]}, [0, 1]),
        ({"year": {"ge": 1990}}, [0, 1, 3]),
        ({"year": {"gt": 1990, "lt": 2010}}, [0]),
        ({"year": {"le": 1989.5}}, [4]),
        ({"year": {"not": 1990}}, [0, 2, 3, 4]),
        ({"price": {"lt": 1}}, [2, 4]),
        ({"price": {"not": 0}}, [0, 1, 3, 4]),
        ({"in_stock": True}, [0, 3, 4]),
        ({"in_stock": {"not": True}}, [1, 2]),
        ({"tags": "blue"}, [0, 4]),
        ({"tags": {"all": ["new", "blue"]}}, [0]),
        ({"tags": {"not": "new"}}, [1, 2, 4]),
        ({"released": {"ge": "2021-06-01"}}, [2, 4]),
        ({"released": {"gt": "2021-06-01T00:00:00+00:00"}}, [4]),
        ({"released": "1960-02-29"}, [3]),
        ({"released": {"lt": datetime(2020, 1, 1, 1, tzinfo=UTC)}}, [0, 3]),
        ({"title": "One | Two"}, [0]),
        ({"title": "One"}, [1]),
        ({"code": ["x", "z"]}, [0, 2, 4]),
        ({"item_id": {"lt": 2}, "in_stock": True}, [0]),
        ({"genre": "Drama", "year": {"ge": 1990}, "in_stock": True}, [0, 3]),
    ],
    ids=str,
)
def test_what_a_filter_keeps(metadata: Metadata, given: dict[str, Any], kept: list[int]) -> None:
    conditions = metadata.parse_filter(given)
    assert np.flatnonzero(metadata.mask(conditions)).tolist() == kept
    assert metadata.mask(metadata.parse_filter(given)) is metadata.mask(conditions)  # kept from the first time


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ([1], "filter", "is [1]; expected an object"),
        ({"colour": 1}, "filter.colour", "expected one of code, genre, in_stock, item_id, price, released, shape, "),
        ({"shape": 1}, "filter.shape", "which rules cannot compare"),
        ({"genre": 3}, "filter.genre", "is 3; expected text"),
        ({"genre": "Drama|Crime"}, "filter.genre", "is 'Drama|Crime', several values; expected a list of them"),
        ({"genre": {"not": ["Drama|Crime"]}}, "filter.genre.not[0]", "is 'Drama|Crime', several values"),
        ({"genre": ["Drama", None]}, "filter.genre[1]", "is None; expected text"),
        ({"genre": []}, "filter.genre", "is empty; expected texts"),
        ({"genre": {"ge": "A"}}, "filter.genre.ge", "needs numbers or dates, but the column holds texts"),
        ({"year": "1990"}, "filter.year", "is '1990'; expected a number"),
        ({"year": True}, "filter.year", "is True; expected a number"),
        ({"year": {"ge": float("nan")}}, "filter.year.ge", "is nan; expected a number"),
        ({"year": {"ge": [1990]}}, "filter.year.ge", "is [1990]; expected a number"),
        ({"year": {"gte": 1990}}, "filter.year", "has 'gte'; expected ge, gt, le, lt, not or all"),
        ({"year": {}}, "filter.year", "is empty; expected ge, gt, le, lt, not or all"),
        ({"in_stock": "yes"}, "filter.in_stock", "is 'yes'; expected true or false"),
        ({"in_stock": 1}, "filter.in_stock", "is 1; expected true or false"),
        ({"released": "soon"}, "filter.released", "is 'soon'; expected a date such as 2024-01-31"),
        ({"year": "9" * 5000}, "filter.year", "999...999"),
    ],
    ids=str,
)
def test_wrong_filters(metadata: Metadata, given: Any, field: str, said: str) -> None:
    with pytest.raises(RuleError) as caught:
        metadata.parse_filter(given)
    assert caught.value.field == field
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


def test_values_of_lists_may_hold_bars() -> None:
    metadata = Metadata(pa.table({"item_id": [1, 2], "tags": [["a|b"], ["c"]]}))
    assert metadata.mask(metadata.parse_filter({"tags": "a|b"})).tolist() == [True, False]


def test_items_without_rows() -> None:
    metadata = Metadata(pa.table({"item_id": pa.array([], pa.int64()), "genre": pa.array([], pa.string())}))
    assert metadata.mask(metadata.parse_filter({"genre": "x"})).tolist() == []


def test_many_items_as_a_loop_finds_them() -> None:
    generator = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "d", "e"])
    sets = [list(generator.choice(names, generator.integers(0, 4), replace=False)) for _ in range(3000)]
    numbers = generator.integers(0, 50, 3000)
    metadata = Metadata(pa.table({"item_id": range(3000), "of": ["|".join(one) for one in sets], "number": numbers}))
    given = {"of": {"all": ["a", "c"], "not": ["e"]}, "number": {"ge": 10, "lt": 40}}
    kept = [
        {"a", "c"} <= set(one) and "e" not in one and 10 <= number < 40
        for one, number in zip(sets, numbers, strict=True)
    ]
    assert metadata.mask(metadata.parse_filter(given)).tolist() == kept


def test_updated_values_are_as_those_of_a_new_table() -> None:
    generator = np.random.default_rng(1)
    names, n_items = ["a", "b", "c", "d"], 500
    rows: list[dict[str, Any]] = [
        {"of": "|".join(generator.choice(names, generator.integers(0, 3), replace=False)), "number": int(i % 9)}
        for i in range(n_items)
    ]
    before = Metadata(pa.Table.from_pylist([{"item_id": i, **row} for i, row in enumerate(rows)]))
    changes: dict[int, dict[str, Any]] = {}
    for item in generator.choice(n_items, 80, replace=False).tolist():
        of = list(generator.choice([*names, "new"], generator.integers(0, 4), replace=False))
        changes[item] = {"of": of, "number": int(generator.integers(5, 20)), "stock": bool(item % 2)}
        rows[item] = {"of": "|".join(of), "number": changes[item]["number"], "stock": bool(item % 2)}
    table = pa.Table.from_pylist([{"item_id": i, "stock": None, **row} for i, row in enumerate(rows)])
    updated, expected = before.updated(changes), Metadata(table)
    for given in (
        {"of": "new"},
        {"of": {"all": ["a", "b"]}},
        {"of": {"not": ["c", "new"]}},
        {"number": {"ge": 9}},
        {"number": [3, 12]},
        {"stock": True, "number": {"lt": 15}},
        {"stock": {"not": True}},
    ):
        masks = [metadata.mask(metadata.parse_filter(given)).tolist() for metadata in (updated, expected)]
        assert masks[0] == masks[1], given
    assert before.mask(before.parse_filter({"of": "new"})).sum() == 0


def test_choices_are_the_values_in_use(metadata: Metadata) -> None:
    def described(kind: str, n_values: int, values: Any = (), least: Any = None, largest: Any = None) -> dict[str, Any]:
        return {"kind": kind, "n_values": n_values, "values": list(values), "least": least, "largest": largest}

    assert metadata.choices == {
        "code": described("text", 3, ["x", "y", "z"]),
        "genre": described("text", 3, ["Drama", "Crime", "Comedy"]),
        "in_stock": described("truth value", 2, [True, False]),
        "price": described("number", 3, least=-3.25, largest=9.5),
        "released": described("date", 4, least="1960-02-29T00:00:00+00:00", largest="2021-06-02T00:00:00+00:00"),
        "studio": described("text", 3, ["B", "A", "é"]),
        "tags": described("text", 3, ["new", "blue", "red"]),
        "year": described("number", 4, least=1989, largest=2010),
    }
    changed = metadata.updated({0: {"studio": None, "sold": True}, 1: {"price": float("nan")}})
    assert changed.choices["studio"]["values"] == ["B", "é"]
    assert changed.choices["sold"] == described("truth value", 1, [True])
    nothing = Metadata(pa.table({"item_id": [1], "price": [float("nan")], "genre": pa.array([None], pa.string())}))
    assert nothing.choices == {"genre": described("text", 0), "price": described("number", 0)}


def test_choices_of_dates_can_be_given_in_a_filter() -> None:
    dates = pa.array([-(2**62), 0, 2**62], pa.timestamp("us"))  # a file may hold years that ISO 8601 has no text for
    released = Metadata(pa.table({"item_id": range(3), "released": dates})).choices["released"]
    assert (released["least"], released["largest"]) == ("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00")


def test_choices_are_few() -> None:
    names = [f"genre {i % 150}" for i in range(200)]
    choices = Metadata(pa.table({"item_id": range(200), "genre": names})).choices["genre"]
    assert (choices["n_values"], len(choices["values"])) == (150, MOST_CHOICES)
    assert set(choices["values"][:50]) == set(names[:50])


def test_replaced_metadata_are_freed_at_once(metadata: Metadata) -> None:
    """Without the garbage collector, which is made to run seldom: a client may change items every second."""
    changed = metadata.updated({0: {"year": 2000}})
    changed.penalty(changed.parse_filter({"year": 2000}))
    alive = ref(changed)
    gc.disable()
    try:
        del changed
        assert alive() is None
    finally:
        gc.enable()


def test_a_number_that_is_none_is_no_value() -> None:
    """As pandas' tables have it, so do those of Arrow and polars."""
    table = pa.table({"item_id": [0, 1, 2], "year": pa.array([float("nan"), 2000.0, float("nan")], from_pandas=False)})
    column = Metadata(table).find_column("year", "cap")
    assert [column.codes_of(item) for item in range(3)] == [set(), {0}, set()]
