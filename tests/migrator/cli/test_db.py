import asyncio
from typing import Any

from sqlalchemy import func, insert, select

from crossfade.stores.schema import audit, keys, tombstones
from crossfade_migrator.context import Context


async def _count(context: Context, table: Any) -> int:
    async with context.database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def _bury(context: Context, expires_at: float) -> None:
    async with context.database.write() as connection:
        row = {"anchor": b"a" * 32, "buried_at": 1.0, "expires_at": expires_at}
        await connection.execute(insert(tombstones).values(row))


def test_upgrade_makes_schema_first_revision_and_first_key(crossfade: Any) -> None:
    done = crossfade("db", "upgrade", "--json")
    assert done.code == 0
    document = done.document
    assert (document["schema_before"], document["schema"]) == (None, "0001")
    assert document["first_revision"] is True
    (key,) = crossfade("keys", "list", "--json").document["keys"]
    assert (key["kid"], key["state"], key["can_sign"]) == (document["key"], "active", True)
    (revision,) = crossfade("history", "--json").document["revisions"]
    assert (revision["verb"], revision["phase"]) == ("begin", "sessions")


def test_a_second_upgrade_changes_nothing(upgraded: Any) -> None:
    done = upgraded("db", "upgrade")
    assert done.out == "schema 0001: up to date\n"
    assert len(upgraded("keys", "list", "--json").document["keys"]) == 1
    assert len(upgraded("history", "--json").document["revisions"]) == 1


def test_a_dry_run_of_upgrade_creates_no_file(crossfade: Any) -> None:
    done = crossfade("db", "upgrade", "--dry-run")
    assert done.code == 0
    assert "would be made" in done.out
    assert not crossfade.database.exists()


def test_upgrade_without_secrets_writes_nothing(crossfade: Any) -> None:
    (crossfade.folder / "crossfade.secrets").unlink()
    assert crossfade("db", "upgrade").code == 2
    assert not crossfade.database.exists()


def test_a_schema_of_the_future_is_refused(upgraded: Any) -> None:
    async def age(context: Context) -> None:
        async with context.database.write() as connection:
            await connection.exec_driver_sql(
                "UPDATE crossfade_alembic_version SET version_num = '9999'"
            )

    upgraded.within(age)
    done = upgraded("db", "upgrade")
    assert done.code == 2
    assert "9999" in done.err
    assert "upgrade crossfade" in done.err


def test_prune_deletes_what_has_expired_and_says_how_much(upgraded: Any) -> None:
    upgraded.within(lambda context: _bury(context, expires_at=2.0))
    counted = upgraded("db", "prune", "--dry-run", "--json").document
    assert (counted["expired"]["tombstones"], counted["deleted"]) == (1, {})
    assert upgraded("db", "prune").out.split()[-2:] == ["tombstones", "1"]
    assert upgraded.within(lambda context: _count(context, tombstones)) == 0
    assert upgraded("db", "prune").out == "nothing has expired\n"


def test_prune_keeps_what_still_matters(upgraded: Any) -> None:
    upgraded.within(lambda context: _bury(context, expires_at=9e9))
    before = [upgraded.within(lambda c, t=t: _count(c, t)) for t in (audit, keys, tombstones)]
    assert upgraded("db", "prune").code == 0
    after = [upgraded.within(lambda c, t=t: _count(c, t)) for t in (audit, keys, tombstones)]
    assert before == after == [2, 1, 1]


def test_a_locked_database_is_code_16_and_nothing_is_written(upgraded: Any) -> None:
    text = upgraded.settings.read_text().replace('timeout = "20s"', 'timeout = "300ms"')

    async def while_locked(context: Context) -> Any:
        upgraded.settings.write_text(text)
        async with context.database.write() as connection:
            await connection.exec_driver_sql("DELETE FROM crossfade_leases")
            return await asyncio.to_thread(upgraded, "keys", "rotate", "--yes", "--json")

    done = upgraded.within(while_locked)
    assert done.code == 16
    assert done.document["error"]["code"] == "store_unreachable"
    assert len(upgraded("keys", "list", "--json").document["keys"]) == 1
