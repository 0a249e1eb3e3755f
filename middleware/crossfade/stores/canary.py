"""The canary token of the fleet: one text that every instance verifies."""

from sqlalchemy import select

from crossfade.stores.engine import Database, insert_into
from crossfade.stores.schema import canary


class CanaryStore:
    """Reads and replaces the canary token. Both methods raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, *, max_age: float) -> str | None:
        """Return the token; None if there is none, or it is older than that many seconds."""
        oldest = self._database.now() - max_age
        async with self._database.read() as connection:
            query = select(canary.c.token).where(canary.c.id == 1, canary.c.minted_at >= oldest)
            token: str | None = (await connection.execute(query)).scalar_one_or_none()
        return token

    async def put(self, token: str) -> None:
        """Replace the token; of two instances at once the last one stays."""
        values = {"token": token, "minted_at": self._database.now()}
        async with self._database.write() as connection:
            statement = insert_into(connection, canary).values(id=1, **values)
            await connection.execute(
                statement.on_conflict_do_update(index_elements=[canary.c.id], set_=values)
            )
