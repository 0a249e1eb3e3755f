import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from docs.walk import ROOT, blocks

from crossfade.settings import Seconds, Settings
from crossfade_migrator import plan as plan_file
from crossfade_migrator.lint import lint
from crossfade_migrator.plan import Plan

KINDS: dict[str, type[msgspec.Struct]] = {"settings.md": Settings, "plan.md": plan_file._File}
ROW = re.compile(r"^\| `([a-z_.]+)` \| (.+?) \| .+ \|$", re.MULTILINE)
SET_BY_CODE = {"base"}


def documented(page: str) -> dict[str, str]:
    return dict(ROW.findall((ROOT / "docs" / page).read_text(encoding="utf-8")))


def existing(kind: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its default, as the page writes it."""
    for field in msgspec.structs.fields(kind):
        name = f"{path}{field.name}"
        section = _section(field.type)
        if section is not None:
            yield from existing(section, f"{name}.")
        elif name not in SET_BY_CODE:
            yield name, _default(field)


def _section(kind: Any) -> type[msgspec.Struct] | None:
    for part in (kind, *getattr(kind, "__args__", ())):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _default(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value in (None, (), {}):
        return "none"
    return f"`{json.dumps(str(value) if isinstance(value, Seconds) else value)}`"


FIELDS = {name: dict(existing(kind)) for name, kind in KINDS.items()}


@pytest.mark.parametrize("page", KINDS)
def test_every_key_is_documented_and_nothing_else(page: str) -> None:
    assert sorted(documented(page)) == sorted(FIELDS[page])


@pytest.mark.parametrize(("page", "key"), [(page, key) for page in KINDS for key in FIELDS[page]])
def test_the_page_names_the_default(page: str, key: str) -> None:
    assert documented(page)[key] == FIELDS[page][key]


def test_the_examples_of_settings_are_settings() -> None:
    page = ROOT / "docs" / "settings.md"
    shop, clients = (tomllib.loads(str(block.parsed)) for block in blocks(page, "toml"))
    settings = Settings.from_mapping({**shop, **clients})
    assert settings.clients[0].kind == "mobile"


def test_the_example_of_a_plan_can_be_applied() -> None:
    settings, _ = blocks(ROOT / "docs" / "settings.md", "toml")
    (block,) = blocks(ROOT / "docs" / "plan.md", "toml")
    plan = Plan.from_mapping(tomllib.loads(str(block.parsed)))
    findings = lint(plan, Settings.from_mapping(tomllib.loads(str(settings.parsed))))
    assert [finding for finding in findings if finding.level == "error"] == []
