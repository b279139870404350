"""Stores of appended interactions: what is acknowledged is kept, on SQLite and on a real PostgreSQL server."""

import asyncio
import contextlib
import re
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import sqlalchemy as sa

from recvae.errors import MissingDependencyError, ParameterError
from recvae.models.factorization import BPR
from recvae.serving import Settings, create_app
from recvae.store import database
from recvae.store.database import StoreUnavailableError
from recvae.store.events import Event
from recvae.store.user_store import DatabaseUserStore, StoredHistory
from tests.contracts import one_thread as one_thread
from tests.http_service import Postgres, asked, client, item_id, save

EVENTS = "/users/new/events"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "model"
    save(path)
    return path


def stored_items(history: StoredHistory) -> list[str]:
    return [event.item for event in history.events]


async def append(http: httpx.AsyncClient, user: str, *items: int | str | dict[str, Any]) -> dict[str, Any]:
    answer = await http.post(f"/users/{user}/events", json={"items": items})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


async def listed(http: httpx.AsyncClient, user: str) -> list[int]:
    answer = await http.get(f"/users/{user}/recommendations", params={"n": 25})
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_the_next_request_sees_what_was_appended(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> list[Any]:
        unknown = (await http.get("/users/new/recommendations")).status_code
        first = await append(http, "new", item_id(1), "later")
        by_user = await listed(http, "new")
        by_history = (await http.post("/recommend", json={"history": [item_id(1)], "n": 25})).json()
        again = await append(http, "new", item_id(1), item_id(2))
        return [unknown, first, by_user, [item["id"] for item in by_history["items"]], again, await listed(http, "new")]

    unknown, first, by_user, by_history, again, later = asked(Settings(model, store=url), question)
    assert unknown == 404
    assert first == {"stored": 2, "unknown": ["later"], "unknown_types": []}
    assert by_user == by_history
    assert again == {"stored": 1, "unknown": [], "unknown_types": []}
    assert set(by_user) - set(later) == {item_id(2)}


def test_events_with_type_weight_and_time(model: Path, url: str) -> None:
    """A retry is stored once, a repetition with a time of its own again; the history has the weights."""
    bought: dict[str, Any] = {"id": item_id(1), "type": "buy", "weight": 2.5, "time": "2024-05-01T12:00:00+02:00"}

    async def question(http: httpx.AsyncClient) -> list[Any]:
        first = await append(http, "ann", bought, {"id": item_id(7)}, "later")
        again = await append(http, "ann", {**bought, "time": 1714557600}, item_id(7))
        repeated = await append(http, "ann", {**bought, "time": 1714557601.5, "weight": 9})
        answer = (await http.get("/users/ann/recommendations")).json()
        history = [{"id": item_id(1), "weight": 9}, item_id(7), "later"]
        return [first, again, repeated, answer, (await http.post("/recommend", json={"history": history})).json()]

    first, again, repeated, by_user, by_history = asked(Settings(model, store=url), question)
    assert [answer["stored"] for answer in (first, again, repeated)] == [3, 0, 1]
    assert by_user["items"] == by_history["items"]
    assert by_user["unknown"] == by_history["unknown"] == ["later"]


def test_types_weigh_as_the_model_s_data_say(tmp_path: Path) -> None:
    users = pd.DataFrame({"user_id": ["ann"], "history": [[7, 1]], "weights": [[3.0, 20.0]]})
    weights = {"events": {"view": 0, "buy": 5}, "repeats": "sum"}
    save(tmp_path / "model", users=users, data={"filters": {"weights": weights}})

    async def question(http: httpx.AsyncClient) -> list[Any]:
        events: list[dict[str, Any]] = [
            {"id": item_id(7), "type": "buy"},
            {"id": item_id(2), "type": "view"},
            {"id": item_id(3)},
        ]
        answer = await append(http, "ann", *events, {**events[0], "time": 1e9}, {"id": item_id(5), "type": "return"})
        await append(http, "bob", events[1])
        history = [{"id": item_id(1), "weight": 20}, {"id": item_id(7), "weight": 10}, item_id(3)]
        lists = await listed(http, "ann"), (await http.post("/recommend", json={"history": history, "n": 25})).json()
        return [answer, *lists, (await http.get("/users/bob/recommendations")).status_code]

    answer, by_user, by_history, nothing = asked(
        Settings(tmp_path / "model", store=f"sqlite:///{tmp_path / 'events.db'}"), question
    )
    assert answer == {"stored": 5, "unknown": [], "unknown_types": ["return"]}
    assert by_user == [item["id"] for item in by_history["items"]]
    assert nothing == 404


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"id": 1, "weight": 0}, 422, "items[1].weight", "greater than 0"),
    ({"id": 1, "weight": -1}, 422, "items[1].weight", "greater than 0"),
    ({"id": 1, "weight": "much"}, 422, "items[1].weight", "valid number"),
    ({"id": 1, "weight": 1e10}, 422, "items[1].weight", "less than or equal to 1000000000"),
    ({"id": 1, "type": ""}, 422, "items[1].type", "at least 1"),
    ({"id": 1, "type": "x" * 65}, 422, "items[1].type", "at most 64"),
    ({"id": 1, "type": "a\0b"}, 422, "items[1].type", "pattern"),
    ({"id": 1, "type": 7}, 422, "items[1].type", "valid string"),
    ({"id": 1, "time": "yesterday"}, 422, "items[1].time", "is 'yesterday'; expected a time in ISO 8601"),
    ({"id": 1, "time": True}, 422, "items[1].time", "valid number"),
    ({"id": 1, "time": 1e300}, 422, "items[1].time", "less than or equal to"),
    ({"id": 1, "time": 4e9}, 409, "items[1].time", "more than a day ahead"),
    ({"id": 1, "time": "9999-12-31T23:59:59-23:59"}, 409, "items[1].time", "more than a day ahead"),
    ({"id": 1, "colour": 1}, 422, "items[1].colour", "not permitted"),
    ({"weight": 1}, 422, "items[1].id", "required"),
    ({"id": "ok", "weight": 5}, 409, "items[1]", "is items[0] again; a repetition has another time"),
]


def test_wrong_events_name_their_field_and_store_nothing(model: Path, tmp_path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[Any]:
        bodies = [{"items": [{"id": "ok"}, event]} for event, *_ in WRONG]
        answers = [await http.post("/users/ann/events", json=body) for body in bodies]
        return [*answers, await append(http, "ann", "ok")]

    *answers, stored = asked(Settings(model, store=f"sqlite:///{tmp_path / 'events.db'}"), question)
    for answer, (_, status, field, said) in zip(answers, WRONG, strict=True):
        assert answer.status_code == status
        assert [error["field"] for error in answer.json()["errors"]] == [field]
        assert said in answer.json()["detail"]
    assert stored["stored"] == 1


def test_appended_interactions_add_to_the_artifact_s_history(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> tuple[list[int], list[int]]:
        before = await listed(http, "u3")
        await append(http, "u3", before[0])
        return before, await listed(http, "u3")

    before, after = asked(Settings(model, store=url), question)
    assert set(before) - set(after) == {before[0]}


def test_an_erased_user_is_as_good_as_new(model: Path, url: str) -> None:
    """For every worker at once: each has connections of its own, and asks the store for every list."""

    async def question(http: httpx.AsyncClient) -> list[Any]:
        async with client(create_app(settings)) as other:
            await append(http, "u3", item_id(1), item_id(2))
            await append(http, "new", item_id(1))
            erased = [(await http.delete(f"/users/{user}")).json() for user in ("u3", "new", "nobody", "u3")]
            statuses = [(await other.get(f"/users/{user}/recommendations")).status_code for user in ("u3", "new", "u4")]
            await append(http, "u3", item_id(7))
            return [erased, statuses, await listed(other, "u3")]

    settings = Settings(model, store=url)
    erased, statuses, again = asked(settings, question)
    assert erased == [
        {"erased": 2, "hidden": True},
        {"erased": 1, "hidden": False},
        {"erased": 0, "hidden": False},
        {"erased": 0, "hidden": True},
    ]
    assert statuses == [404, 404, 200]
    assert asked(settings, lambda http: http.delete("/users/u4/events")).status_code == 405
    assert set(again) == {item_id(i) for i in range(25)} - {item_id(7)}
    assert asked(settings, lambda http: listed(http, "u3")) == again


def test_users_whose_ids_end_as_a_path_are_erased(model: Path, tmp_path: Path) -> None:
    """`ann%2Fevents` is a user, `ann/events` what belongs to ann."""

    async def question(http: httpx.AsyncClient) -> list[Any]:
        users = "ann%2Fevents", "ann%2Frecommendations", "ann%2F%65vents", "ann", "events"
        for user in users:
            await append(http, user, item_id(1))
        refused = [await http.delete(path) for path in ("/users/ann/events", "/users/ann/recommendations")]
        return [*refused, *[(await http.delete(f"/users/{user}")).json()["erased"] for user in users]]

    *refused, first, second, same, ann, events = asked(
        Settings(model, store=f"sqlite:///{tmp_path / 'events.db'}"), question
    )
    assert [(answer.status_code, answer.headers["allow"]) for answer in refused] == [
        (405, "POST"),
        (405, "GET, HEAD, POST"),
    ]
    assert [first, second, same, ann, events] == [1, 1, 0, 1, 1]


def test_users_of_whom_nothing_is_known_get_the_popular_items(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> list[Any]:
        await http.delete("/users/u3")
        paths = [f"/users/{user}/recommendations?n=25" for user in ("nobody", "u3", "u4")]
        answers = [(await http.get(path)).json() for path in paths]
        return [*answers, (await http.post("/recommend", json={"history": [], "n": 25})).json()]

    nobody, erased, known, popular = asked(Settings(model, store=url, unknown_users="popular"), question)
    ids = [answer.pop("list_id") for answer in (nobody, erased, known, popular)]
    assert len(set(ids)) == 4
    assert nobody == erased == {**popular, "popular": True}
    assert "popular" not in known


def test_a_model_of_known_users_lists_the_popular_items_for_others_whatever_they_do(tmp_path: Path) -> None:
    """It cannot use their events, and lists what they are of no more."""
    save(tmp_path / "bpr", BPR(factors=4, iterations=5))

    async def question(http: httpx.AsyncClient) -> list[httpx.Response]:
        popular = (await http.post("/recommend", json={"history": [], "n": 25})).json()["items"]
        await append(http, "new", popular[0]["id"], "later")
        await append(http, "u3", item_id(1))
        await http.delete("/users/u4")
        await append(http, "u4", popular[1]["id"])
        lists = [await http.get(f"/users/{user}/recommendations", params={"n": 25}) for user in ("new", "u3", "u4")]
        return [popular, *lists]

    store = f"sqlite:///{tmp_path / 'events.db'}"
    popular, new, known, erased = asked(Settings(tmp_path / "bpr", store=store, unknown_users="popular"), question)
    assert new.json()["items"] == popular[1:]
    assert new.json()["unknown"] == ["later"]
    assert erased.json()["items"] == [popular[0], *popular[2:]]
    assert new.json()["popular"] is erased.json()["popular"] is True
    assert "popular" not in known.json()
    refused = asked(Settings(tmp_path / "bpr", store=store), lambda http: http.get("/users/new/recommendations"))
    assert refused.status_code == 404


def test_a_restart_loses_nothing(model: Path, url: str) -> None:
    settings = Settings(model, store=url)
    asked(settings, lambda http: append(http, "ann", item_id(4), item_id(5)))
    remaining = asked(settings, lambda http: listed(http, "ann"))
    assert not {item_id(4), item_id(5)} & set(remaining)


def test_unusual_ids(model: Path, url: str) -> None:
    users = ["a/b", "/", "a/", "a/recommendations", "..", "a\nb", "ü", "' OR 1=1 --", "%", "x" * 256, "\N{PILE OF POO}"]

    async def question(http: httpx.AsyncClient) -> list[int]:
        statuses = []
        for user in users:
            path = "/users/" + "".join(f"%{byte:02X}" for byte in user.encode())
            body = {"items": ["'; DROP TABLE recvae_events; --", f"item/{user[:9]}"]}
            statuses.append((await http.post(f"{path}/events", json=body)).status_code)
            statuses.append((answer := await http.get(f"{path}/recommendations")).status_code)
            assert answer.json()["unknown"] == body["items"]
        nul = (await http.post("/users/a%00b/events", json={"items": [item_id(1)]})).status_code
        return [*statuses, nul]

    statuses = asked(Settings(model, store=url), question)
    assert statuses == [200] * 22 + [422]


def test_the_latest_interactions_count(url: str) -> None:
    async def question() -> list[str]:
        store = DatabaseUserStore(url)
        for start in range(0, 30, 10):
            await store.append("ann", [Event(f"{i:02}") for i in range(start, start + 10)])
        latest = stored_items(await store.history("ann", 15))
        store.close()
        return latest

    assert asyncio.run(question()) == [f"{i:02}" for i in range(15, 30)]


def test_many_at_once(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> list[int]:
        await asyncio.gather(*(append(http, "ann", item_id(i)) for i in range(12)))
        return await listed(http, "ann")

    assert set(asked(Settings(model, store=url), question)) == {item_id(i) for i in range(12, 25)}


def test_down_and_back(model: Path, postgres: Postgres) -> None:
    async def question(http: httpx.AsyncClient) -> list[int]:
        postgres.stop()
        statuses = [(await http.post(EVENTS, json={"items": [item_id(1)]})).status_code for _ in range(2)]
        statuses.append((await http.get("/users/u1/recommendations")).status_code)
        statuses.append((await http.post("/recommend", json={"history": [item_id(1)]})).status_code)
        statuses.append((await http.get("/readyz")).status_code)
        postgres.start()
        statuses.append((await http.post(EVENTS, json={"items": [item_id(1)]})).status_code)
        postgres.stop()
        postgres.start()
        statuses.append((await http.post(EVENTS, json={"items": [item_id(2)]})).status_code)
        return [*statuses, *await listed(http, "new")]

    answers = asked(Settings(model, store=postgres.fresh()), question)
    assert answers[:7] == [503, 503, 503, 200, 200, 200, 200]
    assert not {item_id(1), item_id(2)} & set(answers[7:])


def test_what_is_answered_503_changes_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a model nothing is erased, and metadata that are stored are acknowledged though the store goes away."""
    store = f"sqlite:///{tmp_path / 'events.db'}"
    asked(Settings(model, store=store), lambda http: append(http, "ann", item_id(1)))
    refused = asked(Settings(tmp_path / "nowhere", store=store), lambda http: http.delete("/users/ann"))
    assert refused.status_code == 503
    assert asked(Settings(model, store=store), lambda http: http.delete("/users/ann")).json()["erased"] == 1

    async def go_away(*_: object) -> None:
        raise StoreUnavailableError("away")

    async def question(http: httpx.AsyncClient) -> list[httpx.Response]:
        with monkeypatch.context() as later:
            later.setattr(DatabaseUserStore, "changed_items", go_away)
            stored = await http.put(f"/items/{item_id(1)}", json={"in_stock": False})
        await asyncio.sleep(1)
        return [stored, await http.post("/recommend", json={"history": [], "filter": {"in_stock": False}})]

    stored, after = asked(Settings(model, store=store), question)
    assert stored.status_code == 200
    assert [item["id"] for item in after.json()["items"]] == [item_id(1)]


def test_what_is_answered_504_is_never_stored(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "interactions.db"

    async def question(http: httpx.AsyncClient) -> tuple[int, int, list[Any]]:
        await append(http, "new", item_id(1))
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN IMMEDIATE")
            late = (await http.post(EVENTS, json={"items": [item_id(2)]})).status_code
            queued = (await http.post("/users/u1/events", json={"items": [item_id(2)]})).status_code
            other.rollback()
        await asyncio.sleep(1.5)  # SQLite waits for the lock, and takes it now
        with contextlib.closing(sqlite3.connect(file)) as other:
            return late, queued, other.execute("SELECT user_id, item_id FROM recvae_events").fetchall()

    settings = Settings(model, store=f"sqlite:///{file}", timeout_seconds=0.3)
    assert asked(settings, question) == (504, 504, [("new", str(item_id(1)))])


def test_a_commit_that_has_begun_is_acknowledged_late(url: str) -> None:
    import sqlalchemy as sa

    async def question() -> tuple[int, list[str]]:
        store = DatabaseUserStore(url)
        await store.append("ann", [Event("1")])
        started = threading.Event()

        def commit_slowly(_: Any) -> None:
            started.set()
            time.sleep(0.5)

        sa.event.listen(store._database.engine, "commit", commit_slowly)
        task = asyncio.create_task(store.append("ann", [Event("2")]))
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        stored = await task
        kept = stored_items(await store.history("ann", 10))
        store.close()
        return stored, kept

    assert asyncio.run(question()) == (1, ["1", "2"])


def test_a_full_disk_keeps_nothing_and_says_so(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "interactions.db"

    async def question(http: httpx.AsyncClient) -> list[Any]:
        store = DatabaseUserStore(f"sqlite:///{file}")
        await store.append("ann", [Event("1")])
        store.close()
        with sqlite3.connect(file) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
        durable = database._make_durable

        def small(connection: Any, record: Any) -> None:
            durable(connection, record)
            connection.execute(f"PRAGMA max_page_count={pages}")

        monkeypatch.setattr(database, "_make_durable", small)
        full = DatabaseUserStore(f"sqlite:///{file}")
        events = [Event(f"{i:0200}") for i in range(200)]
        with pytest.raises(StoreUnavailableError, match="full"):
            await full.append("ann", events)
        kept = stored_items(await full.history("ann", 1000))
        full.close()
        return kept

    assert asked(Settings(model), question) == ["1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere", "no database URL"),
        ("mysql://host/base", "expected sqlite or postgresql"),
        ("oracle+cx://host/base", "expected sqlite or postgresql"),
        ("sqlite://events.db", "Invalid SQLite URL: sqlite://events.db; expected sqlite:///… or postgresql"),
        ("sqlite:///events.db?check_same_thread=perhaps", "no database URL: String is not true/false: 'perhaps'"),
        ("sqlite://", "the store is in memory, and lost with the process; expected a file, sqlite:///…"),
        ("sqlite:///:memory:", "the store is in memory"),
        ("postgresql+nothing://host/base", "no database URL: Can't load plugin"),
        ("postgresql+absent://host/base", "the store needs absent, which is not installed; expected sqlite:///… or"),
    ],
)
def test_stores_that_cannot_be(given: str, said: str) -> None:
    sa.dialects.registry.register("postgresql.absent", "absent.dialect", "Dialect")
    with pytest.raises((ParameterError, MissingDependencyError), match=re.escape(said)) as refused:
        DatabaseUserStore(given)
    assert len(str(refused.value).splitlines()) == 1
