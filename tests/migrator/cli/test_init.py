import stat
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--issuer", "https://a.example", "--audience", "a", "--framework", "starlette")


def _init(crossfade: Any, *arguments: str) -> Any:
    folder = crossfade.folder / "new"
    folder.mkdir(exist_ok=True)
    return crossfade("init", "--folder", str(folder), *arguments)


def test_flags_are_enough_and_the_next_steps_are_named(crossfade: Any) -> None:
    done = _init(crossfade, *FLAGS)
    assert done.code == 0
    assert "crossfade db upgrade" in done.out
    settings = crossfade.folder / "new" / "crossfade.toml"
    assert crossfade("db", "upgrade", "--config", str(settings)).code == 0
    assert crossfade("doctor", "--config", str(settings)).code == 0


def test_no_secret_is_shown(crossfade: Any) -> None:
    done = _init(crossfade, *FLAGS, "--json")
    secrets = (crossfade.folder / "new" / "crossfade.secrets").read_text()
    values = [part for part in secrets.split('"') if len(part) > 40 and "\n" not in part]
    assert len(values) == 2
    assert not any(value in done.out + done.err for value in values)
    assert [Path(path).name for path in done.document["files"]] == [
        "crossfade.secrets",
        "crossfade.toml",
        "plan.toml",
    ]


def test_a_second_time_nothing_is_overwritten(crossfade: Any) -> None:
    assert _init(crossfade, *FLAGS).code == 0
    secrets = crossfade.folder / "new" / "crossfade.secrets"
    before = secrets.read_text()
    done = _init(crossfade, *FLAGS)
    assert done.code == 2
    assert "is there already" in done.err
    assert secrets.read_text() == before
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("missing", "flags"),
    [
        ("--issuer", ()),
        ("--audience", FLAGS[:2]),
        ("--framework", FLAGS[:4]),
        ("--sessions-url", (*FLAGS[:4], "--framework", "sql")),
    ],
)
def test_without_a_terminal_the_missing_flag_is_named(
    crossfade: Any, missing: str, flags: tuple[str, ...]
) -> None:
    done = _init(crossfade, *flags)
    assert done.code == 2
    assert f"{missing} is needed" in done.err
    assert list((crossfade.folder / "new").iterdir()) == []


def test_a_dry_run_prints_the_settings_and_writes_nothing(crossfade: Any) -> None:
    done = _init(crossfade, *FLAGS, "--dry-run")
    assert 'issuer = "https://a.example"' in done.out
    assert list((crossfade.folder / "new").iterdir()) == []


def test_plain_http_gives_up_secure_cookies(crossfade: Any) -> None:
    flags = ("--issuer", "http://localhost:8000", *FLAGS[2:])
    assert "secure = false" in _init(crossfade, *flags, "--dry-run").out


def test_a_table_that_was_not_found_is_said(crossfade: Any) -> None:
    sql = (*FLAGS[:4], "--framework", "sql", "--sessions-url", "sqlite:///shop.db")
    done = _init(crossfade, *sql, "--idle", "30m")
    assert done.code == 0
    assert "complete [legacy.sql] by hand" in done.err
    assert 'idle = "30m"' in (crossfade.folder / "new" / "crossfade.toml").read_text()
