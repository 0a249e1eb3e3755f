import asyncio
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import insert, select, text

from crossfade.errors import ConfigurationError, SchemaOutdated, StoreUnavailable
from crossfade.stores.bootstrap import create_all
from crossfade.stores.engine import VERSION_TABLE, Database, asynchronous
from crossfade.stores.schema import leases


def test_the_databases_own_clock_is_the_time_of_the_statement(database_url: str) -> None:
    async def scenario() -> None:
        database = Database(database_url, timeout=30)
        before = time.time()
        first, second = await database.time(), await database.time()
        assert before - 0.01 <= first <= second <= time.time() + 0.01
        await database.close()

    asyncio.run(scenario())


def test_a_write_commits_at_the_end_and_not_after_an_error(database: Database) -> None:
    async def put(name: str, *, fails: bool) -> None:
        async with database.write() as connection:
            await connection.execute(insert(leases).values(name=name, holder="h", until=1.0))
            if fails:
                raise RuntimeError

    async def scenario() -> None:
        await put("kept", fails=False)
        with pytest.raises(RuntimeError):
            await put("lost", fails=True)
        async with database.read() as connection:
            assert (await connection.execute(select(leases.c.name))).scalars().all() == ["kept"]

    asyncio.run(scenario())


def test_a_database_that_is_not_there_is_unavailable_within_the_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        for url in (f"sqlite:///{tmp_path}/no/folder.db", "postgresql://x@127.0.0.1:1/x"):
            database = Database(url, timeout=2)
            with pytest.raises(StoreUnavailable):
                await database.time()
            await database.close()

    asyncio.run(scenario())


def test_a_lock_that_another_process_holds_makes_the_store_unavailable(database_url: str) -> None:
    async def scenario() -> None:
        await_lock, holder = Database(database_url, timeout=0.5), Database(database_url, timeout=30)
        row = insert(leases).values(name="x", holder="h", until=1.0)
        async with holder.write() as connection:
            await connection.execute(row)
            with pytest.raises(StoreUnavailable):
                await write(await_lock, row)
        await await_lock.close()
        await holder.close()

    async def write(database: Database, statement: object) -> None:
        async with database.write() as connection:
            await connection.execute(statement)  # type: ignore[call-overload]

    asyncio.run(scenario())


def test_a_read_only_database_is_unavailable_for_writing_and_not_for_reading(
    postgresql_url: str,
) -> None:
    async def scenario() -> None:
        database = Database(postgresql_url, timeout=30)
        with pytest.raises(StoreUnavailable):
            await create_all(database)
        assert await database.time() > 0
        await database.close()

    with psycopg.connect(postgresql_url, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # type: ignore[call-overload]
        admin.execute("DROP TABLE crossfade_leases")
    asyncio.run(scenario())


def test_a_database_without_tables_or_at_another_revision_names_the_command(
    database: Database,
) -> None:
    async def scenario() -> None:
        await database.check_schema()
        async with database.write() as connection:
            await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0000'"))
        with pytest.raises(SchemaOutdated, match=r"schema 0000.*crossfade db upgrade"):
            await database.check_schema()
        async with database.write() as connection:
            await connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        with pytest.raises(SchemaOutdated, match="no Crossfade tables"):
            await database.check_schema()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "cannot be read"),
        ("not a url", "cannot be read"),
        ("mysql://x/y", "mysql"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
    ],
)
def test_a_url_that_cannot_serve_is_refused_with_the_mend(url: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        asynchronous(url)


def test_a_database_shows_its_address_without_the_password() -> None:
    assert "hunter2" not in repr(Database("postgresql://ada:hunter2@127.0.0.1/x"))
