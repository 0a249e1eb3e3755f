"""The revocation feed: numbered without gaps, so that a follower knows that it missed nothing.

The head row gives the number as the last statement before each commit. Its lock makes the order of
commits the order of numbers: a reader that has seen n has seen all below n, and a missing number is
a fault rather than a slow writer (ADR 0010). Never read it from an asynchronous replica.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.stores.engine import Database
from crossfade.stores.schema import feed, feed_head
from crossfade.tokens.revocation import FeedEntry, FeedHead, FeedKind

__all__ = ["FeedEntry", "FeedHead", "FeedKind", "FeedPage", "FeedStore", "publish"]

PAGE = 10_000
_KINDS = {str(kind): kind for kind in FeedKind}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPage:
    """Entries in the order of their numbers, and the head of the same moment."""

    entries: tuple[FeedEntry, ...]
    head: FeedHead


async def publish(
    connection: AsyncConnection, now: ColumnElement[float], entries: Sequence[FeedEntry]
) -> None:
    """Append entries to the feed; call it last before the commit. `seq` and `at` are set here.

    All writers wait for each other from here to their commit, so that nothing else may follow.
    """
    if not entries:
        return
    count = len(entries)
    advance = update(feed_head).values(seq=feed_head.c.seq + count).returning(feed_head.c.seq)
    last: int = (await connection.execute(advance)).scalar_one()
    for number, entry in enumerate(entries, last - count + 1):
        values = {"kind": entry.kind, "value": entry.value, "expires_at": entry.expires_at}
        await connection.execute(insert(feed).values(seq=number, at=now, **values))


class FeedStore:
    """Reads the feed. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self, connection: AsyncConnection | None = None) -> FeedHead:
        """Return the last number and the epoch."""
        if connection is None:
            async with self._database.read() as own:
                return await self.head(own)
        row = (await connection.execute(select(feed_head.c.epoch, feed_head.c.seq))).one()
        return FeedHead(epoch=row.epoch, seq=row.seq)

    async def after(self, cursor: int, limit: int = PAGE) -> FeedPage:
        """Return the entries behind a cursor, expired ones too: their numbers prove no gap."""
        query = _with_head(feed.c.seq > cursor).limit(limit)
        async with self._database.read() as connection:
            return _page((await connection.execute(query)).all())

    async def load_all(self) -> FeedPage:
        """Return every unexpired entry and the head, of one moment."""
        query = _with_head(feed.c.expires_at > self._database.now())
        async with self._database.read() as connection:
            return _page((await connection.execute(query)).all())


def _with_head(condition: ColumnElement[bool]) -> Select[Any]:
    """Select entries beside the head in one statement, which is one snapshot on every database."""
    wanted = select(feed).where(condition).subquery()
    return (
        select(feed_head.c.epoch, feed_head.c.seq.label("head"), wanted)
        .outerjoin(wanted, true())
        .order_by(wanted.c.seq)
    )


def _page(rows: Sequence[Row[Any]]) -> FeedPage:
    entries = tuple(
        FeedEntry(
            seq=row.seq,
            kind=_KINDS.get(row.kind, row.kind),
            value=row.value,
            at=row.at,
            expires_at=row.expires_at,
        )
        for row in rows
        if row.seq is not None
    )
    return FeedPage(entries=entries, head=FeedHead(epoch=rows[0].epoch, seq=rows[0].head))
