import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crossfade.errors import ConfigurationError, StoreUnavailable
from crossfade.legacy.base import SessionState
from crossfade.legacy.registry import build
from crossfade.settings import Settings

ENVIRONMENT = {"SESSION_SECRET": "an application's secret", "OTHER_SECRET": "another one"}


def settings(legacy: dict[str, Any], base: Path = Path()) -> Settings:
    return Settings.from_mapping(
        {
            "schema": 1,
            "issuer": "https://shop.example",
            "audience": "shop",
            "database": {"url": "sqlite:///crossfade.db"},
            "legacy": legacy,
        },
        base=base,
    )


def test_the_framework_names_the_reader(tmp_path: Path) -> None:
    starlette = build(settings({"framework": "starlette", "starlette": {}}), ENVIRONMENT)
    assert (starlette.reader, starlette.server_side) == ("starlette", False)
    sql = build(settings({"framework": "sql", "sql": {"url": "sqlite:///x.db"}}, tmp_path), {})
    assert (sql.reader, sql.server_side) == ("sql", True)


def test_a_relative_path_starts_at_the_folder_of_the_settings(tmp_path: Path) -> None:
    legacy = {"framework": "sql", "sql": {"url": "sqlite:///shop.db", "timeout": "30s"}}
    sessions = build(settings(legacy, tmp_path), {})

    async def scenario() -> None:
        with pytest.raises(StoreUnavailable, match="sessions is unavailable"):
            await sessions.read_key("there-is-no-table", 0)
        await sessions.close()

    asyncio.run(scenario())
    assert (tmp_path / "shop.db").exists()


def test_the_secret_comes_from_the_variable_that_the_settings_name() -> None:
    legacy = {"framework": "starlette", "starlette": {"secret_variable": "OTHER_SECRET"}}
    made = build(settings(legacy), ENVIRONMENT).create(None, {"a": 1}, deadline=2e9, now=1.9e9)
    value = asyncio.run(made).cookie_value
    for variable, state in [
        ("OTHER_SECRET", SessionState.ANONYMOUS),
        ("SESSION_SECRET", SessionState.TAMPERED),
    ]:
        legacy["starlette"] = {"secret_variable": variable}
        sessions = build(settings(legacy), ENVIRONMENT)
        presented = sessions.pick({b"session": [value.encode()]})
        assert presented is not None
        assert asyncio.run(sessions.read(presented, 1.9e9)).state is state


@pytest.mark.parametrize("environment", [{}, {"SESSION_SECRET": ""}])
def test_a_missing_secret_is_named_by_its_variable(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="SESSION_SECRET"):
        build(settings({"framework": "starlette", "starlette": {}}), environment)


def test_the_cookie_is_described_as_the_application_sets_it() -> None:
    legacy = {"framework": "starlette", "starlette": {}, "secure": False, "path": "/app"}
    cookie = build(settings(legacy), ENVIRONMENT).cookie
    assert (cookie.name, cookie.path, cookie.secure) == ("session", "/app", False)
    assert cookie.max_age == 14 * 86400


@pytest.mark.parametrize(
    ("framework", "library"), [("sql", "sqlalchemy"), ("starlette", "itsdangerous")]
)
def test_a_missing_extra_is_named_in_one_line(framework: str, library: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
from crossfade.errors import ConfigurationError
from crossfade.legacy.registry import build
from crossfade.settings import DatabaseSettings, LegacySettings, Settings, SqlTableSettings
legacy = LegacySettings(framework={framework!r}, sql=SqlTableSettings(url="sqlite:///x.db"))
database = DatabaseSettings(url="")
settings = Settings(schema=1, issuer="", audience="", legacy=legacy, database=database)
try:
    build(settings, {{"SESSION_SECRET": "s"}})
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert f"needs {library}" in done.stdout
    assert "pip install 'crossfade[server]'" in done.stdout


def test_a_reader_loads_only_its_own_libraries() -> None:
    program = """
import sys
import crossfade.legacy.registry
assert not {"sqlalchemy", "itsdangerous"} & sys.modules.keys()
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
