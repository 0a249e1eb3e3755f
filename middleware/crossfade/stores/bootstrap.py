"""The first rows, the tables for tests and small set-ups, and the deletion of what has expired.

A deployment gets its tables from migrations (`crossfade db upgrade`), which end in
`insert_base_rows`; `create_all` makes the same in one step.
"""

from collections.abc import Callable
from uuid import uuid4

from sqlalchemy import ColumnElement, String, Table, column, delete, select, table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.settings import RetentionSettings
from crossfade.stores.engine import VERSION_TABLE, Database, insert_into
from crossfade.stores.schema import (
    HEAD_REVISION,
    audit,
    feed,
    feed_head,
    instances,
    login_devices,
    logins,
    metadata,
    not_before,
    rollout_head,
    tombstones,
)

PAGE = 1_000
INSTANCE_HORIZON = 86_400.0

_version = table(VERSION_TABLE, column("version_num", String(32)))


async def create_all(database: Database) -> None:
    """Create the tables and the first rows; again changes nothing. Raises StoreUnavailable."""
    async with database.write() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(
            # As Alembic itself would: it finds its table and goes on from there.
            text(
                f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL,"
                f" CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
            )
        )
        found = (await connection.execute(select(_version.c.version_num))).scalar_one_or_none()
        if found is None:
            await connection.execute(_version.insert().values(version_num=HEAD_REVISION))
        await insert_base_rows(connection)


async def insert_base_rows(connection: AsyncConnection) -> None:
    """Insert the head rows of feed and rollout where they are missing."""
    # A new epoch tells followers of an older database that their cursor means nothing here.
    for head, first in (
        (feed_head, {"id": 1, "seq": 0, "epoch": str(uuid4())}),
        (rollout_head, {"id": 1, "revision": 0}),
    ):
        await connection.execute(
            insert_into(connection, head).values(first).on_conflict_do_nothing()
        )


async def prune(
    database: Database,
    retention: RetentionSettings,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, int]:
    """Delete rows that nothing needs any more, in pages of 1,000, one transaction each.

    `progress` is told the table and the rows of each page. Returns rows deleted by table.
    Rollout history is kept for ever. Raises StoreUnavailable; what was deleted stays deleted.
    """
    now = await database.time()
    return {
        name: await _delete(database, source, expired, name, progress)
        for name, source, expired in expired_rows(now, retention)
    }


def expired_rows(
    now: float, retention: RetentionSettings
) -> list[tuple[str, Table, ColumnElement[bool]]]:
    """Say which rows may go. A row goes once its horizon lies behind `now`, never at it."""
    ended = now - retention.ended_logins
    gone = now - INSTANCE_HORIZON
    return [
        ("login_devices", login_devices, login_devices.c.recorded_at < now - retention.devices),
        ("logins", logins, (logins.c.ended_at < ended) | (logins.c.absolute_until < ended)),
        ("tombstones", tombstones, tombstones.c.expires_at < now),
        ("not_before", not_before, not_before.c.expires_at < now),
        ("feed", feed, feed.c.expires_at < now),
        ("instances", instances, (instances.c.left_at < gone) | (instances.c.seen_at < gone)),
        ("audit", audit, audit.c.at < now - retention.audit),
    ]


async def _delete(
    database: Database,
    source: Table,
    expired: ColumnElement[bool],
    name: str,
    progress: Callable[[str, int], None] | None,
) -> int:
    key = list(source.primary_key.columns)
    total = 0
    while True:
        async with database.write() as connection:
            page = [
                tuple(r) for r in await connection.execute(select(*key).where(expired).limit(PAGE))
            ]
            for values in page:
                match = [part == value for part, value in zip(key, values, strict=True)]
                # The condition again: a row that came back to life since the page was read stays.
                await connection.execute(delete(source).where(*match, expired))
        total += len(page)
        if progress is not None and page:
            progress(name, len(page))
        if len(page) < PAGE:
            return total
