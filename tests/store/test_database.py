"""The store's tables: upgrade of earlier ones, and reading everything, on SQLite and on a real PostgreSQL server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from recvae.errors import DataError
from recvae.store import database
from recvae.store.database import Database
from recvae.store.events import Event, UserEvent
from recvae.store.user_store import DatabaseUserStore

EARLIER = "CREATE TABLE recvae_events (user_id TEXT, item_id TEXT, at {} NOT NULL, PRIMARY KEY (user_id, item_id))"


def execute(url: str, *statements: str) -> list[Any]:
    """Rows of the last statement."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            result = connection.exec_driver_sql(statement)
        rows = [tuple(row) for row in result.all()] if result.returns_rows else []
    engine.dispose()
    return rows


def make_earlier_store(url: str, n_users: int) -> None:
    """The table of version 0.1 with three events of each user."""
    values = ", ".join(f"('u{user}', 'i{item}', {100 * item + user})" for user in range(n_users) for item in range(3))
    create = EARLIER.format("REAL" if url.startswith("sqlite") else "DOUBLE PRECISION")
    execute(url, create, f"INSERT INTO recvae_events VALUES {values}")  # noqa: S608 made above


def append(url: str, user: str, *events: Event, list_id: str | None = None) -> int:
    async def work() -> int:
        store = DatabaseUserStore(url)
        try:
            return await store.append(user, events, list_id)
        finally:
            store.close()

    return asyncio.run(work())


def read(url: str, since: float = 0.0) -> list[UserEvent]:
    with Database(url) as store:
        return [event for batch in store.read_events(since) for event in batch]


def test_an_earlier_store_keeps_its_events_with_several_workers_at_once(url: str) -> None:
    make_earlier_store(url, n_users=200)
    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(append, url, f"u{i}", Event("i0"), Event("new")) for i in range(4)]
        assert [worker.result() for worker in workers] == [1, 1, 1, 1]
    events = read(url)
    assert len(events) == 604
    assert events[0] == UserEvent("u0", "i0", "", 1.0, 0.0, 0.0)
    assert {event.item for event in events if event.user == "u3"} == {"i0", "i1", "i2", "new"}
    engine = sa.create_engine(url)
    assert sorted(sa.inspect(engine).get_table_names()) == ["recvae_erased", "recvae_events", "recvae_items"]
    engine.dispose()


def test_an_upgrade_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_earlier_store(url, n_users=2)
    monkeypatch.setattr(database, "EARLIER_EVENTS", "recvae_erased")  # which is there already
    with pytest.raises(database.StoreUnavailableError, match="recvae_erased"):
        append(url, "u0", Event("new"))
    monkeypatch.undo()
    assert len(read(url)) == 6


def test_a_worker_of_an_earlier_version_goes_on_beside_later_ones(url: str) -> None:
    make_earlier_store(url, n_users=1)
    append(url, "u0", Event("new"))
    execute(
        url,
        "INSERT INTO recvae_events (user_id, item_id, at) VALUES ('u0', 'i0', 7), ('u0', 'late', 7) "
        "ON CONFLICT DO NOTHING",
    )
    assert [event.item for event in read(url)] == ["i0", "late", "i1", "i2", "new"]


def test_everything_is_read_in_batches_as_it_was_stored(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bought = Event("a", "buy", 2.5, 1e9)
    append(url, "ann", bought, Event("a", "view"), Event("a"), bought._replace(time=1e9 + 1), list_id="v-1")
    middle = read(url)[-1].stored_at
    assert append(url, "ann", bought._replace(weight=9), Event("a"), Event("b")) == 1
    append(url, "bob", Event("c"))
    events = read(url)
    assert [event[:4] for event in events] == [
        ("ann", "a", "buy", 2.5),
        ("ann", "a", "view", 1.0),
        ("ann", "a", "", 1.0),
        ("ann", "a", "buy", 2.5),
        ("ann", "b", "", 1.0),
        ("bob", "c", "", 1.0),
    ]
    assert [event.time for event in events if event.type == "buy"] == [1e9, 1e9 + 1]
    assert all(event.time == event.stored_at for event in events if event.type != "buy")
    assert [event.item for event in read(url, since=middle + 1e-6)] == ["b", "c"]
    monkeypatch.setattr(database, "BATCH", 4)
    with Database(url) as store:
        assert [len(batch) for batch in store.read_events()] == [4, 2]
        reading = store.read_events()
        next(reading)
        reading.close()
    lists = execute(url, "SELECT list_id, count(*) FROM recvae_events GROUP BY list_id ORDER BY count(*)")
    assert lists == [(None, 2), ("v-1", 4)]


def test_more_events_at_once_than_a_statement_has_parameters_for(url: str) -> None:
    events = [Event(f"i{i}") for i in range(10_000)]
    assert append(url, "ann", Event("i7"), events[9_999]) == 2
    assert append(url, "ann", *events) == 9_998
    assert [event.item for event in read(url)][2:] == [event.item for event in events[:7] + events[8:-1]]


def test_erased_users_are_read(url: str) -> None:
    async def erase() -> None:
        users = DatabaseUserStore(url)
        await users.append("ann", [Event("a"), Event("a", time=5.0)])
        assert await users.erase("ann") == 2
        users.close()

    asyncio.run(erase())
    with Database(url) as store:
        assert list(store.read_erased()) == ["ann"]
        assert list(store.read_events()) == []


def test_what_is_no_store_is_said_and_left_alone(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match=r"nowhere\.db: no such file"):
        read(f"sqlite:///{tmp_path / 'nowhere.db'}")
    assert not (tmp_path / "nowhere.db").exists()
    execute(url, "CREATE TABLE other (id INTEGER)")
    with pytest.raises(DataError, match="has no table recvae_events; expected the store of a recvae service"):
        read(url)
    assert len(execute(url, "SELECT * FROM other")) == 0


def test_a_store_that_is_away_is_said() -> None:
    with pytest.raises(database.StoreUnavailableError, match="refused"):
        read("postgresql+psycopg://nobody@127.0.0.1:1/none")
