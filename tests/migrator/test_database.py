import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, text

from crossfade.stores.bootstrap import create_all
from crossfade.stores.engine import VERSION_TABLE, Database
from crossfade.stores.schema import feed_head, metadata, rollout_head
from crossfade_migrator.database import find_version, missing_file, upgrade_schema


@pytest.fixture
def empty_url(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the same kind as `database_url`, without a table."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    server = request.getfixturevalue("postgresql_server")
    with psycopg.connect(server + "postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE without_tables")
        yield server + "without_tables"
        admin.execute("DROP DATABASE without_tables WITH (FORCE)")


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return list(compare_metadata(context, metadata))


def test_migrations_build_exactly_the_tables_of_the_library(empty_url: str) -> None:
    async def scenario() -> tuple[str | None, list[Any]]:
        database = Database(empty_url, timeout=30)
        before = await upgrade_schema(database)
        await database.check_schema()
        async with database.read() as connection:
            differences = await connection.run_sync(_differences)
        await database.close()
        return before, differences

    assert asyncio.run(scenario()) == (None, [])


_OBJECTS = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL",
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL"
    " SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
}


def test_indexes_and_references_are_as_create_all_makes_them(
    empty_url: str, database_url: str
) -> None:
    async def scenario() -> list[set[frozenset[str]]]:
        found = []
        for url, build in ((empty_url, upgrade_schema), (database_url, create_all)):
            database = Database(url, timeout=30)
            await build(database)
            async with database.read() as connection:
                rows = (await connection.execute(text(_OBJECTS[database.dialect]))).scalars()
                found.append({_said(row) for row in rows})
            await database.close()
        return found

    migrated, created = asyncio.run(scenario())
    assert migrated == created


def _said(statement: str) -> frozenset[str]:
    """Return what a statement says, whatever the order of its parts."""
    plain = " ".join(statement.split()).replace("( ", "(")
    return frozenset(part.strip(" ()") for part in plain.split(","))


def test_an_upgrade_may_be_repeated_and_keeps_the_feeds_epoch(empty_url: str) -> None:
    async def scenario() -> tuple[str | None, Any, Any, int]:
        database = Database(empty_url, timeout=30)
        await upgrade_schema(database)
        before = await _epoch(database)
        found = await upgrade_schema(database)
        after = await _epoch(database)
        async with database.read() as connection:
            heads = (await connection.execute(select(rollout_head.c.revision))).all()
        await database.close()
        return found, before, after, len(heads)

    found, before, after, heads = asyncio.run(scenario())
    assert (found, heads) == ("0001", 1)
    assert before == after


async def _epoch(database: Database) -> str:
    async with database.read() as connection:
        return str((await connection.execute(select(feed_head.c.epoch))).scalar_one())


def test_many_upgrades_at_once_make_one_schema(empty_url: str) -> None:
    async def scenario() -> list[str | None]:
        databases = [Database(empty_url, timeout=60) for _ in range(5)]
        found = await asyncio.gather(*map(upgrade_schema, databases))
        for database in databases:
            await database.close()
        return found

    found = asyncio.run(scenario())
    assert sorted(map(str, found)) == ["0001", "0001", "0001", "0001", "None"]


def test_a_database_made_by_create_all_needs_no_upgrade(database: Database) -> None:
    assert asyncio.run(find_version(database)) == "0001"


def test_a_failed_upgrade_leaves_no_table_behind(empty_url: str) -> None:
    async def scenario() -> list[str]:
        database = Database(empty_url, timeout=30)
        async with database.write() as connection:
            await connection.execute(text("CREATE TABLE crossfade_audit (id integer)"))
        with pytest.raises(Exception, match=r"crossfade_audit|unavailable"):
            await upgrade_schema(database)
        async with database.read() as connection:
            names = await connection.run_sync(lambda c: c.dialect.get_table_names(c))
        await database.close()
        return list(names)

    assert asyncio.run(scenario()) == ["crossfade_audit"]


def test_only_a_missing_sqlite_file_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    assert missing_file(f"sqlite:///{path}") == path
    path.touch()
    assert missing_file(f"sqlite:///{path}") is None
    assert missing_file("postgresql://somebody@nowhere.invalid/x") is None
