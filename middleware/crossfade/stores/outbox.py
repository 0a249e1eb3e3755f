"""What must still happen in the session store after our own commit: deletions of ended sessions.

A deletion is due at once and again after a minute, because a request that was in flight may write
the record back. Both stay until somebody reports them done.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Row, case, delete, insert, select, update

from crossfade.keys.roots import RootSecrets
from crossfade.stores.change import Change
from crossfade.stores.engine import Database
from crossfade.stores.schema import outbox
from crossfade.stores.sealing import seal, unseal

DELETE = "delete"
DELAYS = (0.0, 60.0)
FIRST_RETRY = 5.0
LAST_RETRY = 3_600.0
_DOUBLINGS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """One deletion that is due: the record of `key` in the store of `reader`."""

    id: int
    action: str
    reader: str
    key: str = field(repr=False)
    attempts: int


async def enqueue_delete(change: Change, roots: RootSecrets, reader: str, key: str) -> None:
    """Order the deletion of a session's record, twice, with the change."""
    payload = json.dumps([reader, key]).encode()
    rows = [
        {
            "action": DELETE,
            "payload_enc": seal(roots, "outbox", payload, DELETE.encode()),
            "due_at": change.now + delay,
            "attempts": 0,
        }
        for delay in DELAYS
    ]
    await change.connection.execute(insert(outbox), rows)


class Outbox:
    """Hands out what is due. Doing an item twice is harmless, so that nothing is locked."""

    def __init__(self, database: Database, roots: RootSecrets) -> None:
        self._database = database
        self._roots = roots

    async def due(self, limit: int) -> list[OutboxItem]:
        """Return items that are due, the oldest first. Raises StoreUnavailable."""
        query = (
            select(outbox)
            .where(outbox.c.due_at <= self._database.now())
            .order_by(outbox.c.due_at, outbox.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        items = [self._read(row) for row in rows]
        # Of a root that is gone: nobody can act on them ever, and they must not block the queue.
        await self.done([row.id for row, item in zip(rows, items, strict=True) if item is None])
        return [item for item in items if item is not None]

    async def done(self, ids: Sequence[int]) -> None:
        """Forget items. Raises StoreUnavailable."""
        if ids:
            async with self._database.write() as connection:
                await connection.execute(delete(outbox).where(outbox.c.id.in_(ids)))

    async def failed(self, number: int) -> None:
        """Put an item off: 5 s, then twice as long each time, at most an hour."""
        doublings = case((outbox.c.attempts > _DOUBLINGS, _DOUBLINGS), else_=outbox.c.attempts)
        async with self._database.write() as connection:
            attempts = (
                await connection.execute(select(doublings).where(outbox.c.id == number))
            ).scalar_one_or_none()
            wait = min(LAST_RETRY, FIRST_RETRY * 2 ** (attempts or 0))
            await connection.execute(
                update(outbox)
                .where(outbox.c.id == number)
                .values(attempts=outbox.c.attempts + 1, due_at=self._database.now() + wait)
            )

    def _read(self, row: Row[tuple[object, ...]]) -> OutboxItem | None:
        payload = unseal(self._roots, "outbox", row.payload_enc, row.action.encode())
        if payload is None:
            return None
        reader, key = json.loads(payload)
        return OutboxItem(
            id=row.id, action=row.action, reader=reader, key=key, attempts=row.attempts
        )
