import asyncio
import json

import pytest
from sqlalchemy import delete, select

from crossfade.errors import StoreUnavailable
from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.stores import audit as audits
from crossfade.stores.audit import AuditStore, record
from crossfade.stores.engine import Database
from crossfade.stores.schema import audit, audit_personal
from crossfade.testing import ManualClock

OLD, NEW = b"o" * 32, b"n" * 32
ROOTS = RootSecrets([OLD])
ADA = Identity(subject="ada", tenant="acme")


async def _write(database: Database, event: str = "login.opened", **named: object) -> None:
    async with database.write() as connection:
        await record(connection, event=event, **{"roots": ROOTS, "identity": ADA, **named})


def test_an_entry_is_dated_by_the_database_and_read_back_whole(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        await _write(database, client="web", actor="ops", detail={"b": 2, "a": "é\n"})
        [row] = await AuditStore(database).page()
        assert (row.at, row.event, row.client) == (manual_clock.time(), "login.opened", "web")
        assert (row.tenant, row.subject, row.actor) == ("acme", "ada", "ops")
        assert row.detail == {"a": "é\n", "b": 2}

    asyncio.run(scenario())


def test_an_entry_goes_when_its_change_is_rolled_back(database: Database) -> None:
    async def scenario() -> None:
        with pytest.raises(StoreUnavailable):
            await change_that_fails()
        assert await AuditStore(database).page() == []

    async def change_that_fails() -> None:
        async with database.write() as connection:
            await record(connection, event="login.ended", roots=ROOTS, identity=ADA)
            raise StoreUnavailable("sql")

    asyncio.run(scenario())


def test_the_row_itself_names_nobody_and_holds_no_control_character(database: Database) -> None:
    async def scenario() -> None:
        await _write(database, sid=b"s" * 16, actor="eve\x1b[2J\n", detail={"x": "\x1b[2J"})
        async with database.read() as connection:
            row = (await connection.execute(select(audit))).mappings().one()
        text = json.dumps({k: str(v) for k, v in row.items()}, ensure_ascii=False)
        assert "ada" not in text
        assert "acme" not in text
        assert all(c.isprintable() for c in row["actor"] + row["detail"])
        assert b"s" * 16 not in row["sid_hash"]

    asyncio.run(scenario())


def test_an_erased_subject_is_still_found_by_hash_after_the_root_was_rotated(
    database: Database,
) -> None:
    async def scenario() -> None:
        await _write(database)
        await _write(database, identity=Identity(subject="bob"))
        async with database.write() as connection:
            await connection.execute(delete(audit_personal))
        store = AuditStore(database, RootSecrets([NEW, OLD]))
        assert [row.subject for row in await store.page(subject=ADA)] == [None]
        assert await store.page(subject="ada") == []

    asyncio.run(scenario())


def test_pages_follow_each_other_without_overlap(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        for number in range(5):
            await _write(database, event=f"event.{number}")
            manual_clock.advance(1)
        store = AuditStore(database)
        first = await store.page(limit=2)
        second = await store.page(limit=10, after=first[-1].id)
        assert [row.event for row in first + second] == [f"event.{n}" for n in range(5)]
        assert [r.event for r in await store.page(since=manual_clock.time() - 1)] == ["event.4"]

    asyncio.run(scenario())


def test_an_event_about_somebody_needs_a_key_to_hash_them_with(database: Database) -> None:
    async def scenario() -> None:
        async with database.write() as connection:
            with pytest.raises(ValueError, match="root secrets"):
                await record(connection, event="login.ended", identity=ADA)
            await record(connection, event="rollout.advanced", detail={"to": 2})
        assert [row.subject_hash for row in await AuditStore(database).page()] == [None]

    asyncio.run(scenario())


def test_texts_for_the_log_are_cut_to_length() -> None:
    assert audits.printable("x" * 1000) == "x" * audits.MAXIMUM_ACTOR
