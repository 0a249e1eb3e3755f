"""Server-side sessions in any SQL table: the settings name the table, its columns and its rules.

This is for the store that an application wrote itself. The cookie is a random id, the row holds
JSON and perhaps the user, and a session ends some time after `seen` or `created`, or at `expires`.
"""

import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    ColumnClause,
    TableClause,
    bindparam,
    column,
    delete,
    insert,
    select,
    table,
    update,
)
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import quoted_name
from sqlalchemy.types import UserDefinedType

from crossfade.errors import ConfigurationError, StoreUnavailable
from crossfade.legacy import times
from crossfade.legacy.base import (
    CookieAttributes,
    Created,
    LegacySession,
    Presented,
    SessionState,
)
from crossfade.legacy.identity import IdentityMap
from crossfade.legacy.payload import UnreadableError, load
from crossfade.principal import Identity
from crossfade.settings import LegacySettings, SqlTableSettings
from crossfade.stores.engine import Database

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")
# No id that a careful application draws looks otherwise: shorter ones can be guessed, and the other
# characters would need quotes in a cookie.
_KEY = re.compile(rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{8,256}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEX = re.compile(r"([0-9a-f]{2}){16,64}")
_PARTS = ("key", "data", "user", "created", "seen", "expires")


class SqlTableSessions:
    """Reads and writes the session table of an application through `database`, and closes that.

    The data column holds JSON: text, bytes (read only) or PostgreSQL's json types. Where the table
    has a user column, that column alone says who it is.

    Raises:
        ConfigurationError: `[legacy.sql]` is missing, a name is no identifier, or `idle` or
            `absolute` stands without the column that it counts from.
    """

    reader = "sql"
    server_side = True
    idle: float | None

    def __init__(self, settings: LegacySettings, database: Database) -> None:
        if settings.sql is None:
            raise ConfigurationError("`legacy.sql` is missing: name the table of the sessions")
        self._settings = _checked(settings.sql)
        self.idle = self._settings.idle
        self._columns = {
            part: _column(part, name) for part in _PARTS if (name := getattr(settings.sql, part))
        }
        self._table = _table(settings.sql.table, self._columns.values())
        # Built once: building them anew was a third of what a read costs.
        found = [column.label(part) for part, column in self._columns.items() if part != "key"]
        self._query = select(*found).where(self._columns["key"] == bindparam("wanted"))
        self._locked_query = self._query.with_for_update()
        self._database = database
        self._identities = IdentityMap(settings.identity)
        self._name = settings.cookie.encode("latin-1")
        self.cookie = CookieAttributes(
            name=settings.cookie,
            path=settings.path,
            domain=settings.domain,
            secure=settings.secure,
            same_site=settings.same_site,
            max_age=None if settings.max_age is None else int(settings.max_age),
        )

    def pick(self, cookies: Mapping[bytes, Sequence[bytes]]) -> Presented | None:
        """Return the first or the last of the twins, as settings say the application does."""
        values = cookies.get(self._name, ())
        if not values:
            return None
        value = values[0 if self._settings.twin == "first" else -1]
        key = value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value
        if not _KEY.fullmatch(key):
            return None
        return Presented(
            value=value.decode("latin-1"),
            key=key.decode("ascii"),
            has_twin=any(other != value for other in values),
        )

    async def read(self, presented: Presented, now: float) -> LegacySession:
        """Read one session without touching it. Raises StoreUnavailable."""
        return await self.read_key(presented.key or presented.value, now)

    async def read_key(self, key: str, now: float) -> LegacySession:
        """Read one session by its id. Raises StoreUnavailable."""
        try:
            async with self._store(write=False) as connection:
                row = await self._row(connection, key)
        except DataError:
            return _gone("the id has another type than its column")
        return self._session(key, row, now)

    def peek(self, scope: MutableMapping[str, Any], value: str, now: float) -> LegacySession | None:
        """Return None: where such an application keeps its session is its own affair."""
        return None

    async def pin(self, key: str, until: float, now: float) -> LegacySession:
        """Move `seen` forward, never back, so that the session lasts idle until `until`.

        An absolute end stays. Returns the session as it is then. Raises StoreUnavailable.
        """
        try:
            async with self._store(write=True) as connection:
                row = await self._row(connection, key, lock=True)
                session = self._session(key, row, now)
                if row is None or session.state is SessionState.GONE:
                    return session
                if (moved := self._moved(row, session, until)) is None:
                    return session
                where = self._columns["key"] == self._stored_key(key)
                await connection.execute(update(self._table).where(where).values(moved))
                return self._session(key, row | {"seen": moved[self._columns["seen"].name]}, now)
        except DataError:
            return _gone("the id has another type than its column")

    async def delete(self, key: str) -> None:
        """Delete the row; absent is fine. Raises StoreUnavailable."""
        try:
            async with self._store(write=True) as connection:
                where = self._columns["key"] == self._stored_key(key)
                await connection.execute(delete(self._table).where(where))
        except DataError:
            return  # such an id was never in the table

    async def create(
        self,
        identity: Identity | None,
        data: Mapping[str, Any],
        *,
        deadline: float,
        now: float,
        auth_time: float | None = None,
        key: str | None = None,
    ) -> Created:
        """Insert a row like those that are there. With `key` it takes the place of that row.

        Its times are now's, or earlier where it would otherwise outlive `deadline`.

        Raises:
            StoreUnavailable: no answer, or the table has a rule that such a row breaks.
        """
        moments = self._moments(deadline, now)
        try:
            async with self._store(write=True) as connection:
                sample = await self._sample(connection)
                given, key = key, key or _new_key(sample.get("key"))
                if given is not None:
                    where = self._columns["key"] == self._stored_key(key)
                    await connection.execute(delete(self._table).where(where))
                row = self._record(key, identity, data, auth_time) | {
                    part: self._time(sample.get(part), at) for part, at in moments.items()
                }
                values = {self._columns[part].name: value for part, value in row.items()}
                await connection.execute(insert(self._table).values(values))
        except (IntegrityError, DataError) as error:
            raise StoreUnavailable(
                self._database.backend, f"the table refuses a row of ours: {type(error).__name__}"
            ) from error
        idle, absolute = self._ends(moments)
        return Created(cookie_value=key, key=key, deadline=_earliest(idle, absolute))

    def cookie_value(self, key: str) -> str | None:
        """Return the id itself: it is the cookie."""
        return key

    def mark(self, value: str, marker: str, now: float) -> str | None:
        """Return None: a row can be deleted and needs no marker."""
        return None

    async def close(self) -> None:
        """Give the connections back."""
        await self._database.close()

    @asynccontextmanager
    async def _store(self, *, write: bool) -> AsyncIterator[AsyncConnection]:
        opened = self._database.write() if write else self._database.read()
        try:
            async with opened as connection:
                yield connection
        except ProgrammingError as error:
            # Not the session's fault: the table is not as the settings say, or we lack the right.
            raise StoreUnavailable(
                self._database.backend, "the table or a column of [legacy.sql] is not there for us"
            ) from error

    async def _row(
        self, connection: AsyncConnection, key: str, *, lock: bool = False
    ) -> dict[str, Any] | None:
        query = self._locked_query if lock else self._query
        row = (await connection.execute(query, {"wanted": self._stored_key(key)})).first()
        return None if row is None else dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name

    async def _sample(self, connection: AsyncConnection) -> dict[str, Any]:
        """Return some row's id and times: what a row of this application looks like.

        One with a user, where a column tells: the sentinel is no row of the application's.
        """
        wanted = [
            column.label(part)
            for part, column in self._columns.items()
            if part not in {"data", "user"}
        ]
        query = select(*wanted).limit(1)
        if "user" in self._columns:
            query = query.where(self._columns["user"].is_not(None))
        row = (await connection.execute(query)).first()
        return {} if row is None else dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name

    def _session(self, key: str, row: Mapping[str, Any] | None, now: float) -> LegacySession:
        if row is None:
            return _gone("no such row")
        moments = {part: times.posix(row.get(part), self._settings.times) for part in _PARTS[3:]}
        if missing := [part for part in self._needed(row) if moments[part] is None]:
            return _gone(f"no time can be read in {getattr(self._settings, missing[0])}")
        idle, absolute = self._ends(moments)
        deadline = _earliest(idle, absolute)
        has_lapsed = deadline is not None and deadline <= now
        try:
            data = load(row["data"])
        except UnreadableError as error:
            return _gone(str(error))
        columns = {"user": row["user"]} if "user" in row else None
        state, identity, auth_time = self._identities.of(data, now, columns)
        return LegacySession(
            state=SessionState.GONE if has_lapsed else state,
            identity=identity,
            key=key,
            auth_time=auth_time,
            created_at=moments["created"],
            deadline=deadline,
            absolute_deadline=absolute,
            data=data,
            why="expired" if has_lapsed else "",
        )

    def _needed(self, row: Mapping[str, Any]) -> list[str]:
        """Return the time columns that a deadline hangs on; `expires` may be null, for never."""
        rules = {
            "seen": self._settings.idle,
            "created": self._settings.absolute,
            "expires": row.get("expires"),
        }
        return [part for part, rule in rules.items() if rule is not None]

    def _ends(self, moments: Mapping[str, float | None]) -> tuple[float | None, float | None]:
        """Return the idle and the absolute end."""
        idle = _after(moments.get("seen"), self._settings.idle)
        absolute = _after(moments.get("created"), self._settings.absolute)
        return idle, _earliest(absolute, moments.get("expires"))

    def _moments(self, deadline: float, now: float) -> dict[str, float]:
        lengths = {"created": self._settings.absolute, "seen": self._settings.idle}
        moments = {
            part: now if length is None else min(now, deadline - length)
            for part, length in lengths.items()
        }
        moments["expires"] = deadline
        return {part: at for part, at in moments.items() if part in self._columns}

    def _moved(
        self, row: Mapping[str, Any], session: LegacySession, until: float
    ) -> dict[str, Any] | None:
        """Return the new `seen` as a value of its column; None if it would not move forward."""
        idle, seen = self._settings.idle, times.posix(row.get("seen"), self._settings.times)
        if idle is None or seen is None:
            return None
        aim = min(until, session.absolute_deadline or until) - idle
        return {self._columns["seen"].name: self._time(row["seen"], aim)} if aim > seen else None

    def _record(
        self, key: str, identity: Identity | None, data: Mapping[str, Any], auth_time: float | None
    ) -> dict[str, Any]:
        own = {"user"} & self._columns.keys()
        written = self._identities.put(data, identity, auth_time, columns=own)
        row = {"key": self._stored_key(key), "data": json.dumps(written)}
        subject = identity and self._identities.stored(identity.subject)
        return row | dict.fromkeys(own, subject)

    def _time(self, sample: object, at: float) -> Any:
        return times.like(sample, at, self._settings.times, dialect=self._database.dialect)

    def _stored_key(self, key: str) -> str:
        if self._settings.key_form == "sha256":
            return hashlib.sha256(key.encode()).hexdigest()
        return key


class _AsStored(UserDefinedType[Any]):
    """Leave types to driver and database: no cast, so that text meets uuid, json and timestamps."""

    cache_ok = True


def _checked(settings: SqlTableSettings) -> SqlTableSettings:
    for rule, part in (("idle", "seen"), ("absolute", "created")):
        if getattr(settings, rule) is not None and getattr(settings, part) is None:
            raise ConfigurationError(
                f"`legacy.sql.{rule}` needs `legacy.sql.{part}`: the column that it counts from"
            )
    return settings


def _column(part: str, name: str) -> ColumnClause[Any]:
    return column(_identifier(part, name), _AsStored())


def _table(name: str, columns: Any) -> TableClause:
    schema, _, bare = name.rpartition(".")
    return table(
        _identifier("table", bare),
        *columns,
        schema=_identifier("table", schema) if schema else None,
    )


def _identifier(part: str, name: str) -> quoted_name:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"`legacy.sql.{part}` is {name!r}: that is no name in SQL")
    return quoted_name(name, quote=True)


def _new_key(sample: object) -> str:
    """Return a random id of the shape that the table has, for its column may take nothing else."""
    if _UUID.fullmatch(str(sample)):
        return str(uuid4())
    if _HEX.fullmatch(str(sample)):
        return secrets.token_hex(len(str(sample)) // 2)
    return secrets.token_urlsafe(32)


def _gone(why: str) -> LegacySession:
    return LegacySession(state=SessionState.GONE, why=why)


def _after(moment: float | None, length: float | None) -> float | None:
    return None if moment is None or length is None else moment + length


def _earliest(*ends: float | None) -> float | None:
    return min((end for end in ends if end is not None), default=None)
