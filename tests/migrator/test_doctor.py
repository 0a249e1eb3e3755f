import asyncio
import json
from pathlib import Path
from typing import Any

import itsdangerous
import pytest

from crossfade.assembly import assemble
from crossfade.settings import Settings
from crossfade.stores.engine import Database
from crossfade.stores.instances import Canary, InstanceInfo, InstanceStore
from crossfade_migrator.application import ENDPOINTS
from crossfade_migrator.context import Context
from crossfade_migrator.database import upgrade
from crossfade_migrator.doctor import Examination, Finding, examine

SETTINGS = """\
schema = 1
issuer = "https://shop.example"
audience = "shop"
secrets_file = "crossfade.secrets"
[database]
url = "sqlite:///crossfade.db"
timeout = "20s"
[legacy]
framework = "starlette"
max_age = "1d"
[legacy.starlette]
secret_variable = "TEST_SESSION_SECRET"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a deployment with secrets, schema and key."""
    path = tmp_path / "crossfade.toml"
    path.write_text(SETTINGS)
    secrets = tmp_path / "crossfade.secrets"
    secrets.write_text(json_list("root", "r") + json_list("wrapping", "w"))
    secrets.chmod(0o600)

    async def make() -> None:
        async with Context.open(path, check_schema=False) as context:
            await upgrade(context)

    asyncio.run(make())
    return path


def json_list(name: str, letter: str) -> str:
    return f"{name} = {json.dumps([letter * 40])}\n"


def _examine(path: Path, **options: Any) -> dict[str, list[Finding]]:
    async def scenario() -> list[Finding]:
        time = options.pop("time", None)
        examination = Examination(settings_path=str(path), **options)
        clock = {} if time is None else {"time": time}
        return [finding async for finding in examine(examination, **clock)]

    found: dict[str, list[Finding]] = {}
    for finding in asyncio.run(scenario()):
        found.setdefault(finding.check, []).append(finding)
    return found


def _join(path: Path, *, version: str = "0.1.0", clock: float = 0.0, **report: Any) -> None:
    async def join() -> None:
        database = Database(f"sqlite:///{path.parent}/crossfade.db", timeout=20)
        store = InstanceStore(database)
        name = f"web-{version}"
        head = await store.join(
            InstanceInfo(id=name, host=name, pid=1, boot_id="b", version=version)
        )
        await store.heartbeat(name, clock_offset=clock, **report)
        await store.ack(name, head.number, head.sha256)
        await database.close()

    asyncio.run(join())


def test_a_sound_deployment_has_nothing_to_mend(settings: Path) -> None:
    _join(settings)
    found = _examine(settings)
    assert {f.level for findings in found.values() for f in findings} == {"ok"}
    assert set(found) == {
        "settings",
        "secrets",
        "cookies",
        "database",
        "clock",
        "rollout",
        "keys",
        "instances",
    }


def test_settings_that_cannot_be_read_are_the_only_finding(tmp_path: Path) -> None:
    ((finding,),) = _examine(tmp_path / "nothing.toml").values()
    assert (finding.check, finding.level) == ("settings", "fault")


def test_secrets_that_others_may_read_are_a_fault_and_the_rest_goes_on(settings: Path) -> None:
    (settings.parent / "crossfade.secrets").chmod(0o644)
    found = _examine(settings)
    assert found["secrets"][0].level == "fault"
    assert "chmod 600" in found["secrets"][0].text
    assert found["database"][0].level == "ok"


def test_a_missing_database_is_a_fault_and_is_not_created(settings: Path) -> None:
    (settings.parent / "crossfade.db").unlink()
    (finding,) = _examine(settings)["database"]
    assert (finding.level, finding.mend) == ("fault", "run `crossfade db upgrade`")
    assert not (settings.parent / "crossfade.db").exists()


@pytest.mark.parametrize(("ahead", "level"), [(0, "ok"), (5, "warning"), (100, "fault")])
def test_a_clock_that_differs_from_the_databases_is_found(
    settings: Path, ahead: float, level: str
) -> None:
    import time

    (finding,) = _examine(settings, time=lambda: time.time() + ahead)["clock"]
    assert finding.level == level


def test_cookies_without_secure_on_https_are_a_fault(settings: Path) -> None:
    settings.write_text(SETTINGS + "[cookies]\nsecure = false\n")
    assert [f.level for f in _examine(settings)["cookies"]] == ["fault"]


def test_secure_cookies_on_plain_http_are_a_warning(settings: Path) -> None:
    settings.write_text(SETTINGS.replace("https://", "http://"))
    assert [f.level for f in _examine(settings)["cookies"]] == ["warning"]


def test_a_lost_wrapping_secret_is_a_fault(settings: Path) -> None:
    secrets = settings.parent / "crossfade.secrets"
    secrets.write_text(json_list("root", "r") + json_list("wrapping", "x"))
    (finding,) = _examine(settings)["keys"]
    assert finding.level == "fault"
    assert "nothing can be signed" in finding.text


def test_instances_are_examined_for_canary_clock_and_version(settings: Path) -> None:
    _join(settings, clock=7.0, canary=Canary(ok=False, why="unknown_kid"))
    _join(settings, version="0.2.0")
    levels = {f.text: f.level for f in _examine(settings)["instances"]}
    assert levels == {
        "web-0.1.0:1: its clock is +7.0 s off": "warning",
        "web-0.1.0:1 cannot verify the canary token: unknown_kid": "fault",
        "several versions run: 0.1.0, 0.2.0": "warning",
    }


@pytest.mark.parametrize(
    ("data", "level", "words"),
    [("eyJ1c2VyX2lkIjogNX0=", "ok", "user 5"), ("e30=", "warning", "anonymous")],
)
def test_the_reader_says_what_a_live_cookie_is(
    settings: Path, monkeypatch: pytest.MonkeyPatch, data: str, level: str, words: str
) -> None:
    monkeypatch.setenv("TEST_SESSION_SECRET", "s" * 40)
    cookie = itsdangerous.TimestampSigner("s" * 40).sign(data).decode()
    (finding,) = _examine(settings, cookie=cookie)["reader"]
    assert finding.level == level
    assert words in finding.text
    assert cookie not in finding.text


def test_a_reader_without_its_secret_is_a_fault(settings: Path) -> None:
    (finding,) = _examine(settings, cookie="x")["reader"]
    assert finding.level == "fault"
    assert "TEST_SESSION_SECRET" in finding.text


def test_doctor_knows_all_paths_that_the_middleware_answers(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SESSION_SECRET", "s" * 40)

    async def paths() -> set[str]:
        assembly = assemble(Settings.load(settings))
        found = set(assembly.endpoints.paths)
        await assembly.close()
        return found

    expected = {f"/auth/{name}" for name in ENDPOINTS} | {"/.well-known/jwks.json"}
    assert asyncio.run(paths()) == expected
