"""Stores of appended interactions: what is acknowledged is kept, on SQLite and on a real PostgreSQL server."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from recvae.errors import ParameterError
from recvae.serving import Settings, create_app
from recvae.serving.user_store import DatabaseUserStore, StoreUnavailableError
from tests.contracts import one_thread as one_thread
from tests.http_service import Postgres, asked, client, item_id, save

EVENTS = "/users/new/events"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "model"
    save(path)
    return path


async def append(http: httpx.AsyncClient, user: str, *items: int | str) -> dict[str, Any]:
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
    assert first == {"stored": 2, "unknown": ["later"]}
    assert by_user == by_history
    assert again == {"stored": 1, "unknown": []}
    assert set(by_user) - set(later) == {item_id(2)}


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
            await store.append("ann", [f"{i:02}" for i in range(start, start + 10)])
        latest = (await store.history("ann", 15)).items
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
        await store.append("ann", ["1"])
        started = threading.Event()

        def commit_slowly(_: Any) -> None:
            started.set()
            time.sleep(0.5)

        sa.event.listen(store._engine, "commit", commit_slowly)
        task = asyncio.create_task(store.append("ann", ["2"]))
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        stored = await task
        kept = (await store.history("ann", 10)).items
        store.close()
        return stored, kept

    assert asyncio.run(question()) == (1, ["1", "2"])


def test_a_full_disk_keeps_nothing_and_says_so(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "interactions.db"

    async def question(http: httpx.AsyncClient) -> list[Any]:
        store = DatabaseUserStore(f"sqlite:///{file}")
        await store.append("ann", ["1"])
        store.close()
        with sqlite3.connect(file) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
        from recvae.serving import user_store

        durable = user_store._make_durable

        def small(connection: Any, record: Any) -> None:
            durable(connection, record)
            connection.execute(f"PRAGMA max_page_count={pages}")

        monkeypatch.setattr(user_store, "_make_durable", small)
        full = DatabaseUserStore(f"sqlite:///{file}")
        items = [f"{i:0200}" for i in range(200)]
        with pytest.raises(StoreUnavailableError, match="full"):
            await full.append("ann", items)
        kept = (await full.history("ann", 1000)).items
        full.close()
        return kept

    assert asked(Settings(model), question) == ["1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere", "no database URL"),
        ("mysql://host/base", "expected sqlite or postgresql"),
        ("oracle+cx://host/base", "expected sqlite or postgresql"),
    ],
)
def test_stores_that_cannot_be(given: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        DatabaseUserStore(given)
