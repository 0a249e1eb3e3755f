"""Bring the database to the schema of this version, and delete what has expired."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text

from crossfade.errors import ConfigurationError, RevisionConflict
from crossfade.keys.ring import KeyState
from crossfade.rollout.state import RolloutState
from crossfade.stores import bootstrap
from crossfade.stores.engine import VERSION_TABLE, Database, asynchronous
from crossfade.stores.keys import KeyStore
from crossfade.stores.rollout import RolloutStore
from crossfade.stores.schema import HEAD_REVISION
from crossfade_migrator.context import Context

MIGRATION_TIMEOUT = 120.0
"""Seconds: a migration may have to wait for the application's own transactions."""

# Two operators, or two pods that start: the second waits and then finds nothing to do.
_ADVISORY_LOCK = 0x63726F7373


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """What an upgrade did, or would do.

    Attributes:
        before: schema found, None without tables. after: schema now.
        began: the rollout's first revision was written.
        key: the first signing key, None if there was one.
    """

    before: str | None
    after: str
    began: bool
    key: str | None


async def upgrade(ctx: Context) -> Upgraded:
    """Run the migrations, begin the rollout's history, make the first key. Safe to repeat.

    Raises:
        ConfigurationError: the secrets are missing, or the database is newer than this program.
        StoreUnavailable: the database did not do it.
    """
    keys_of = ctx.secrets.wrapping  # before anything is written: without secrets there is no key
    database = Database(
        ctx.settings.resolve_url(ctx.settings.database.url), timeout=MIGRATION_TIMEOUT
    )
    try:
        before = await upgrade_schema(database)
        began = await _begin_history(RolloutStore(database), ctx.actor)
        key = await _first_key(KeyStore(database, keys_of), ctx)
    finally:
        await database.close()
    return Upgraded(before=before, after=HEAD_REVISION, began=began, key=key)


async def plan_upgrade(ctx: Context) -> Upgraded:
    """Say what `upgrade` would do, and do nothing; `key` is then a word for a key to be made."""
    key = ctx.settings.tokens.algorithm
    missing = missing_file(ctx.settings.resolve_url(ctx.settings.database.url))
    before = None if missing else await find_version(ctx.database)
    if before is None:
        return Upgraded(before=None, after=HEAD_REVISION, began=True, key=key)
    has_key = any(row.state is KeyState.ACTIVE for row in await ctx.keys.list())
    began = (await ctx.rollout.head()).number == 0
    return Upgraded(before=before, after=HEAD_REVISION, began=began, key=None if has_key else key)


async def prune(ctx: Context, progress: Callable[[str, int], None] | None = None) -> dict[str, int]:
    """Delete what has expired; return the rows deleted by table. Raises StoreUnavailable."""
    return await bootstrap.prune(ctx.database, ctx.settings.retention, progress)


async def count_expired(ctx: Context) -> dict[str, int]:
    """Return the rows that `prune` would delete now, by table. Raises StoreUnavailable."""
    now = await ctx.database.time()
    async with ctx.database.read() as connection:
        return {
            name: (
                await connection.execute(select(func.count()).select_from(table).where(expired))
            ).scalar_one()
            for name, table, expired in bootstrap.expired_rows(now, ctx.settings.retention)
        }


def missing_file(url: str) -> Path | None:
    """Return the file of a SQLite URL that is not there; None if it is, or for another database.

    Opening it would create it, and no verb but `db upgrade` may leave an empty database behind.
    """
    parsed = asynchronous(url)
    if parsed.get_backend_name() != "sqlite" or Path(parsed.database or "").exists():
        return None
    return Path(parsed.database or "")


async def upgrade_schema(database: Database) -> str | None:
    """Run the migrations and insert the base rows in one transaction; return the schema before.

    Raises:
        ConfigurationError: the schema is one that this version does not know.
        StoreUnavailable: the database did not do it; nothing was written.
    """
    async with database.write() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        before = await connection.run_sync(_version)
        if before not in {None, HEAD_REVISION}:
            raise ConfigurationError(
                f"the database is at schema {before}, which this version does not know:"
                " upgrade crossfade"
            )
        await connection.run_sync(_migrate)
        await bootstrap.insert_base_rows(connection)
    return before


async def find_version(database: Database) -> str | None:
    """Return the schema's revision, None without tables. Raises StoreUnavailable."""
    async with database.read() as connection:
        return await connection.run_sync(_version)


async def _begin_history(store: RolloutStore, actor: str) -> bool:
    if (await store.head()).number:
        return False
    try:
        await store.append(0, RolloutState.initial(), verb="begin", actor=actor)
    except RevisionConflict:  # somebody else upgrades too and was first
        return False
    return True


async def _first_key(store: KeyStore, ctx: Context) -> str | None:
    if any(row.state is KeyState.ACTIVE for row in await store.list()):
        return None
    algorithm = ctx.settings.tokens.algorithm
    return await store.add(algorithm, state=KeyState.ACTIVE, actor=ctx.actor)


def _version(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    options: dict[str, Any] = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "crossfade_migrator:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
