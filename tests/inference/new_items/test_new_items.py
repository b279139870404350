"""New items in a ranker's lists: with filters, rules, exclusions and an index, for models of every kind."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recvae import create
from recvae.errors import UnsupportedError
from recvae.inference.ids import Id
from recvae.inference.new_items import new_items as module
from recvae.inference.new_items.new_items import UnknownItemError
from recvae.inference.ranker import Query, Ranker
from recvae.inference.rules.item_column import RuleError
from recvae.inference.rules.selection import Ranked, parse_rules
from recvae.models import registry
from recvae.models.autoencoders.multdae import MultDAE

N_USERS, N_ITEMS, N_GENRES = 150, 60, 3
NEW: dict[Id, Mapping[str, Any]] = {
    "n0": {"title": "New drama", "genre": "genre 0", "year": 2001},
    "n1": {"genre": ["genre 1"], "year": 1990, "in_stock": False},
    "n2": {"genre": "genre 2|genre 0"},
    "nothing": {"genre": "unheard of", "in_stock": True},
    "odd": {"year": "not a number"},
}


@pytest.fixture(scope="module", params=["ease", "multdae", "bpr"])
def ranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    """Users of one taste each: a third of the items, by genre."""
    rng = np.random.default_rng(0)
    genre = np.arange(N_ITEMS) % N_GENRES
    likes = genre[None, :] == np.arange(N_USERS)[:, None] % N_GENRES
    user_items = sparse.csr_matrix((rng.random(likes.shape) < np.where(likes, 0.5, 0.02)).astype(np.float32))
    params: dict[str, Any] = {"epochs": 30, "hidden": 32, "latent": 8} if request.param == "multdae" else {}
    model = create(request.param, **params).fit(user_items, show_progress=False)
    items = pd.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(N_ITEMS)],
            "genre": [f"genre {g}" for g in genre],
            "year": 1980 + np.arange(N_ITEMS),
        }
    )
    users = pd.DataFrame({"user_id": range(N_USERS), "history": [row.indices for row in user_items]})
    path = tmp_path_factory.mktemp("new") / "model"
    registry.save(model, path, items=items, users=users)
    return Ranker(registry.load(path, frozen=True))


@pytest.fixture(scope="module")
def extended(ranker: Ranker) -> Ranker:
    return ranker.with_items(NEW)


def ids(ranker: Ranker, query: Query) -> list[str]:
    (ranked,) = ranker.rank([query])
    if query.rules is None or not query.rules.diversity:
        assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    found: list[str] = [item["id"] for item in ranker.describe(ranked)]
    return found


def run(steps: Generator[None, None, list[Ranked]]) -> list[Ranked]:
    try:
        while True:
            next(steps)
    except StopIteration as stopped:
        reasons: list[Ranked] = stopped.value
        return reasons


def taste(ranker: Ranker, genre: int, **options: Any) -> Query:
    row, history = ranker.find_user(genre) or (0, [])
    return Query(history, **{"user": row, "n": N_ITEMS + len(NEW), **options})


def test_items_that_share_something_are_listed(ranker: Ranker, extended: Ranker) -> None:
    assert ranker.new is None
    assert extended.new is not None
    assert extended.new.ids.ids == ["n0", "n1", "n2"]
    for genre in range(N_GENRES):
        query = taste(ranker, genre)
        listed = ids(extended, query)
        assert len(listed) == len(set(listed)) == N_ITEMS - len(query.history) + 3
        assert [item for item in listed if item[0] != "n"] == ids(ranker, query)
    (title,) = {item["title"] for item in extended.describe(extended.rank([taste(ranker, 0)])[0]) if item["id"] == "n0"}
    assert title == "New drama"


def test_they_come_where_the_taste_is(ranker: Ranker, extended: Ranker) -> None:
    for genre in (0, 1):
        listed = ids(extended, taste(ranker, genre))
        assert listed.index(f"n{genre}") < listed.index(f"n{1 - genre}")
        first = next(iter(item for item in listed if item.startswith("n")))
        assert first in {f"n{genre}", "n2"}


def test_a_batch_has_the_lists_of_single_queries(ranker: Ranker, extended: Ranker) -> None:
    queries = [taste(ranker, user, n=10) for user in range(20)]
    for query, ranked in zip(queries, extended.rank(queries), strict=True):
        alone = extended.rank([query])[0]
        assert [item for item, _ in ranked] == [item for item, _ in alone]
        assert [score for _, score in ranked] == pytest.approx([score for _, score in alone], abs=1e-4)


def test_filters_candidates_and_exclusions(ranker: Ranker, extended: Ranker) -> None:
    def listed(filter: Any = None, **options: Any) -> set[str]:  # noqa: A002
        return set(ids(extended, taste(ranker, 0, rules=parse_rules(extended.metadata, filter=filter), **options)))

    assert listed({"in_stock": False}) == {"n1"}
    assert "n1" not in listed({"in_stock": {"not": False}})
    assert {item for item in listed({"year": {"ge": 1990}}) if item[0] == "n"} == {"n0", "n1"}
    assert {item for item in listed({"genre": "genre 0"}) if item[0] == "n"} == {"n0", "n2"}
    only, unknown = extended.find_listed(["n1", "n2", "nothing", "i7"])
    assert unknown == ["nothing"]
    assert listed(only=only) == {"n1", "n2", "i7"}
    assert {"n1", "n2", "i7"} & listed(exclude=only) == set()


def test_caps_and_boosts(ranker: Ranker, extended: Ranker) -> None:
    capped = parse_rules(extended.metadata, cap={"genre": 1})
    assert len(ids(extended, taste(ranker, 0, rules=capped))) == 3
    boosted = parse_rules(extended.metadata, boost=[{"filter": {"in_stock": False}, "by": 50}])
    assert ids(extended, taste(ranker, 0, rules=boosted))[0] == "n1"


def test_diversity(ranker: Ranker, extended: Ranker) -> None:
    query = taste(ranker, 0, n=20, rules=parse_rules(extended.metadata, diversity=0.5))
    found = ids(extended, query)
    assert len(set(found)) == 20


def test_the_latest_call_counts(ranker: Ranker, extended: Ranker) -> None:
    changed = extended.with_items({"n9": {"genre": "genre 1"}, "i4": {"in_stock": True}})
    assert changed.new is not None
    assert changed.new.ids.ids == ["n9"]
    kept = parse_rules(changed.metadata, filter={"in_stock": True})
    assert ids(changed, taste(ranker, 0, rules=kept)) in (["i4"], [])
    assert extended.new is not None
    assert len(extended.new.ids) == 3


def test_new_items_have_no_reasons(ranker: Ranker, extended: Ranker) -> None:
    query = taste(ranker, 0, n=N_ITEMS)
    ranked = extended.rank([query])[0]
    if not ranker.model.folds_in:
        with pytest.raises(UnsupportedError):
            run(extended.explain(query, ranked, 2))
        return
    reasons = run(extended.explain(query, ranked, 2))
    assert len(reasons) == len(ranked)
    assert all(not found for (item, _), found in zip(ranked, reasons, strict=True) if item >= N_ITEMS)
    assert any(reasons)


@pytest.mark.parametrize(
    ("item", "given", "error", "said"),
    [
        ("n7", {"genre": "genre 7"}, UnknownItemError, "'n7' is not known, and shares nothing .*: genre, year"),
        ("n7", {}, UnknownItemError, "shares nothing"),
        ("n7", {"genre": 3, "year": 1990}, RuleError, "genre is 3; expected text"),
        ("n7", {"year": "new"}, RuleError, "year is 'new'; expected a number"),
        ("n7", {"title": 7, "year": 1990}, RuleError, "title is 7; expected text"),
        ("n7", {"item_id": "x", "year": 1990}, RuleError, "item_id comes with the model"),
    ],
)
def test_what_is_refused(ranker: Ranker, item: Id, given: dict[str, Any], error: type[RuleError], said: str) -> None:
    with pytest.raises(error, match=said):
        ranker.check_item(item, given)


def test_ids_are_spelled_as_the_models(ranker: Ranker) -> None:
    assert ranker.check_item(7, {"year": 1990}) == "7"
    assert ranker.check_item("i3", {"genre": "anything"}) == "i3"


def test_a_listed_item_may_lose_its_metadata(extended: Ranker) -> None:
    assert extended.check_item("n0", {}) == "n0"
    assert extended.with_items({**NEW, "n0": {}}).find_listed(["n0", "n1"])[1] == ["n0"]


def test_there_are_not_too_many(ranker: Ranker, extended: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NEW_ITEMS", 3)
    with pytest.raises(RuleError, match="item_id is 'n3', and 3 new items are listed already"):
        extended.check_item("n3", NEW["n0"])
    assert extended.check_item("n2", NEW["n2"]) == "n2"
    many = ranker.with_items({f"n{i}": {"year": 1990} if i > 4 else {} for i in range(9)})
    assert many.new is not None
    assert many.new.ids.ids == ["n5", "n6", "n7"]


def test_an_index_finds_them_too(tmp_path: Path) -> None:
    """The lists are those of a ranker that scores every item."""
    rng = np.random.default_rng(0)
    user_items = sparse.csr_matrix((rng.random((80, 400)) < 0.05).astype(np.float32))
    items = pd.DataFrame({"item_id": np.arange(400), "genre": [f"g{i % 4}" for i in range(400)]})
    model = MultDAE(hidden=32, latent=8, epochs=2, batch_size=20).fit(user_items, show_progress=False)
    registry.save(model, tmp_path / "model", items=items)
    loaded = registry.load(tmp_path / "model", frozen=True)
    given: dict[Id, Mapping[str, Any]] = {1000 + i: {"genre": f"g{i % 4}"} for i in range(30)}
    exact, indexed = (Ranker(loaded, size).with_items(given) for size in (None, 100))
    assert indexed.index is not None
    queries = [Query(row.indices.tolist(), 300, exclude=[401, 5]) for row in user_items[:20]]
    queries += [Query([]), Query([1, 2], only=[400, 7, 8])]
    for one, other in zip(exact.rank(queries), indexed.rank(queries), strict=True):
        new = [(item, score) for item, score in one if item >= 400]
        found = [(item, score) for item, score in other if item >= 400]
        assert [item for item, _ in new] == [item for item, _ in found]
        assert [score for _, score in new] == pytest.approx([score for _, score in found], abs=1e-4)
