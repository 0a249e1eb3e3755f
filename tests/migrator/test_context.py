import asyncio
from pathlib import Path

import pytest

from crossfade.errors import ConfigurationError, SchemaOutdated
from crossfade.stores.bootstrap import create_all
from crossfade.stores.engine import Database
from crossfade_migrator import errors
from crossfade_migrator.context import Context
from crossfade_migrator.errors import OperatorError

CONFIG = """
schema = 1
issuer = "https://shop.example"
audience = "shop"
database = { url = "sqlite:///crossfade.db" }
legacy = { framework = "sql", sql = { url = "sqlite:///shop.db" } }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "crossfade.toml"
    path.write_text(CONFIG)
    return path


async def _make(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    await create_all(database)
    await database.close()


def test_a_context_knows_who_is_asking(config: Path) -> None:
    async def scenario() -> tuple[str, str]:
        await _make(config.with_name("crossfade.db"))
        async with Context.open(config, actor="ana") as named, Context.open(config) as plain:
            return named.actor, plain.actor

    named, plain = asyncio.run(scenario())
    assert named == f"ana ({plain})"
    assert "@" in plain


def test_looking_leaves_no_empty_database_behind(config: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(SchemaOutdated, match="crossfade db upgrade"):
            async with Context.open(config):
                pass

    asyncio.run(scenario())
    assert not config.with_name("crossfade.db").exists()


def test_a_database_without_our_tables_is_told_apart(config: Path) -> None:
    async def scenario() -> None:
        config.with_name("crossfade.db").touch()
        with pytest.raises(SchemaOutdated, match="no Crossfade tables"):
            async with Context.open(config):
                pass
        async with Context.open(config, check_schema=False) as ctx:
            assert ctx.settings.audience == "shop"

    asyncio.run(scenario())


def test_secrets_are_asked_for_only_when_needed(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CROSSFADE_ROOT_SECRET", raising=False)

    async def scenario() -> None:
        await _make(config.with_name("crossfade.db"))
        async with Context.open(config) as ctx:
            await ctx.rollout.head()
            with pytest.raises(ConfigurationError, match="no root secret"):
                _ = ctx.keys

    asyncio.run(scenario())


def test_every_operator_error_has_a_code_and_an_exit_code_of_its_own() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, OperatorError) and kind is not OperatorError
    ]
    assert len({kind.code for kind in kinds}) == len(kinds)
    codes = {kind.exit_code for kind in kinds}
    assert codes == {1, 2, 10, 11, 12, 13, 14, 15, 16, 17}
