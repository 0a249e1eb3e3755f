import asyncio
from typing import Any

from sqlalchemy import Table, func, insert, select

from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.settings import RetentionSettings
from crossfade.stores.audit import record
from crossfade.stores.bootstrap import PAGE, create_all, prune
from crossfade.stores.engine import Database
from crossfade.stores.feed import FeedStore
from crossfade.stores.schema import (
    audit,
    audit_personal,
    feed,
    instances,
    login_devices,
    logins,
    not_before,
    tombstones,
)
from crossfade.testing import ManualClock

DAY = 86_400.0
RETENTION = RetentionSettings()


def login(sid: bytes, now: float, **changes: Any) -> dict[str, Any]:
    dates = dict.fromkeys(("rotated_at", "created_at", "auth_time"), now)
    texts = {"tenant": "", "subject": "ada", "actor": "", "client": "web", "client_id": "web"}
    family = {"epoch": 0, "gen": 0, "kv": 1, "seed": b"", "cur": b"", "replays": 0}
    ends = {"idle_until": now + DAY, "absolute_until": now + DAY}
    return {"sid": sid, **dates, **texts, **family, **ends, **changes}


async def fill(database: Database, table: Table, *rows: dict[str, Any]) -> None:
    async with database.write() as connection:
        await connection.execute(insert(table), list(rows))


async def left(database: Database, table: Table) -> list[Any]:
    async with database.read() as connection:
        return list((await connection.execute(select(*table.primary_key.columns))).scalars())


def test_creating_again_changes_nothing(database: Database) -> None:
    async def scenario() -> None:
        before = await FeedStore(database).head()
        await create_all(database)
        assert await FeedStore(database).head() == before
        await database.check_schema()

    asyncio.run(scenario())


def test_logins_go_only_after_their_horizon(database: Database, manual_clock: ManualClock) -> None:
    async def scenario() -> None:
        now, kept = manual_clock.time(), RETENTION.ended_logins
        await fill(database, logins, login(b"alive", now))
        await fill(database, logins, login(b"ended", now, ended_at=now - kept))
        await fill(database, logins, login(b"lapsed", now, absolute_until=now - kept))
        await fill(database, logins, login(b"old", now, absolute_until=now - kept - 1))
        assert (await prune(database, RETENTION))["logins"] == 1
        assert sorted(await left(database, logins)) == [b"alive", b"ended", b"lapsed"]
        manual_clock.advance(1)
        assert (await prune(database, RETENTION))["logins"] == 2
        assert await left(database, logins) == [b"alive"]

    asyncio.run(scenario())


def test_what_forbids_stays_until_it_forbids_nothing_any_more(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        now = manual_clock.time()
        for name, expires_at in ((b"kept", now), (b"gone", now - 1)):
            await fill(
                database, tombstones, {"anchor": name, "buried_at": 0.0, "expires_at": expires_at}
            )
            who = {"tenant": name.decode(), "subject": "ada", "at": 0.0}
            await fill(database, not_before, who | {"expires_at": expires_at})
        entry = {"kind": "login", "value": b"", "at": 0.0}
        await fill(database, feed, {"seq": 1, **entry, "expires_at": now - 1})
        await fill(database, feed, {"seq": 2, **entry, "expires_at": now})
        counts = await prune(database, RETENTION)
        assert (counts["tombstones"], counts["not_before"], counts["feed"]) == (1, 1, 1)
        assert await left(database, tombstones) == [b"kept"]
        assert await left(database, not_before) == ["kept"]
        assert await left(database, feed) == [2]

    asyncio.run(scenario())


def test_audit_goes_with_its_personal_row_and_devices_before_their_login(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        now = manual_clock.time()
        await fill(database, logins, login(b"alive", now, absolute_until=now + 900 * DAY))
        device = {"sid": b"alive", "address": "192.0.2.1", "agent": "Fox", "recorded_at": now}
        await fill(database, login_devices, device)
        await fill_audit(database)
        manual_clock.advance(91 * DAY)
        assert (await prune(database, RETENTION))["login_devices"] == 1
        assert await left(database, logins) == [b"alive"]
        manual_clock.advance(310 * DAY)
        assert (await prune(database, RETENTION))["audit"] == 1
        assert await left(database, audit) == await left(database, audit_personal) == []

    async def fill_audit(database: Database) -> None:
        async with database.write() as connection:
            identity = Identity(subject="ada")
            await record(connection, event="x", roots=RootSecrets([b"o" * 32]), identity=identity)

    asyncio.run(scenario())


def test_instances_are_forgotten_a_day_after_they_were_last_seen(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        now = manual_clock.time()
        row = {"host": "h", "pid": 1, "boot_id": "b", "version": "1", "joined_at": 0.0, "kids": ""}
        row |= {"revision": 0, "document_sha256": "", "acked_at": 0.0, "clock_offset": 0.0}
        await fill(database, instances, {"id": "live", "seen_at": now, **row})
        await fill(database, instances, {"id": "gone", "seen_at": now - DAY - 1, **row})
        assert (await prune(database, RETENTION))["instances"] == 1
        assert await left(database, instances) == ["live"]

    asyncio.run(scenario())


def test_much_is_deleted_in_pages_and_told_page_by_page(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        entry = {"kind": "login", "value": b"", "at": 0.0, "expires_at": 1.0}
        await fill(database, feed, *({"seq": n, **entry} for n in range(2 * PAGE + 5)))
        told: list[tuple[str, int]] = []
        counts = await prune(database, RETENTION, lambda name, rows: told.append((name, rows)))
        assert counts["feed"] == 2 * PAGE + 5
        assert told == [("feed", PAGE), ("feed", PAGE), ("feed", 5)]
        async with database.read() as connection:
            assert (await connection.execute(select(func.count()).select_from(feed))).scalar() == 0

    asyncio.run(scenario())
