"""Weights of a user's events for a model."""

from typing import Any

import pytest

from recvae.errors import ArtifactError
from recvae.store.events import Event, EventWeights

NOW = 1000.0


def weights(**rules: Any) -> EventWeights:
    return EventWeights.of({"data": {"filters": {"min_rating": None, "weights": rules}}})


def test_without_rules_the_highest_of_an_item_s_weights_counts() -> None:
    events = [Event("b", weight=2.0), Event("a", "view"), Event("b", "buy", 3.0), Event("b")]
    manifests: list[dict[str, Any]] = [
        {"data": {}},
        {"data": {"filters": None}},
        {"data": {"filters": {"min_rating": 4}}},
    ]
    for manifest in manifests:
        assert EventWeights.of(manifest).weigh(events, NOW) == {"b": 3.0, "a": 1.0}
        assert EventWeights.of(manifest).find_unknown(["buy"]) == []


def test_types_weigh_as_in_training() -> None:
    rules = weights(events={"view": 0, "buy": 5}, repeats="sum")
    events = [Event("a", "view"), Event("b", "buy", 2.0), Event("b"), Event("c", "return")]
    assert rules.weigh(events, NOW) == {"b": 11.0}
    assert rules.find_unknown(["return", "", "buy", "return", "view"]) == ["return"]
    assert weights(events={"": 0.5}).weigh([Event("a")], NOW) == {"a": 0.5}


def test_weights_that_float32_does_not_hold() -> None:
    events = [
        Event("a", "buy"),
        Event("b", "buy", 1e-40),
        Event("c", "buy", 10.0),
        Event("c", "view"),
        Event("a", "buy"),
    ]
    assert weights(events={"buy": 3e38, "view": 1}, repeats="sum").weigh(events, NOW) == {
        "a": 3.4e38,
        "b": pytest.approx(0.03),
        "c": 1,
    }
    assert weights(events={"buy": 1}).weigh(events[1:2], NOW) == {"b": 1.2e-38}  # the item is still one of the history


def test_weights_halve() -> None:
    events = [Event("new", time=NOW), Event("ahead", time=NOW + 10), Event("old", "", 3.0, NOW - 20), Event("first")]
    assert weights(half_life_seconds=10).weigh(events, NOW) == {"new": 1, "ahead": 1, "old": 0.75, "first": 1e-6}


@pytest.mark.parametrize(
    "wrong",
    [
        {"events": 3},
        {"events": {"a": "x"}},
        {"events": {"a": -1}},
        {"half_life_seconds": 0},
        {"half_life_seconds": "d"},
    ],
    ids=str,
)
def test_wrong_rules_of_a_manifest_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="expected event types and numbers"):
        weights(**wrong)
    for data in ({"filters": {"weights": 7}}, {"filters": [7]}, 7):
        with pytest.raises(ArtifactError, match="expected event types and numbers"):
            EventWeights.of({"data": data})
