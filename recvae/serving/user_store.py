"""Interactions appended after training: `UserStore`, and `DatabaseUserStore` for SQLite and PostgreSQL."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson

from recvae.errors import MissingDependencyError, ParameterError, RecvaeError

Result = TypeVar("Result")
DIALECTS = ("sqlite", "postgresql")
THREADS = 8
CONNECT_SECONDS = 3
STATEMENT_SECONDS = 5


class StoreUnavailableError(RecvaeError):
    """The database cannot be reached or cannot write."""


class StoredHistory(NamedTuple):
    """The interactions that a store has of a user.

    Attributes
    ----------
    items : list of str
        Latest interactions, oldest first; none for an unknown user.
    erased : bool
        Whether the user was erased, so that the artifact's history must not be used; interactions may have come since.
    """

    items: list[str]
    erased: bool = False


class UserStore(Protocol):
    """Keeps appended interactions, by ids as text, which users were erased, and metadata of items."""

    async def history(self, user: str, most: int) -> StoredHistory:
        """Return at most so many of the user's latest interactions."""

    async def append(self, user: str, items: Sequence[str]) -> int:
        """Store interactions for good; return how many were new."""

    async def erase(self, user: str) -> int:
        """Delete the user's interactions, and remember that; return how many there were."""

    async def put_item(self, item: str, metadata: Mapping[str, Any]) -> None:
        """Store an item's metadata for good, in place of what was stored before."""

    async def changed_items(self, since: float) -> list[tuple[str, dict[str, Any], float]]:
        """List items stored since a time, with their metadata and the time of each."""

    def close(self) -> None:
        """Close everything that is open."""


class DatabaseUserStore:
    """Stores interactions in the table `recvae_events` of an SQLite or PostgreSQL database, each (user, item) once.

    Ids of erased users are in the table `recvae_erased`, items' metadata as JSON in `recvae_items`.

    An interaction is acknowledged once its transaction is on disk. Tables are created on first use, so that the
    service can start while the database is away.

    Parameters
    ----------
    url : str
        SQLAlchemy's URL of the database.
    """

    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy as sa
        except ImportError:
            raise MissingDependencyError(
                "RECVAE_STORE needs sqlalchemy; install recvae with the extra 'service'"
            ) from None
        self._sa = sa
        try:
            parsed = sa.make_url(url)
            dialect = parsed.get_backend_name()
            if dialect not in DIALECTS:
                raise ParameterError(f"RECVAE_STORE is a {dialect} database; expected {' or '.join(DIALECTS)}")
            self._engine = sa.create_engine(
                parsed, pool_pre_ping=True, connect_args=_connect_options(dialect), **_pool_options(dialect)
            )
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
            raise ParameterError(f"RECVAE_STORE is no database URL: {error}") from None
        if dialect == "sqlite":
            sa.event.listen(self._engine, "connect", _make_durable)
        self._tables = sa.MetaData()
        self._erased = sa.Table(
            "recvae_erased",
            self._tables,
            sa.Column("user_id", sa.Text, primary_key=True),
            sa.Column("at", sa.Double, nullable=False),
        )
        self._events = sa.Table(
            "recvae_events",
            self._tables,
            sa.Column("user_id", sa.Text, primary_key=True),
            sa.Column("item_id", sa.Text, primary_key=True),
            sa.Column("at", sa.Double, nullable=False),
        )
        self._items = sa.Table(
            "recvae_items",
            self._tables,
            sa.Column("item_id", sa.Text, primary_key=True),
            sa.Column("metadata", sa.Text, nullable=False),
            sa.Column("at", sa.Double, nullable=False, index=True),
        )
        self._insert: Any = getattr(sa.dialects, dialect).insert
        self._has_tables = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    async def history(self, user: str, most: int) -> StoredHistory:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached."""
        events = self._events.c
        statement = (
            self._sa.select(events.item_id)
            .where(events.user_id == user)
            .order_by(events.at.desc(), events.item_id)
            .limit(most)
        )
        erased = self._sa.select(self._erased.c.at).where(self._erased.c.user_id == user)
        return await self._run(
            lambda connection: StoredHistory(
                list(connection.scalars(statement))[::-1], connection.scalar(erased) is not None
            )
        )

    async def append(self, user: str, items: Sequence[str]) -> int:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached or its disk is full."""
        now = time.time()
        rows = [{"user_id": user, "item_id": item, "at": now + i * 1e-6} for i, item in enumerate(items)]
        new = self._insert(self._events).values(rows).on_conflict_do_nothing().returning(self._events.c.item_id)
        return await self._run(lambda connection: len(connection.execute(new).all()))

    async def erase(self, user: str) -> int:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached or cannot write."""
        deletion = self._sa.delete(self._events).where(self._events.c.user_id == user)
        mark = self._insert(self._erased).values(user_id=user, at=time.time()).on_conflict_do_nothing()

        def work(connection: Any) -> int:
            connection.execute(mark)
            return int(connection.execute(deletion).rowcount)

        return await self._run(work)

    async def put_item(self, item: str, metadata: Mapping[str, Any]) -> None:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached or cannot write."""
        row = {"metadata": orjson.dumps(metadata).decode(), "at": time.time()}
        statement = self._insert(self._items).values(item_id=item, **row)
        statement = statement.on_conflict_do_update(index_elements=["item_id"], set_=row)
        await self._run(lambda connection: connection.execute(statement))

    async def changed_items(self, since: float) -> list[tuple[str, dict[str, Any], float]]:
        """See `UserStore`; `StoreUnavailableError` if the database cannot be reached."""
        items = self._items.c
        statement = self._sa.select(items.item_id, items.metadata, items.at).where(items.at >= since)
        return await self._run(
            lambda connection: [
                (item, orjson.loads(metadata), at) for item, metadata, at in connection.execute(statement)
            ]
        )

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown()
        self._engine.dispose()

    async def _run(self, work: Callable[[Any], Result]) -> Result:
        """Run work in a transaction, which is rolled back if its request is given up before the commit begins."""
        decision = threading.Lock()  # whoever takes it first decides: the commit, or the request that is given up
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._transaction, work, decision)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if decision.acquire(blocking=False):
                raise
            # Nobody can stop a commit that has begun. Its outcome is known within STATEMENT_SECONDS, and an answer
            # that comes a little late is true, which a 504 might not be.
            return await running

    def _transaction(self, work: Callable[[Any], Result], decision: threading.Lock) -> Result:
        try:
            if not self._has_tables:
                self._create_tables()
            with self._engine.connect() as connection, connection.begin() as transaction:
                result = work(connection)
                if not decision.acquire(blocking=False):
                    transaction.rollback()
                return result
        except self._sa.exc.SQLAlchemyError as error:
            raise StoreUnavailableError(f"{type(error).__name__}: {getattr(error, 'orig', error)}") from error

    def _create_tables(self) -> None:
        """Create the tables; another thread or worker may do so at the same time."""
        for table in self._tables.sorted_tables:
            try:
                table.create(self._engine, checkfirst=True)
            except (self._sa.exc.IntegrityError, self._sa.exc.ProgrammingError, self._sa.exc.OperationalError):
                if not self._sa.inspect(self._engine).has_table(table.name):
                    raise
        self._has_tables = True


def _connect_options(dialect: str) -> dict[str, Any]:
    if dialect == "sqlite":
        return {"timeout": STATEMENT_SECONDS}
    return {
        "connect_timeout": CONNECT_SECONDS,
        "options": f"-c statement_timeout={1000 * STATEMENT_SECONDS}",
        "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
    }


def _pool_options(dialect: str) -> dict[str, Any]:
    return {} if dialect == "sqlite" else {"pool_size": THREADS, "max_overflow": 0, "pool_timeout": STATEMENT_SECONDS}


def _make_durable(connection: Any, _: Any) -> None:
    """Set SQLite so that a commit survives a crash of the machine, and readers do not wait for writers."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
