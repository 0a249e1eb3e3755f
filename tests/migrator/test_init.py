import asyncio
import sqlite3
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from crossfade.errors import ConfigurationError
from crossfade.settings import Settings
from crossfade_migrator.init import Answers, render_plan, render_settings, with_table, write
from crossfade_migrator.plan import Plan

STARLETTE = {
    "framework": "starlette",
    "cookie": "session",
    "secure": True,
    "starlette": {"secret_variable": "SESSION_SECRET"},
}
SQL = {"framework": "sql", "cookie": "shop", "secure": True, "sql": {"url": "sqlite:///shop.db"}}


def _answers(**changes: Any) -> Answers:
    given = {
        "issuer": "https://shop.example",
        "audience": "shop",
        "database": "sqlite:///crossfade.db",
        "algorithm": "ES256",
        "legacy": STARLETTE,
    }
    return Answers(**(given | changes))


def test_what_is_written_loads_and_its_secrets_are_private(tmp_path: Path) -> None:
    written = write(tmp_path, _answers())
    settings = Settings.load(tmp_path / "crossfade.toml")
    assert (settings.issuer, settings.audience) == ("https://shop.example", "shop")
    settings.secrets({})
    assert stat.S_IMODE((tmp_path / "crossfade.secrets").stat().st_mode) == 0o600
    assert {path.name for path in written.files} == {
        "crossfade.toml",
        "crossfade.secrets",
        "plan.toml",
    }


def test_every_deployment_has_secrets_and_a_salt_of_its_own(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, _answers())
        secrets = tomllib.loads((tmp_path / name / "crossfade.secrets").read_text())
        texts += [*secrets["root"], *secrets["wrapping"]]
        texts.append(Plan.load(tmp_path / name / "plan.toml").salt)
    assert len(set(texts)) == 6


@pytest.mark.parametrize("name", ["crossfade.toml", "crossfade.secrets", "plan.toml"])
def test_no_file_is_ever_overwritten_and_none_is_written_then(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigurationError, match=name):
        write(tmp_path, _answers())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_planted_link_is_not_followed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "plan.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write(folder, _answers())
    assert [path.name for path in folder.iterdir()] == ["plan.toml"]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"issuer": "shop.example"}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"audience": "a\nb"}, "control character"),
        ({"algorithm": "none"}, "tokens.algorithm"),
        ({"legacy": {"framework": "sql"}}, "legacy"),
    ],
)
def test_a_wrong_answer_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=key):
        write(tmp_path, _answers(**changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("audience", ['a "quoted" \\ name', "läden", "a'b#c"])
def test_any_printable_answer_survives_the_file(audience: str) -> None:
    document = tomllib.loads(render_settings(_answers(audience=audience)))
    assert document["audience"] == audience


def test_the_plan_is_named_for_the_application() -> None:
    text = render_plan('name = "x"\nsalt = "y"\n', "My Shop / EU")
    plan = tomllib.loads(text)
    assert plan["name"] == "my-shop-eu-to-tokens"
    assert plan["salt"] != "y"


TABLES = {
    "usual": (
        "CREATE TABLE sessions (id TEXT, user_id INT, data TEXT, last_seen INTEGER)",
        {"table": "sessions", "key": "id", "user": "user_id", "seen": "last_seen", "times": "unix"},
    ),
    "django-like": (
        "CREATE TABLE app_session (session_key TEXT, session_data TEXT, expire_date DATETIME)",
        {
            "table": "app_session",
            "key": "session_key",
            "expires": "expire_date",
            "times": "timestamp",
        },
    ),
    "text-times": (
        "CREATE TABLE WebSessions (SID TEXT, payload TEXT, created_at TEXT)",
        {"table": "WebSessions", "key": "SID", "created": "created_at", "times": "iso"},
    ),
}


@pytest.mark.parametrize(("statement", "expected"), TABLES.values(), ids=TABLES.keys())
def test_the_table_of_sessions_is_found_with_its_columns(
    tmp_path: Path, statement: str, expected: dict[str, str]
) -> None:
    _make(tmp_path, statement, "CREATE TABLE users (id INT, data TEXT)")
    found = asyncio.run(with_table(_answers(legacy=SQL), tmp_path)).legacy["sql"]
    assert expected.items() <= found.items()
    assert "data" in found


def test_between_two_tables_nothing_is_guessed_until_one_is_named(tmp_path: Path) -> None:
    columns = "(id TEXT, data TEXT)"
    _make(tmp_path, f"CREATE TABLE sessions {columns}", f"CREATE TABLE old_sessions {columns}")
    answers = _answers(legacy=SQL)
    assert "key" not in asyncio.run(with_table(answers, tmp_path)).legacy["sql"]
    named = asyncio.run(with_table(answers, tmp_path, "old_sessions")).legacy["sql"]
    assert named["table"] == "old_sessions"


def test_a_database_that_is_not_there_yet_is_neither_read_nor_created(tmp_path: Path) -> None:
    answers = _answers(legacy=SQL)
    assert asyncio.run(with_table(answers, tmp_path)) == answers
    assert list(tmp_path.iterdir()) == []


def _make(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "shop.db")
    for statement in statements:
        connection.execute(statement)
    connection.close()
