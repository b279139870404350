"""`UserStore`, which keeps what clients send to the service, and `DatabaseUserStore` for SQLite and PostgreSQL."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson

from recvae.store.database import CONNECTIONS, Database
from recvae.store.events import Event

Result = TypeVar("Result")
TICK = 1e-6
"""Seconds between two entries, at least."""


class StoredHistory(NamedTuple):
    """The events that a store has of a user.

    Attributes
    ----------
    events : list of Event
        Latest events, oldest first; none for an unknown user.
    erased : bool
        Whether the user was erased, so that the artifact's history must not be used; events may have come since.
    """

    events: list[Event]
    erased: bool = False


class UserStore(Protocol):
    """Keeps events of users, by ids as text, which users were erased, and metadata of items."""

    async def history(self, user: str, most: int) -> StoredHistory:
        """Return at most so many of the user's latest events."""

    async def append(self, user: str, events: Sequence[Event], list_id: str | None = None) -> int:
        """Store events for good, with the list they answer; return how many were new."""

    async def erase(self, user: str) -> int:
        """Delete the user's events, and remember that; return how many there were."""

    async def put_item(self, item: str, metadata: Mapping[str, Any]) -> None:
        """Store an item's metadata for good, in place of what was stored before."""

    async def changed_items(self, since: float) -> list[tuple[str, dict[str, Any], float]]:
        """List items stored since a time, with their metadata and the time of each."""

    def close(self) -> None:
        """Close everything that is open."""


class DatabaseUserStore:
    """Keeps everything in a `Database`, in threads of its own; what it acknowledges is on disk.

    Parameters
    ----------
    url : str
        SQLAlchemy's URL of the database.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._select, self._delete = self._database.sa.select, self._database.sa.delete
        self._latest, self._erased_at = self._select_history()
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store")

    def _select_history(self) -> tuple[Any, Any]:
        """Make the statements of `history` once, since every list for a user needs them."""
        sa, events, erased = self._database.sa, self._database.events.c, self._database.erased.c
        user, time = sa.bindparam("user"), self._database.event_time
        latest = (
            self._select(events.item_id, events.type, events.weight, time)
            .where(events.user_id == user)
            .order_by(time.desc(), events.at.desc(), events.item_id)
            .limit(sa.bindparam("most"))
        )
        return latest, self._select(erased.at).where(erased.user_id == user)

    async def history(self, user: str, most: int) -> StoredHistory:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached."""

        def work(connection: Any) -> StoredHistory:
            rows = connection.execute(self._latest, {"user": user, "most": most}).all()
            erased_at = connection.scalar(self._erased_at, {"user": user})
            return StoredHistory([Event(*row) for row in reversed(rows)], erased_at is not None)

        return await self._run(work)

    async def append(self, user: str, events: Sequence[Event], list_id: str | None = None) -> int:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached or its disk is full.

        An event with the item, type and time of one that is there already is the same one, sent again.
        """
        now, table = time.time(), self._database.events
        rows = [
            {
                "user_id": user,
                "item_id": event.item,
                "type": event.type,
                "time": event.time,
                "weight": event.weight,
                "list_id": list_id,
                "at": now + i * TICK,
            }
            for i, event in enumerate(events)
        ]
        new = self._database.insert(table).on_conflict_do_nothing().returning(table.c.item_id)
        return await self._run(lambda connection: len(connection.execute(new, rows).all()))

    async def erase(self, user: str) -> int:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached or cannot write."""
        events, erased = self._database.events, self._database.erased
        deletion = self._delete(events).where(events.c.user_id == user)
        mark = self._database.insert(erased).values(user_id=user, at=time.time()).on_conflict_do_nothing()

        def work(connection: Any) -> int:
            connection.execute(mark)
            return int(connection.execute(deletion).rowcount)

        return await self._run(work)

    async def put_item(self, item: str, metadata: Mapping[str, Any]) -> None:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached or cannot write."""
        sa, items, now = self._database.sa, self._database.items, time.time()
        # Never before what is stored already: workers read on from the latest time, and clocks of machines differ.
        after = self._select(sa.func.max(items.c.at) + TICK).scalar_subquery()
        at = sa.case((after > now, after), else_=now)
        row = self._database.insert(items).values(item_id=item, metadata=orjson.dumps(metadata).decode(), at=at)
        replaced = {name: row.excluded[name] for name in ("metadata", "at")}
        statement = row.on_conflict_do_update(index_elements=["item_id"], set_=replaced)
        await self._run(lambda connection: connection.execute(statement))

    async def changed_items(self, since: float) -> list[tuple[str, dict[str, Any], float]]:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached."""
        items = self._database.items.c
        statement = self._select(items.item_id, items.metadata, items.at).where(items.at >= since)
        return await self._run(
            lambda connection: [
                (item, orjson.loads(metadata), at) for item, metadata, at in connection.execute(statement)
            ]
        )

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown()
        self._database.close()

    async def _run(self, work: Callable[[Any], Result]) -> Result:
        """Run work in a transaction, which is rolled back if its request is given up before the commit begins."""
        decision = threading.Lock()  # whoever takes it first decides: the commit, or the request that is given up
        decide = partial(decision.acquire, blocking=False)
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._database.run, work, decide)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if decide():
                raise
            # Nobody can stop a commit that has begun. Its outcome is known within STATEMENT_SECONDS, and an answer
            # that comes a little late is true, which a 504 might not be.
            return await running
