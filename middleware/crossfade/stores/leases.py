"""Which one of the instances does a chore of the fleet: a lease that runs out by itself."""

from sqlalchemy import or_, update

from crossfade.stores.engine import Database, insert_into
from crossfade.stores.schema import leases


class LeaseStore:
    """Takes and renews leases. Nobody has to give one back: it ends with its holder."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; False while another holder has it. Raises StoreUnavailable."""
        now = self._database.now()
        async with self._database.write() as connection:
            taken = await connection.execute(
                update(leases)
                .where(leases.c.name == name, or_(leases.c.holder == holder, leases.c.until <= now))
                .values(holder=holder, until=now + seconds)
            )
            if taken.rowcount:
                return True
            statement = insert_into(connection, leases).values(
                name=name, holder=holder, until=now + seconds
            )
            first = await connection.execute(
                statement.on_conflict_do_nothing().returning(leases.c.name)
            )
            return first.first() is not None
