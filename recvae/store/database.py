"""`Database`: the tables of the store in SQLite or PostgreSQL, transactions on them, and reading of everything."""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self, TypeVar

from recvae.errors import DataError, MissingDependencyError, ParameterError, RecvaeError, first_line
from recvae.store.events import UserEvent

Result = TypeVar("Result")
DIALECTS = ("sqlite", "postgresql")
URLS = "sqlite:///… or postgresql+psycopg://…"
CONNECTIONS = 8
CONNECT_SECONDS = 3
STATEMENT_SECONDS = 5
EVENTS, EARLIER_EVENTS = "recvae_events", "recvae_earlier_events"
BATCH = 10_000


class StoreUnavailableError(RecvaeError):
    """The database cannot be reached or cannot write."""


class Database:
    """Tables of events, erased users and items' metadata in an SQLite or PostgreSQL database.

    `recvae_events` has each event once by its user, item, type and client time; `recvae_erased` has the ids of erased
    users, `recvae_items` metadata as JSON. Tables are created, and those of earlier versions upgraded, on first use, so
    that the service can start while the database is away. `with` closes its connections in the end.

    Parameters
    ----------
    url : str
        SQLAlchemy's URL of the database.

    Raises
    ------
    ParameterError
        If it is no URL of such a database, or of one in memory.
    MissingDependencyError
        If sqlalchemy or the driver that the URL names is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy as sa
        except ImportError:
            raise MissingDependencyError(
                "the store needs sqlalchemy; install recvae with the extra 'service'"
            ) from None
        self.sa = sa
        self._url = _parse_url(sa, url)
        dialect = self._url.get_backend_name()
        if dialect not in DIALECTS:
            raise ParameterError(f"the store is a {dialect} database; expected {' or '.join(DIALECTS)}")
        self.engine = _create_engine(sa, self._url, dialect)
        self._is_sqlite = dialect == "sqlite"
        if self._is_sqlite:
            sa.event.listen(self.engine, "connect", _make_durable)
        self._tables = sa.MetaData()
        self.erased = sa.Table(
            "recvae_erased",
            self._tables,
            sa.Column("user_id", sa.Text, primary_key=True),
            sa.Column("at", sa.Double, nullable=False),
        )
        self.events = sa.Table(  # defaults are for workers of earlier versions, which know neither type nor time
            EVENTS,
            self._tables,
            sa.Column("user_id", sa.Text, primary_key=True),
            sa.Column("item_id", sa.Text, primary_key=True),
            sa.Column("type", sa.Text, primary_key=True, server_default=""),
            sa.Column("time", sa.Double, primary_key=True, server_default="0"),
            sa.Column("weight", sa.Double, nullable=False, server_default="1"),
            sa.Column("list_id", sa.Text),
            sa.Column("at", sa.Double, nullable=False),
        )
        self.items = sa.Table(
            "recvae_items",
            self._tables,
            sa.Column("item_id", sa.Text, primary_key=True),
            sa.Column("metadata", sa.Text, nullable=False),
            sa.Column("at", sa.Double, nullable=False, index=True),
        )
        events = self.events.c
        self.event_time = sa.case((events.time == 0, events.at), else_=events.time)
        self.insert: Any = getattr(sa.dialects, dialect).insert
        self._is_ready = False

    def run(self, work: Callable[[Any], Result], may_commit: Callable[[], bool] = lambda: True) -> Result:
        """Run work on a connection in a transaction, which is rolled back where `may_commit` says no in the end.

        Raises
        ------
        StoreUnavailableError
            If the database cannot be reached or cannot write.
        """
        try:
            if not self._is_ready:
                self._prepare()
            with self.engine.connect() as connection, connection.begin() as transaction:
                result = work(connection)
                if not may_commit():
                    transaction.rollback()
                return result
        except self.sa.exc.SQLAlchemyError as error:
            raise self._unavailable(error) from error

    def read_events(self, since: float = 0.0) -> Generator[list[UserEvent], None, None]:
        """Read every event that was stored since a time, oldest first, in batches that fit into memory.

        Parameters
        ----------
        since : float
            Unix seconds. What was being stored at the time of an earlier reading may have an earlier time than what
            that reading has seen: go back by a few seconds.

        Yields
        ------
        list of UserEvent
            At most `BATCH`; all of them are one consistent view of the table.

        Raises
        ------
        DataError
            If the database holds no events of the service.
        StoreUnavailableError
            If the database cannot be reached.
        """
        events = self.events.c
        selected = events.user_id, events.item_id, events.type, events.weight, self.event_time, events.at
        keys = events.at, events.user_id, events.item_id, events.type, events.time
        statement = self.sa.select(*selected).where(events.at >= since).order_by(*keys)
        for rows in self._stream(statement):
            yield [UserEvent(*row) for row in rows]

    def read_erased(self) -> dict[str, float]:
        """Read the ids of erased users, and when each was erased first, in Unix seconds; errors as `read_events`."""
        statement = self.sa.select(self.erased.c.user_id, self.erased.c.at)
        return {user: at for rows in self._stream(statement) for user, at in rows}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_items(self) -> dict[str, dict[str, Any]]:
        """Read the metadata of items that clients have set, by id; errors as `read_events`."""
        statement = self.sa.select(self.items.c.item_id, self.items.c.metadata)
        return {item: json.loads(metadata) for rows in self._stream(statement) for item, metadata in rows}

    @property
    def name(self) -> str:
        """The URL without its password."""
        return str(self._url.render_as_string(hide_password=True))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _stream(self, statement: Any) -> Iterator[Sequence[Any]]:
        """Run a query that may take long, and yield its rows in batches."""
        name, file = self.name, self._url.database
        if self._is_sqlite and not file.startswith("file:") and not Path(file).exists():
            raise DataError(f"{name}: no such file")
        try:
            if not self.sa.inspect(self.engine).has_table(EVENTS):
                raise DataError(f"{name} has no table {EVENTS}; expected the store of a recvae service")
            if not self._is_ready:
                self._prepare()
            with self.engine.connect() as connection, connection.begin():
                self._wait_forever(connection)
                streaming = connection.execution_options(stream_results=True, yield_per=BATCH)
                with closing(streaming.execute(statement)) as result:
                    yield from result.partitions()
        except self.sa.exc.SQLAlchemyError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Any) -> StoreUnavailableError:
        return StoreUnavailableError(f"{type(error).__name__}: {getattr(error, 'orig', error)}")

    def _prepare(self) -> None:
        """Create the tables and upgrade earlier ones; another thread or worker may do so at the same time."""
        for table in self._tables.sorted_tables:
            try:
                table.create(self.engine, checkfirst=True)
            except (self.sa.exc.IntegrityError, self.sa.exc.ProgrammingError, self.sa.exc.OperationalError):
                if not self.sa.inspect(self.engine).has_table(table.name):
                    raise
        if self._is_outdated(self.engine):
            with self.engine.connect() as connection, connection.begin():
                self._upgrade(connection)
        self._is_ready = True

    def _is_outdated(self, connectable: Any) -> bool:
        return "type" not in {column["name"] for column in self.sa.inspect(connectable).get_columns(EVENTS)}

    def _upgrade(self, connection: Any) -> None:
        """Move the events of version 0.2 and before, which had each (user, item) once, to a table with today's key."""
        lock = "BEGIN IMMEDIATE" if self._is_sqlite else f"LOCK TABLE {EVENTS} IN ACCESS EXCLUSIVE MODE"
        connection.exec_driver_sql(lock)
        if not self._is_outdated(connection):
            return
        self._wait_forever(connection)
        connection.exec_driver_sql(f"ALTER TABLE {EVENTS} RENAME TO {EARLIER_EVENTS}")
        self.events.create(connection)
        names = "user_id", "item_id", "at"
        earlier = self.sa.table(EARLIER_EVENTS, *map(self.sa.column, names))
        connection.execute(self.events.insert().from_select(names, self.sa.select(earlier)))
        connection.exec_driver_sql(f"DROP TABLE {EARLIER_EVENTS}")

    def _wait_forever(self, connection: Any) -> None:
        """Lift the limit of PostgreSQL on the time of statements for the rest of a transaction."""
        if not self._is_sqlite:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def _parse_url(sa: Any, url: str) -> Any:
    try:
        return sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ParameterError(f"the store is no database URL: {error}") from None
    except ValueError:  # it quotes the port, which may be a part of the password
        raise ParameterError("the store is no database URL: its port is no number") from None


def _create_engine(sa: Any, url: Any, dialect: str) -> Any:
    try:
        engine = sa.create_engine(
            url, pool_pre_ping=True, connect_args=_connect_options(dialect), **_pool_options(dialect)
        )
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ParameterError(f"the store is no database URL: {first_line(error)}; expected {URLS}") from None
    except ImportError as error:
        raise MissingDependencyError(
            f"the store needs {error.name}, which is not installed; expected {URLS}, and recvae's extra 'service'"
        ) from None
    if dialect == "sqlite" and url.database in (None, "", ":memory:"):  # each thread would have one of its own
        raise ParameterError("the store is in memory, and lost with the process; expected a file, sqlite:///…")
    return engine


def _connect_options(dialect: str) -> dict[str, Any]:
    if dialect == "sqlite":
        return {"timeout": STATEMENT_SECONDS}
    return {
        "connect_timeout": CONNECT_SECONDS,
        "options": f"-c statement_timeout={1000 * STATEMENT_SECONDS}",
        "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
    }


def _pool_options(dialect: str) -> dict[str, Any]:
    if dialect == "sqlite":
        return {}
    return {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": STATEMENT_SECONDS}


def _make_durable(connection: Any, _: Any) -> None:
    """Set SQLite so that a commit survives a crash of the machine, and readers do not wait for writers."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
