"""What is imported is declared, what is declared is used, and ADR 0008 has each with a reason."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from docs.walk import ROOT

ADR = ROOT / "adr" / "0008-dependencies.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OURS = {"crossfade", "crossfade_migrator", "docs"}
ROOMS = ("middleware", "migrator", "tests")


def name_of(requirement: str) -> str:
    return re.split(r"[\[><=~ ]", requirement, maxsplit=1)[0].lower()


def names(requirements: Iterable[str]) -> set[str]:
    return {name_of(requirement) for requirement in requirements} - {"crossfade"}


def declared() -> set[str]:
    return names([*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)])


@cache
def imported(room: Path) -> frozenset[str]:
    """Return the distributions whose modules are imported somewhere below a folder."""
    found = {module for path in room.rglob("*.py") for module in _modules(path)}
    local = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    outside = found - OURS - local - set(sys.stdlib_module_names)
    places = packages_distributions()
    found = {places[module][0] if module in places else module for module in outside}
    return frozenset(name.lower().replace("_", "-") for name in found)


def reasons() -> dict[str, str]:
    """Return the table of the ADR: dependency -> how it comes into play."""
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (.+?) \| .+ \|$", ADR.read_text("utf-8"), re.MULTILINE)
    return {name: use for name, use in rows if name not in {"dependency", "---"}}


def _modules(path: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_the_adr_names_every_dependency_and_nothing_else() -> None:
    assert sorted(reasons()) == sorted(declared())


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_imported_is_declared(room: str) -> None:
    assert imported(ROOT / room) - declared() == set()


@pytest.mark.parametrize(
    "name", sorted(name for name, use in reasons().items() if use == "imported")
)
def test_what_the_adr_calls_imported_is_imported(name: str) -> None:
    assert any(name in imported(ROOT / room) for room in ROOMS)


def test_the_library_imports_what_its_extras_bring() -> None:
    brought = names([*PROJECT["dependencies"], *EXTRAS["server"]])
    assert imported(ROOT / "middleware") <= brought


def test_the_operators_part_imports_what_its_extras_bring() -> None:
    brought = names([*PROJECT["dependencies"], *EXTRAS["server"], *EXTRAS["cli"]])
    assert imported(ROOT / "migrator") <= brought
