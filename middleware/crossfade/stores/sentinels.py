"""When the sentinel of a session store was born, and until when it lives."""

from dataclasses import dataclass

from sqlalchemy import select

from crossfade.stores.engine import Database, insert_into
from crossfade.stores.schema import sentinels


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinel:
    """Our own record in the session store.

    Attributes:
        born_at: it has been there without a break since then, POSIX seconds.
        lives_until: if it is missing before, the store lost data.
    """

    born_at: float
    lives_until: float


class SentinelStore:
    """Reads and writes what is known of the sentinel of each reader's store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, reader: str) -> Sentinel | None:
        """Return what is known; None before its first birth. Raises StoreUnavailable."""
        async with self._database.read() as connection:
            row = (
                await connection.execute(select(sentinels).where(sentinels.c.reader == reader))
            ).one_or_none()
        return Sentinel(born_at=row.born_at, lives_until=row.lives_until) if row else None

    async def put(self, reader: str, sentinel: Sentinel) -> None:
        """Remember a sentinel. Raises StoreUnavailable."""
        values = {"born_at": sentinel.born_at, "lives_until": sentinel.lives_until}
        async with self._database.write() as connection:
            statement = insert_into(connection, sentinels).values(reader=reader, **values)
            await connection.execute(
                statement.on_conflict_do_update(index_elements=[sentinels.c.reader], set_=values)
            )
