"""The one question that a poll asks: has anything changed? One statement, a few times a second."""

from dataclasses import dataclass

from sqlalchemy import select

from crossfade.stores.engine import Database
from crossfade.stores.schema import feed_head, rollout_head


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """Where the rollout document and the revocation feed stand."""

    revision: int
    feed_seq: int
    feed_epoch: str


class PulseStore:
    """Takes the pulse of the fleet's truth."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self) -> Pulse:
        """Return both heads of one moment. Raises StoreUnavailable."""
        query = select(rollout_head.c.revision, feed_head.c.seq, feed_head.c.epoch).where(
            rollout_head.c.id == 1, feed_head.c.id == rollout_head.c.id
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one()
        return Pulse(revision=row.revision, feed_seq=row.seq, feed_epoch=row.epoch)
