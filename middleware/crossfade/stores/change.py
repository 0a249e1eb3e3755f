"""A change of logins as one transaction: its locks first, its moment, and the feed entries last."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.stores.engine import Database, present
from crossfade.stores.feed import publish
from crossfade.tokens.revocation import FeedEntry, FeedKind


class Change:
    """One open transaction and what it will announce.

    Attributes:
        now: database time after all locks were taken, POSIX seconds.
    """

    def __init__(self, connection: AsyncConnection, now: float) -> None:
        self.connection = connection
        self.now = now
        self._entries: list[FeedEntry] = []

    def announce(self, kind: FeedKind, value: bytes, expires_at: float) -> None:
        """Keep a feed entry for `publish`."""
        self._entries.append(FeedEntry(kind=kind, value=value, expires_at=expires_at))

    async def publish(self) -> None:
        """Append what was announced to the feed: the last statements before the commit."""
        await publish(self.connection, present(self.connection), self._entries)


@asynccontextmanager
async def changing(database: Database, *digests: bytes) -> AsyncIterator[Change]:
    """Open a change that excludes every other one on a common digest of an anchor or subject.

    Raises StoreUnavailable, or OutcomeUnknown if the commit's answer is lost.
    """
    async with database.write() as connection:
        await lock(connection, *digests)
        now = (await connection.execute(select(present(connection)))).scalar_one()
        change = Change(connection, now)
        yield change
        await change.publish()


async def lock(connection: AsyncConnection, *digests: bytes) -> None:
    """Wait for other changes on these digests. SQLite has one writer at a time anyway.

    Without it a log-in could look for a tombstone while the log-out that buries it has not
    committed, and the log-out could look for the login that has not either: both would go on, and
    the session that was just logged out would hold tokens. Sorted, so that two changes never wait
    for each other.
    """
    if connection.dialect.name != "postgresql":
        return
    for key in sorted({int.from_bytes(digest[:8], signed=True) for digest in digests}):
        await connection.execute(select(func.pg_advisory_xact_lock(key)))
