"""Settings: every fault is one line that names the key and the mend, and no line shows a secret."""

from pathlib import Path
from typing import Any

import pytest
from crossfaded import ENVIRONMENT

from crossfade import ConfigurationError
from crossfade.settings import Seconds, Settings

GOOD = """
schema = 1
issuer = "https://shop.example"
audience = "shop"
[database]
url = "sqlite:///crossfade.db"
[legacy]
framework = "sql"
[legacy.sql]
url = "sqlite:///shop.db"
"""


def load(folder: Path, text: str) -> Settings:
    """Write a file and read it."""
    path = folder / "crossfade.toml"
    path.write_text(text)
    return Settings.load(path)


def fault(folder: Path, text: str) -> str:
    """Return the error of a file: one line that names the file."""
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text)
    line = str(caught.value)
    assert "\n" not in line
    assert "crossfade.toml" in line
    return line


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.tokens.access_ttl == 600
    assert settings.cookies.access == "__Host-crossfade-access"
    assert settings.resolve_url(settings.database.url) == f"sqlite:///{tmp_path}/crossfade.db"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("schema = 1", "schema = 2"), "`schema`"),
        (("schema = 1", ""), "`schema` is missing"),
        (("schema = 1", "schema = 1\ncolour = 3"), "unknown key `colour`"),
        (("[database]", "[database]\npool = 3"), "unknown key `database.pool`"),
        (('audience = "shop"', 'audience = ""'), "`audience`"),
        (('audience = "shop"', "audience = 3"), "`audience`"),
        (("https://shop.example", "shop.example"), "`issuer`"),
        (("https://shop.example", "https://shop.example/"), "`issuer`"),
        (('framework = "sql"', 'framework = "rails"'), "`legacy.framework`"),
        (('framework = "sql"', 'framework = "starlette"'), "[legacy.starlette]"),
        (("[legacy]", '[tokens]\naccess_ttl = "10"\n[legacy]'), "`tokens.access_ttl`"),
        (("[legacy]", "[tokens]\naccess_ttl = 600\n[legacy]"), "`tokens.access_ttl`"),
        (("[legacy]", '[tokens]\naccess_ttl = "2h"\n[legacy]'), "`tokens.access_ttl`"),
        (("[legacy]", '[tokens]\naccess_ttl = "0s"\n[legacy]'), "`tokens.access_ttl`"),
        (("[legacy]", '[tokens]\nrefresh_idle = "5m"\n[legacy]'), "`tokens.refresh_idle`"),
        (("[legacy]", '[tokens.claims]\nemail = "mail"\n[legacy]'), "`tokens.claims`"),
        (("[legacy]", '[tokens.claims]\nsub = "id"\n[legacy]'), "`tokens.claims`"),
        (("[legacy]", '[rollout]\ninstance_ttl = "6s"\n[legacy]'), "`rollout.instance_ttl`"),
        (("[legacy]", '[rollout]\npoll = "20s"\n[legacy]'), "`tokens.max_staleness`"),
        (("[legacy]", "[rollout]\nmin_instances = -1\n[legacy]"), "`rollout.min_instances`"),
        (("[legacy]", '[endpoints]\nprefix = "auth/"\n[legacy]'), "`endpoints.prefix`"),
        (("[legacy]", '[legacy]\ncookie = "__Host-crossfade-access"'), "`legacy.cookie`"),
        (("[legacy]", "[legacy"), "not valid TOML"),
    ],
)
def test_each_fault_names_the_key(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    text = GOOD.replace(*change, 1)
    assert text != GOOD
    assert expected in fault(tmp_path, text)


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="crossfade init"):
        Settings.load(tmp_path / "crossfade.toml")


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "crossfade.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings.load(tmp_path / "crossfade.toml")


@pytest.mark.parametrize("text", ["10m", "1.5s", "500ms", "12h", "14d", "2w"])
def test_a_duration_is_written_as_it_was_read(text: str) -> None:
    assert Seconds.parse(str(Seconds.parse(text))) == Seconds.parse(text)


@pytest.mark.parametrize("text", ["10", "ten", "-5s", "5 s", "5M", "", "1e3s", 10, None, True])
def test_what_is_no_duration_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="10m"):
        Seconds.parse(text)


# Secrets

ROOT, WRAPPING = "CROSSFADE_ROOT_SECRET", "CROSSFADE_WRAPPING_SECRET"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ROOT),
        ({ROOT: "r" * 43}, WRAPPING),
        ({ROOT: "r" * 43, WRAPPING: "r" * 43}, "same"),
        ({ROOT: "zq7", WRAPPING: "w" * 43}, "secret"),
    ],
)
def test_a_wrong_secret_is_told_without_showing_it(
    tmp_path: Path, environment: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        load(tmp_path, GOOD).secrets(environment)
    assert all(value not in str(caught.value) for value in environment.values())


def test_secrets_come_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    settings = load(tmp_path, 'secrets_file = "crossfade.secrets"\n' + GOOD)
    path = tmp_path / "crossfade.secrets"
    path.write_text(f'root = ["{"r" * 43}"]\nwrapping = ["{"w" * 43}"]\n')
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        settings.secrets({})
    path.chmod(0o600)
    assert "r" * 43 not in repr(settings.secrets({}))


@pytest.mark.parametrize("text", ["root = 3", "root = [", 'root = "topsecret"', "\x00"])
def test_a_damaged_secrets_file_is_told_without_showing_it(tmp_path: Path, text: str) -> None:
    settings = load(tmp_path, 'secrets_file = "crossfade.secrets"\n' + GOOD)
    path = tmp_path / "crossfade.secrets"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        settings.secrets({})
    assert "topsecret" not in str(caught.value)


def test_a_ring_in_the_environment_is_a_list_the_active_first(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {ROOT: f"{'n' * 43}, {'r' * 43}"}
    assert len(load(tmp_path, GOOD).secrets(environment).root.versions) == 2


def test_a_database_url_may_stand_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(tmp_path, GOOD.replace("sqlite:///crossfade.db", "env:SHOP_DATABASE"))
    with pytest.raises(ConfigurationError, match="SHOP_DATABASE"):
        settings.resolve_url(settings.database.url)
    monkeypatch.setenv("SHOP_DATABASE", "postgresql://u:secret@db/x")
    assert settings.resolve_url(settings.database.url) == "postgresql://u:secret@db/x"
    assert "secret" not in repr(settings)


def test_settings_are_frozen_and_show_nothing(tmp_path: Path) -> None:
    settings: Any = load(tmp_path, GOOD)
    with pytest.raises(AttributeError):
        settings.issuer = "https://evil.example"
    assert "sqlite" not in repr(settings.database)
