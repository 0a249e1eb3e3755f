"""The processes of the fleet: who is alive, which revision each one runs, what its canary said.

A process inserts its row first and reads the head after, in one transaction that locks the head
against changes: so either the change sees the process, or the process sees the change.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.stores.engine import Database, present
from crossfade.stores.rollout import Revision, RolloutStore
from crossfade.stores.schema import instances, rollout_head

GRACE = 5.0
"""Seconds beyond its time to live for which a process that vanished still holds up a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """Who a process is. `id` and `boot_id` are random texts of up to 36 characters.

    A forked child keeps the `boot_id` of its parent and must join under an `id` of its own.
    """

    id: str
    host: str
    pid: int
    boot_id: str
    version: str
    kids: tuple[str, ...] = ()
    clock_offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What a process found when it verified the canary token.

    Attributes:
        why: for a failure, in a few words.
        age: seconds since it was reported, by the database's clock; 0 in a new report.
    """

    ok: bool
    why: str = ""
    age: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One process as the others see it.

    Attributes:
        revision, document_sha256: what it last acked; 0 and empty before its first ack.
        seen_at: its last sign of life, POSIX seconds of the database's clock, like `age`'s base.
        age: seconds since then.
        kids: keys it can verify with. clock_offset: its clock minus the database's, seconds.
        canary: None until it tried.
        is_vanished: silent for longer than its time to live and no goodbye.
    """

    id: str
    host: str
    pid: int
    boot_id: str
    version: str
    joined_at: float
    seen_at: float
    age: float
    revision: int
    document_sha256: str
    kids: tuple[str, ...]
    clock_offset: float
    canary: Canary | None
    is_vanished: bool

    @property
    def name(self) -> str:
        """Return what people call it: host:pid."""
        return f"{self.host}:{self.pid}"

    def has_acked(self, revision: Revision) -> bool:
        """Say whether it runs that revision, or a later one."""
        if self.revision == revision.number:
            return self.document_sha256 == revision.sha256
        return self.revision > revision.number


class InstanceStore:
    """Reads and writes the rows of processes. All methods raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rollout = RolloutStore(database)

    async def join(self, info: InstanceInfo) -> Revision:
        """Enter a process and return the revision it must apply and ack before it serves."""
        async with self._database.write() as connection:
            await connection.execute(
                insert(instances).values(
                    id=info.id,
                    host=info.host,
                    pid=info.pid,
                    boot_id=info.boot_id,
                    version=info.version,
                    joined_at=present(connection),
                    seen_at=present(connection),
                    revision=0,
                    document_sha256="",
                    acked_at=present(connection),
                    kids=json.dumps(list(info.kids)),
                    clock_offset=info.clock_offset,
                )
            )
            # FOR SHARE waits for a change in progress and holds up the next one; SQLite has one
            # writer at a time anyway.
            await connection.execute(
                select(rollout_head.c.revision)
                .where(rollout_head.c.id == 1)
                .with_for_update(read=True)
            )
            return await self._rollout.head(connection)

    async def ack(self, id: str, revision: int, sha256: str) -> bool:  # noqa: A002 - the column's name
        """Record that the process runs that revision. False: its row is gone, join again."""
        async with self._database.write() as connection:
            return await _update(
                connection,
                id,
                revision=revision,
                document_sha256=sha256,
                acked_at=present(connection),
            )

    async def heartbeat(
        self,
        id: str,  # noqa: A002 - the column's name
        *,
        kids: Sequence[str] = (),
        clock_offset: float = 0.0,
        canary: Canary | None = None,
    ) -> bool:
        """Record a sign of life. False: its row is gone, join again.

        `canary` is given once for each verification; None leaves the last finding and its age.
        """
        async with self._database.write() as connection:
            found: dict[str, object] = {}
            if canary is not None:
                found = {
                    "canary_ok": canary.ok,
                    "canary_at": present(connection),
                    "canary_why": canary.why,
                }
            return await _update(
                connection, id, kids=json.dumps(list(kids)), clock_offset=clock_offset, **found
            )

    async def leave(self, id: str) -> None:  # noqa: A002 - the column's name
        """Say goodbye: from now on nobody waits for this process. Unknown is fine."""
        async with self._database.write() as connection:
            await connection.execute(
                update(instances)
                .where(instances.c.id == id, instances.c.left_at.is_(None))
                .values(left_at=present(connection))
            )

    async def live(
        self, ttl: float, connection: AsyncConnection | None = None
    ) -> list[InstanceRow]:
        """Return the processes that a change must reckon with, oldest first.

        Those silent for more than `ttl` seconds are flagged as vanished, and are left out `GRACE`
        seconds later: by then they have fenced themselves.
        """
        if connection is not None:
            return await _live(connection, ttl)
        async with self._database.read() as connection:
            return await _live(connection, ttl)


async def _update(connection: AsyncConnection, id: str, **values: object) -> bool:  # noqa: A002
    changed = await connection.execute(
        update(instances)
        .where(instances.c.id == id, instances.c.left_at.is_(None))
        .values(seen_at=present(connection), **values)
    )
    return changed.rowcount == 1


async def _live(connection: AsyncConnection, ttl: float) -> list[InstanceRow]:
    age = present(connection) - instances.c.seen_at
    canary_age = present(connection) - instances.c.canary_at
    query = (
        select(instances, age.label("age"), canary_age.label("canary_age"))
        .where(instances.c.left_at.is_(None), age <= ttl + GRACE)
        .order_by(instances.c.joined_at, instances.c.id)
    )
    return [_row(row, ttl) for row in (await connection.execute(query)).mappings()]


def _row(row: RowMapping, ttl: float) -> InstanceRow:
    canary = None
    if row["canary_ok"] is not None:
        canary = Canary(
            ok=row["canary_ok"], why=row["canary_why"] or "", age=max(0.0, row["canary_age"])
        )
    return InstanceRow(
        id=row["id"],
        host=row["host"],
        pid=row["pid"],
        boot_id=row["boot_id"],
        version=row["version"],
        joined_at=row["joined_at"],
        seen_at=row["seen_at"],
        age=max(0.0, row["age"]),
        revision=row["revision"],
        document_sha256=row["document_sha256"],
        kids=tuple(json.loads(row["kids"])),
        clock_offset=row["clock_offset"],
        canary=canary,
        is_vanished=row["age"] > ttl,
    )
