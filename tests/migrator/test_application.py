import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossfade.settings import Settings
from crossfade_migrator.application import examine_application
from crossfade_migrator.doctor import Finding

HEAD = """\
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Mount, Route
from crossfade.middleware import CrossfadeMiddleware
def home(request): ...
"""
RIGHT = """\
app.add_middleware(SessionMiddleware, secret_key="x")
app.add_middleware(CrossfadeMiddleware)
"""
WRONG = """\
app.add_middleware(CrossfadeMiddleware)
app.add_middleware(SessionMiddleware, secret_key="x")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("someones_shop", None)


def _findings(code: str, reference: str = "someones_shop:app") -> dict[str, Finding]:
    Path("someones_shop.py").write_text(HEAD + code)
    settings = Settings.from_mapping(
        {
            "schema": 1,
            "issuer": "https://a.example",
            "audience": "a",
            "database": {"url": "sqlite:///x.db"},
            "legacy": {"framework": "starlette", "starlette": {}},
        }
    )
    return {finding.check: finding for finding in examine_application(reference, settings)}


def test_the_middleware_outermost_and_no_route_in_its_way_is_fine() -> None:
    found = _findings('app = Starlette(routes=[Route("/auth/login", home)])\n' + RIGHT)
    assert [finding.level for finding in found.values()] == ["ok", "ok"]


def test_a_middleware_outside_of_ours_is_named_with_the_mend() -> None:
    order = _findings("app = Starlette()\n" + WRONG)["order"]
    assert order.level == "fault"
    assert "SessionMiddleware" in order.text
    assert "last" in order.mend


def test_an_application_without_the_middleware_is_a_fault() -> None:
    order = _findings("app = Starlette()\n")["order"]
    assert order.level == "fault"
    assert "add_middleware" in order.mend


@pytest.mark.parametrize(
    "routes",
    [
        'Route("/auth/token", home)',
        'Mount("/auth", routes=[Route("/token", home)])',
    ],
)
def test_a_route_at_one_of_our_paths_gets_a_free_prefix_proposed(routes: str) -> None:
    found = _findings(f"app = Starlette(routes=[{routes}])\n" + RIGHT)["routes"]
    assert found.level == "fault"
    assert "/auth/token" in found.text
    assert 'prefix = "/crossfade"' in found.mend


def test_another_issuers_key_set_is_no_question_of_the_prefix() -> None:
    code = 'app = Starlette(routes=[Route("/.well-known/jwks.json", home)])\n'
    found = _findings(code + RIGHT)["routes"]
    assert found.level == "fault"
    assert "prefix" not in found.mend


@pytest.mark.parametrize("reference", ["nothing:app", "someones_shop:nothing", "a b", ""])
def test_an_application_that_cannot_be_imported_is_one_finding(reference: str) -> None:
    found = _findings("app = Starlette()\n", reference)
    assert [finding.level for finding in found.values()] == ["fault"]
    assert "module:attribute" in found["application"].mend


def test_an_application_that_fails_at_import_is_one_finding() -> None:
    found = _findings("raise RuntimeError('no database')\n")
    assert "RuntimeError: no database" in found["application"].text
