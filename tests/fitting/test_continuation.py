"""The training set after a model: its histories and the events of a store, each counted once."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import recvae
from recvae.data.columns import Columns
from recvae.data.everything import collect_everything
from recvae.data.interactions import Interactions
from recvae.errors import ArtifactError, DataError, ParameterError, RecvaeError
from recvae.fitting.continuation import Continuation, read_continuation
from recvae.models import registry
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from recvae.preparation.weights import WeightOptions
from recvae.store.database import StoreUnavailableError
from recvae.store.events import Event
from recvae.store.user_store import DatabaseUserStore

DAY = 86_400.0
NOW = 1_700_000_000.0
QUICK: dict[str, Any] = {"models": "popularity,ease", "budget": "20s", "show_progress": False}

Pairs = dict[tuple[Any, Any], float]


def save(
    path: Path,
    weights: dict[str, Any] | None = None,
    user_ids: Any = (1, 2, 3),
    item_ids: Any = (10, 20, 30, 40),
    **data: Any,
) -> Path:
    """A model of three users and four items; the first user's interactions weigh 2 and 4 where there are weights."""
    users = pd.DataFrame({"user_id": user_ids, "history": [[0, 1], [1, 2], [2, 3]]})
    filters: dict[str, Any] = {"min_user_items": 1}
    if weights is not None:
        users["weights"] = [[2.0, 4.0], [1.0, 1.0], [1.0, 1.0]]
        filters["weights"] = weights
    items = pd.DataFrame(
        {
            "item_id": item_ids,
            "title": list("abcd"),
            "year": [1990, 1991, 1992, None],
            "genres": ["x|y", "x", "y", ""],
        }
    )
    model = EASE(l2=1.0).fit(Interactions.from_frame(pairs_of(users)).user_items, show_progress=False)
    registry.save(model, path, items=items, users=users, data={"dataset": "films.csv", "filters": filters, **data})
    return path


def pairs_of(users: pd.DataFrame) -> pd.DataFrame:
    return (
        users[["user_id", "history"]].explode("history").rename(columns={"history": "item_id"}).astype({"item_id": int})
    )


def fill(
    url: str, *events: tuple[str, Event], erased: tuple[str, ...] = (), items: Mapping[str, Any] | None = None
) -> str:
    """Put into a store what clients would send, in order."""

    async def work() -> None:
        store = DatabaseUserStore(url)
        try:
            for user, event in events:
                await store.append(user, [event])
            for user in erased:
                await store.erase(user)
            for item, metadata in (items or {}).items():
                await store.put_item(item, metadata)
        finally:
            store.close()

    asyncio.run(work())
    return url


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def weights_of(continuation: Continuation) -> Pairs:
    rows = continuation.dataset.ratings
    columns = Columns(weight="weight") if "weight" in rows else None
    data = Interactions.from_frame(rows, columns, sum_repeats=continuation.options.weights.repeats == "sum")
    matrix = data.user_items.tocoo()
    pairs = zip(data.user_ids[matrix.row], data.item_ids[matrix.col], strict=True)
    return dict(zip(pairs, np.round(matrix.data, 6).tolist(), strict=True))


HISTORIES: Pairs = {(1, 10): 1, (1, 20): 1, (2, 20): 1, (2, 30): 1, (3, 30): 1, (3, 40): 1}


def test_histories_and_events_in_the_ids_of_the_model(tmp_path: Path, store: str) -> None:
    fill(store, ("1", Event("30", time=NOW)), ("4", Event("50")), ("5", Event("undefined")), ("1", Event("10")))
    found = read_continuation(store, save(tmp_path / "model"))
    assert weights_of(found) == HISTORIES | {(1, 30): 1, (4, 50): 1}
    assert "weight" not in found.dataset.ratings
    assert found.note == "store: 4 events (1 of items whose ids are no numbers)"
    assert found.entries["store"]["events"] == 4
    times = found.dataset.ratings["timestamp"]
    assert (times[: len(HISTORIES)] == NOW - 1).all()  # before every event
    assert times[len(HISTORIES)] == NOW


def test_ids_of_users_become_texts_where_one_is_no_number(tmp_path: Path, store: str) -> None:
    fill(store, ("u7", Event("10")), ("1", Event("30")))
    found = weights_of(read_continuation(store, save(tmp_path / "model")))
    assert {user for user, _ in found} == {"1", "2", "3", "u7"}
    assert ("1", 30) in found


@pytest.mark.parametrize("kind", ["int32", "int64", "uint64"])
def test_ids_that_the_type_of_the_known_ones_does_not_hold(tmp_path: Path, store: str, kind: str) -> None:
    large = {"int32": 2**31 - 1, "int64": 2**63 - 1, "uint64": 2**64 - 1}[kind]
    fill(store, ("3000000000", Event(str(large))), (str(large), Event("9999999999")), ("1", Event("-5")))
    user_ids, item_ids = (np.array([1, 2, *more, large], dtype=kind) for more in ([], [3]))
    found = read_continuation(store, save(tmp_path / "model", user_ids=user_ids, item_ids=item_ids))
    new = {(3_000_000_000, large): 1, (large, 9_999_999_999): 1}
    assert new.items() <= weights_of(found).items()
    assert found.dataset.items is not None
    assert found.dataset.items["item_id"].tolist()[3:] == [large, 9_999_999_999] + [-5] * (kind != "uint64")


def test_floats_among_ids_are_the_texts_that_clients_know(tmp_path: Path, store: str) -> None:
    fill(store, ("2.0", Event("40.0", time=NOW)), ("new", Event("abc")), erased=("1.0",))
    model = save(tmp_path / "model", user_ids=[1.0, 2.0, 3.0], item_ids=[10.0, 20.0, 30.0, 40.0])
    assert weights_of(read_continuation(store, model)) == {
        ("2.0", "20.0"): 1,
        ("2.0", "30.0"): 1,
        ("2.0", "40.0"): 1,
        ("3.0", "30.0"): 1,
        ("3.0", "40.0"): 1,
        ("new", "abc"): 1,
    }


@pytest.mark.parametrize("repeats", ["sum", "once"])
def test_events_weigh_what_their_types_do_in_the_model(tmp_path: Path, store: str, repeats: str) -> None:
    weights: dict[str, Any] = {"events": {"view": 1.0, "buy": 5.0}}
    if repeats == "sum":
        weights["repeats"] = "sum"
    model = save(tmp_path / "model", weights)
    buy, view = Event("10", "buy", time=NOW), Event("10", "view", time=NOW)
    fill(
        store, ("1", buy), ("1", view), ("2", Event("40", "buy", 2.0)), ("2", Event("10", "stare")), ("2", Event("10"))
    )
    found = read_continuation(store, model)
    expected = HISTORIES | {(1, 20): 4, (1, 10): {"sum": 2 + 5 + 1, "once": 5}[repeats], (2, 40): 10, (2, 10): 1}
    assert weights_of(found) == expected
    assert found.entries["filters"]["weights"] == {"column": True, **weights}
    assert "1 that weigh nothing" in found.note


def test_no_event_that_the_service_takes_stops_the_night(tmp_path: Path, store: str) -> None:
    times = {"earliest": -62_135_596_800.0, "latest": 253_402_300_799.0}
    odd = [Event("10", "buy", weight, time) for weight in (1e-300, 1e9, 1e-40) for time in times.values()]
    fill(store, *(("1", event) for event in odd), ("\u0663", Event("\u0663")), ("x" * 256, Event("9" * 256)))
    weights = {"events": {"buy": 1e3}, "half_life_seconds": DAY, "repeats": "sum"}
    fitted = recvae.fit(from_store=store, since=save(tmp_path / "model", weights), **QUICK)
    assert all(0 < weight < np.inf for user in fitted.users["weights"] for weight in user)


def test_histories_age_from_the_time_that_their_weights_are_of(tmp_path: Path, store: str) -> None:
    weights = {"half_life_seconds": 10 * DAY, "latest_seconds": NOW}
    fill(store, ("1", Event("30", time=NOW + 20 * DAY)), ("2", Event("40", time=NOW + 10 * DAY)))
    found = read_continuation(store, save(tmp_path / "model", weights))
    assert weights_of(found) == dict.fromkeys(HISTORIES, 0.25) | {
        (1, 10): 0.5,
        (1, 20): 1,
        (1, 30): 1,
        (2, 40): 0.5,
    }
    assert found.entries["filters"]["weights"]["latest_seconds"] == NOW + 20 * DAY


def test_weights_of_a_half_life_never_vanish(tmp_path: Path, store: str) -> None:
    weights = {"half_life_seconds": 1.0, "latest_seconds": NOW}
    fill(store, ("1", Event("30", time=NOW + DAY)))
    found = weights_of(read_continuation(store, save(tmp_path / "model", weights)))
    assert found[(2, 20)] == pytest.approx(1e-6)


@pytest.mark.parametrize("repeats", ["sum", "once"])
def test_a_model_and_its_store_give_what_all_rows_together_give(tmp_path: Path, store: str, repeats: str) -> None:
    generator, n = np.random.default_rng(3), 120
    options = WeightOptions({"view": 1.0, "buy": 5.0}, repeats, 7 * DAY)
    rows = pd.DataFrame(
        {
            "user_id": generator.integers(0, 9, n),
            "item_id": generator.integers(0, 12, n),
            "event": generator.choice(["view", "buy"], n),
            "timestamp": NOW + np.sort(generator.uniform(0, 30 * DAY, n)),
        }
    )
    first, filters = options.make_interactions(rows[:80])
    model = Popularity().fit(first.user_items, show_progress=False)
    everything = collect_everything(first)
    registry.save(model, tmp_path / "model", items=everything.items, users=everything.users, data={"filters": filters})
    names = ["user_id", "item_id", "event", "timestamp"]
    later = [(str(user), Event(str(item), kind, 1.0, at)) for user, item, kind, at in rows[80:][names].to_numpy()]
    fill(store, *later)
    found = weights_of(read_continuation(store, tmp_path / "model"))
    together, _ = options.make_interactions(rows)
    matrix = together.user_items.tocoo()
    pairs = zip(together.user_ids[matrix.row], together.item_ids[matrix.col], strict=True)
    assert found == pytest.approx(dict(zip(pairs, matrix.data.tolist(), strict=True)), abs=1e-5)


def test_an_event_counts_once_however_often_the_model_is_fitted_again(tmp_path: Path, store: str) -> None:
    """Night after night from the model before gives what one night from the first model gives."""
    save(tmp_path / "first", {"repeats": "sum"})
    fill(store, ("1", Event("10", time=NOW)), ("9", Event("20")))
    recvae.fit(from_store=store, since=tmp_path / "first", out=tmp_path / "second", **QUICK)
    fill(store, ("1", Event("10", time=NOW + 1)), ("2", Event("20", time=NOW)))
    recvae.fit(from_store=store, since=tmp_path / "second", out=tmp_path / "third", **QUICK)
    recvae.fit(from_store=store, since=tmp_path / "third", out=tmp_path / "third", **QUICK)
    for since in ("first", "second", "third"):
        found = weights_of(read_continuation(store, tmp_path / since))
        assert found == HISTORIES | {(1, 10): 4, (1, 20): 4, (2, 20): 2, (9, 20): 1}, since


def test_users_whom_a_filter_dropped_are_not_lost(tmp_path: Path, store: str) -> None:
    save(tmp_path / "first", filters={"min_user_items": 2})
    fill(store, ("9", Event("20")))
    fitted = recvae.fit(from_store=store, since=tmp_path / "first", out=tmp_path / "second", **QUICK)
    assert set(fitted.users["user_id"]) == {1, 2, 3}
    fill(store, ("9", Event("30")))
    fitted = recvae.fit(from_store=store, since=tmp_path / "second", **QUICK)
    assert set(fitted.users["user_id"]) == {1, 2, 3, 9}


def test_erased_users_are_left_out_with_their_histories(tmp_path: Path, store: str) -> None:
    model = save(tmp_path / "model")
    fill(store, ("2", Event("40")), ("8", Event("10")), ("1", Event("40")), erased=("2", "8", "7"))
    found = read_continuation(store, model)
    assert {user for user, _ in weights_of(found)} == {1, 3}
    assert "histories of 3 erased users left out" in found.note
    fill(store, ("2", Event("40")))  # who comes back begins anew
    assert weights_of(read_continuation(store, model)) == dict.fromkeys(
        [(1, 10), (1, 20), (1, 40), (2, 40), (3, 30), (3, 40)], 1
    )


def test_metadata_are_taken_over_and_new_items_are_described(tmp_path: Path, store: str) -> None:
    metadata: dict[str, Any] = {
        "10": {"genres": ["z", "x"], "year": 1980, "title": "A", "in_stock": False},
        "20": {"year": "none", "genres": None},
        "50": {"genres": "z", "title": "new", "price": 9.5},
        "60": {"genres": "z"},
    }
    fill(store, ("1", Event("50")), items=metadata)
    recvae.fit(from_store=store, since=save(tmp_path / "model"), out=tmp_path / "next", **QUICK)
    items = registry.load(tmp_path / "next").items.set_index("item_id")
    assert list(items.index) == [10, 20, 30, 40, 50]
    assert items["title"].tolist() == ["A", "b", "c", "d", "new"]
    assert items["year"].tolist()[:3] == [1980, 1991, 1992]  # "none" is no number
    assert [sorted(genres) for genres in items["genres"]] == [["x", "z"], [], ["y"], [], ["z"]]
    assert items["in_stock"][10] is False
    assert items["price"][50] == 9.5


def test_the_split_is_by_time_where_users_come_back(tmp_path: Path, store: str) -> None:
    """Histories without times are learned from; the first events are to choose by, the last ones to test on."""
    generator = np.random.default_rng(0)
    users = pd.DataFrame({"user_id": range(60), "history": [generator.permutation(20)[:10] for _ in range(60)]})
    model = EASE(l2=5.0).fit(Interactions.from_frame(pairs_of(users)).user_items, show_progress=False)
    registry.save(model, tmp_path / "model", items=range(20), users=users)
    unseen = [
        (user, next(iter(set(range(20)) - set(history)))) for user, history in zip(*users.to_numpy().T, strict=True)
    ]
    fill(store, *((str(user), Event(str(item), time=NOW + i)) for i, (user, item) in enumerate(unseen)))
    fitted = recvae.fit(from_store=store, since=tmp_path / "model", out=tmp_path / "next", **QUICK)
    assert fitted.results is not None
    assert fitted.results["protocol"] == {
        "split": "temporal",
        "val_time": str(NOW),
        "test_time": str(NOW + 30),
        "filters": {},
    }
    assert fitted.results["n_users"] == 30
    assert fitted.data["store"]["events"] == 60


ERRORS: dict[str, tuple[dict[str, Any], type[RecvaeError], str]] = {
    "no such file": ({"from_store": "sqlite:///nowhere.db"}, DataError, r"sqlite:///nowhere.db: no such file"),
    "no store": ({"from_store": "sqlite:///other.db"}, DataError, r"has no table recvae_events"),
    "no events": ({"from_store": "sqlite:///empty.db"}, DataError, r"sqlite:///empty.db has no events; expected some"),
    "no URL": ({"from_store": "the store"}, ParameterError, "no database URL"),
    "a port": ({"from_store": "postgresql://u@h:secret/db"}, ParameterError, "its port is no number"),
    "no histories": ({"since": "bare"}, ParameterError, "since is bare, which has no histories; expected a model that"),
    "no model": ({"since": "nowhere"}, ArtifactError, "nowhere"),
    "no since": ({"since": None}, ParameterError, "from_store is given without since"),
    "no store given": ({"from_store": None}, ParameterError, "since is given without from_store"),
    "a source too": ({"source": "plays.csv"}, ParameterError, "a source and from_store given"),
    "neither": ({"from_store": None, "since": None}, ParameterError, "no source given"),
    "items": ({"items": "items.csv"}, ParameterError, "items cannot be given here: the artifact since has its own"),
    "filters": ({"min_rating": 4}, ParameterError, "min_rating cannot be given here"),
    "weights": ({"event_weights": "view=1"}, ParameterError, "event_weights cannot be given here"),
    "until": ({"since": "until"}, ArtifactError, "until: until_seconds of the data is 'soon'; expected a number"),
    "damaged": ({"since": "damaged"}, ArtifactError, "damaged: filters of the data are 3; expected an object"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given, error, said = ERRORS[case]
    save(Path("model"))
    save(Path("until"), store={"until_seconds": "soon"})
    save(Path("damaged"), filters=3)
    registry.save(EASE().fit(sparse.eye_array(5, format="csr"), show_progress=False), "bare")
    fill("sqlite:///empty.db", items={"10": {"year": 1}})
    fill("sqlite:///store.db", ("1", Event("10")))
    Path("other.db").touch()
    before = sorted(tmp_path.iterdir())
    options = {"from_store": "sqlite:///store.db", "since": "model", "out": "next", **given}
    with pytest.raises(error, match=said) as raised:
        recvae.fit(**options, **QUICK)
    assert "\n" not in str(raised.value)
    assert "cret" not in str(raised.value)
    assert sorted(tmp_path.iterdir()) == before


def test_the_password_of_a_store_is_never_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="refused") as raised:
        read_continuation("postgresql+psycopg://u:hunter2@127.0.0.1:1/db", save(tmp_path / "model"))
    assert "hunter2" not in str(raised.value)
