"""One door to SQL: the engine, its deadlines, the database's clock, and what its failures mean.

Every transaction runs under a deadline, and each way a database fails becomes StoreUnavailable:
refused, frozen, pool empty, read-only, disk full, lock wait. A commit whose answer is lost is
OutcomeUnknown.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Double,
    Table,
    event,
    func,
    literal,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from crossfade.clock import Clock
from crossfade.errors import ConfigurationError, OutcomeUnknown, SchemaOutdated, StoreUnavailable
from crossfade.stores.schema import HEAD_REVISION

VERSION_TABLE = "crossfade_alembic_version"
"""Ours, so that an application that uses Alembic too keeps its own."""

# Families, not members: a read-only PostgreSQL is InternalError, a full disk OperationalError.
_UNAVAILABLE = (OperationalError, InterfaceError, InternalError, PoolTimeout, OSError)
_UNIX_EPOCH_AS_JULIAN_DAY = 2440587.5
# The database gives up before our deadline does: a call that is cancelled costs its connection, and
# leaves the thread behind a SQLite connection waiting for a lock that nobody wants any more.
_DATABASE_SHARE = 0.8
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}


class Database:
    """An engine with deadlines: `read` and `write` open a transaction each.

    Args:
        url: an SQLAlchemy URL; `sqlite:///x.db` and `postgresql://…` get their asynchronous driver.
        timeout: seconds that one transaction may take, all waiting included.
        clock: if given, `now` is this clock instead of the database's own; for tests.
        backend: the word for metrics and errors: `sql`, or `sessions` for the application's store.
        count: told the outcome of each transaction: `ok` or `error`.

    Raises:
        ConfigurationError: the URL is not one of SQLite or PostgreSQL, or its driver is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 2.0,
        clock: Clock | None = None,
        backend: str = "sql",
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._count = count
        self.timeout = timeout
        self.backend = backend
        self._clock = clock
        self.engine = _engine(asynchronous(url), timeout, is_ours=backend == "sql")
        self.engine.sync_engine.update_execution_options(crossfade_now=self.now)
        self.dialect = self.engine.dialect.name

    def __repr__(self) -> str:
        """Show the address without its password."""
        return f"<Database {self.engine.url.render_as_string(hide_password=True)}>"

    def now(self) -> ColumnElement[float]:
        """Return the SQL expression for the present: POSIX seconds of the database's clock.

        On PostgreSQL it is the time of the statement, not of the transaction, so that a lock that
        was waited for does not stretch a window.
        """
        if self._clock is not None:
            return literal(self._clock.time(), Double)
        if self.dialect == "postgresql":
            return func.date_part("epoch", func.clock_timestamp()).cast(Double)
        days = func.julianday("now", type_=Double)
        return (days - _UNIX_EPOCH_AS_JULIAN_DAY) * 86400.0

    async def time(self) -> float:
        """Ask the database for the time. Raises StoreUnavailable."""
        async with self.read() as connection:
            return float((await connection.execute(select(self.now()))).scalar_one())

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction for reading. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(self.timeout), self.engine.connect() as connection:
                yield connection
            self._count("ok")
        except TimeoutError as error:
            raise self._lost(committing=False, detail=f"no answer in {self.timeout:g} s") from error
        except _UNAVAILABLE as error:
            raise self._lost(committing=False, detail=type(error).__name__) from error

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that commits at the end of the block, or rolls back on any error.

        Raises:
            StoreUnavailable: the database did not do it; nothing was written.
            OutcomeUnknown: the deadline or the connection ended during the commit itself.
        """
        committing = False
        try:
            async with asyncio.timeout(self.timeout), self.engine.connect() as connection:
                await connection.execution_options(crossfade_write=True)
                yield connection
                committing = True
                await connection.commit()
                committing = False
            self._count("ok")
        except TimeoutError as error:
            raise self._lost(
                committing=committing, detail=f"no answer in {self.timeout:g} s"
            ) from error
        except _UNAVAILABLE as error:
            raise self._lost(committing=committing, detail=type(error).__name__) from error

    async def check_schema(self) -> None:
        """Compare the schema with what this version needs.

        Raises:
            SchemaOutdated: no tables yet, or another revision; says the command.
            StoreUnavailable: the database did not answer.
        """
        try:
            async with self.read() as connection:
                found = (
                    await connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
                ).scalar_one_or_none()
        except (StoreUnavailable, ProgrammingError) as error:
            cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
            if "no such table" in str(cause) or "does not exist" in str(cause):
                raise SchemaOutdated(
                    "the database has no Crossfade tables: run `crossfade db upgrade`"
                ) from error
            raise
        if found != HEAD_REVISION:
            raise SchemaOutdated(
                f"the database is at schema {found}, this version needs {HEAD_REVISION}:"
                " run `crossfade db upgrade`"
            )

    async def close(self) -> None:
        """Give all connections back."""
        await self.engine.dispose()

    def _lost(self, *, committing: bool, detail: str) -> StoreUnavailable:
        self._count("error")
        return (OutcomeUnknown if committing else StoreUnavailable)(self.backend, detail)


def present(connection: AsyncConnection) -> ColumnElement[float]:
    """Return `Database.now` of the database that an open connection belongs to."""
    now: ColumnElement[float] = connection.sync_engine.get_execution_options()["crossfade_now"]()
    return now


def insert_into(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that knows `ON CONFLICT` in the dialect of the connection."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def asynchronous(url: str) -> URL:
    """Return the URL with the asynchronous driver that Crossfade uses for its database.

    Raises:
        ConfigurationError: not a URL, or another database than SQLite and PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "the database URL cannot be read; write sqlite:///crossfade.db or"
            " postgresql://user@host/name"
        ) from error
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise ConfigurationError(
            f"the database {parsed.get_backend_name()!r} is not supported: use sqlite or postgresql"
        )
    if driver.startswith("sqlite") and parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError("an in-memory SQLite cannot be shared by instances: name a file")
    return parsed.set(drivername=driver)


def _engine(url: URL, timeout: float, *, is_ours: bool) -> AsyncEngine:
    arguments: dict[str, Any] = {"pool_timeout": timeout}
    if url.get_backend_name() == "postgresql":
        milliseconds = int(timeout * 1000 * _DATABASE_SHARE)
        arguments["connect_args"] = {
            "connect_timeout": max(2, round(timeout)),  # libpq rounds less than 2 s up
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        }
        # Waiting connections at a lock must not keep a plain read from its own.
        arguments |= {"pool_size": 10, "max_overflow": 20}
    try:
        engine = create_async_engine(url, **arguments)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the driver {error.name} is missing: pip install 'crossfade[postgres]'"
        ) from error
    if url.get_backend_name() == "sqlite":
        _tune_sqlite(engine, timeout, is_ours=is_ours)
    return engine


def _tune_sqlite(engine: AsyncEngine, timeout: float, *, is_ours: bool) -> None:
    """Make SQLite fit for several processes: WAL, waiting writers, real transactions.

    The journal mode stays with the file: that of the application's own is not ours to choose.
    """

    @event.listens_for(engine.sync_engine, "do_connect")
    def look(_dialect: Any, _record: Any, arguments: list[Any], _named: Any) -> None:
        # The driver's thread outlives a failed connect and complains once the loop has closed: what
        # is commonly wrong must be found before it starts.
        if not Path(arguments[0]).parent.is_dir():
            raise sqlite3.OperationalError("the folder of the database is missing")

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(timeout * 1000 * _DATABASE_SHARE)}")
        if is_ours:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        # A transaction that reads first and writes later fails at once when another one wrote in
        # between; IMMEDIATE takes the write lock at the start and waits for it.
        write = connection.get_execution_options().get("crossfade_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
