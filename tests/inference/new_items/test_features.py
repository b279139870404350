"""`ItemFeatures`: columns of every kind become the features that one works out by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.testing import assert_allclose

from recvae.inference.new_items.features import FEWEST_ITEMS, MOST_VALUES, ItemFeatures
from recvae.inference.rules.metadata import Metadata


def make(rows: list[dict[str, Any]]) -> tuple[Metadata, list[str | None]]:
    table = pa.Table.from_pylist([{"item_id": i, **row} for i, row in enumerate(rows)])
    return Metadata(table), [row.get("title") for row in rows]


def test_values_and_words_that_three_items_have_are_features() -> None:
    metadata, titles = make(
        [
            {"title": "Blue Velvet", "genre": "Drama|Crime", "tags": ["a", "b"], "in_stock": True},
            {"title": "The blue, blue hour", "genre": "Drama", "tags": ["a"], "in_stock": True},
            {"title": "Kind of BLUE", "genre": "Crime|Drama", "tags": ["a", None], "in_stock": True},
            {"title": None, "genre": None, "tags": None, "in_stock": False},
        ]
    )
    features = ItemFeatures.choose(metadata, titles[:4], np.arange(4))
    assert FEWEST_ITEMS == 3
    assert {name: set(values) for name, values in features.values.items()} == {
        "title": {"blue"},
        "genre": {"Drama"},
        "tags": {"a"},
        "in_stock": {True},
    }
    assert features.encode(metadata, titles, np.arange(len(titles))).toarray().tolist() == [
        [1] * 4,
        [1] * 4,
        [1] * 4,
        [0] * 4,
    ]


def test_numbers_lie_between_deciles() -> None:
    numbers = [*np.linspace(0, 100, 101), None, float("nan"), float("inf")]
    metadata, titles = make([{"price": number} for number in numbers])
    features = ItemFeatures.choose(metadata, titles, np.arange(len(numbers)))
    _, knots = features.knots["price"]
    assert_allclose(knots, np.arange(0, 101, 10))
    found = features.encode(metadata, titles, np.arange(len(titles))).toarray()
    assert_allclose(found[:101] @ knots, numbers[:101], atol=1e-5)
    assert_allclose(found.sum(axis=1), [1.0] * 101 + [0.0] * 3, atol=1e-6)
    assert (np.count_nonzero(found, axis=1) <= 2).all()
    assert found[34].nonzero()[0].tolist() == [3, 4]


def test_items_beyond_the_known_range_have_its_end() -> None:
    metadata, titles = make([{"year": year} for year in (1990, 1995, 2000, 1, 3000)])
    found = (
        ItemFeatures.choose(metadata, titles[:3], np.arange(3))
        .encode(metadata, titles, np.arange(len(titles)))
        .toarray()
    )
    assert found[3].tolist() == found[0].tolist()
    assert found[4].tolist() == found[2].tolist()


def test_later_items_are_encoded_alone() -> None:
    rows: list[dict[str, Any]] = [
        {"title": f"part {i}", "genre": ["a", "b", "c"][: i % 4], "year": i, "kind": "x" if i % 2 else None}
        for i in range(20)
    ]
    metadata, titles = make(rows)
    features = ItemFeatures.choose(metadata, titles[:20], np.arange(20))
    whole = features.encode(metadata, titles, np.arange(len(titles))).toarray()
    assert features.n == whole.shape[1] == 1 + 3 + 11 + 1
    for first in (0, 7, 19, 20):
        assert_allclose(features.encode(metadata, titles[first:], np.arange(first, 20)).toarray(), whole[first:])


def test_only_the_commonest_values_are_features_where_there_are_too_many() -> None:
    rows = [{"tags": [f"common {i}" for i in range(MOST_VALUES)]} for _ in range(4)]
    metadata, titles = make([*rows, *[{"tags": [f"rare {i}" for i in range(MOST_VALUES)]} for _ in range(3)]])
    features = ItemFeatures.choose(metadata, titles[:7], np.arange(7))
    assert features.n == MOST_VALUES
    assert all(value.startswith("common") for value in features.values["tags"])


def test_there_are_no_features_without_metadata() -> None:
    metadata, titles = make([{"code": f"c{i}", "constant": 7, "nested": {"a": i}} for i in range(9)])
    features = ItemFeatures.choose(metadata, titles[:9], np.arange(9))
    assert features.n == 0
    assert features.encode(metadata, titles, np.arange(len(titles))).shape == (9, 0)
