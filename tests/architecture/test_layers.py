"""The layers hold: what may import what, and how modules are made."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("middleware/crossfade", "migrator/crossfade_migrator")
    for path in (ROOT / folder).rglob("*.py")
)
PURE = (
    "decision.py",
    "credentials.py",
    "observation.py",
    "rollout/bucketing.py",
    "rollout/state.py",
)
IMPURE = {"asyncio", "time", "random", "secrets", "os", "socket", "httpx", "sqlalchemy"}


def test_every_contract_of_the_import_linter_is_kept() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_has_no_clock_no_chance_and_no_store(name: str) -> None:
    tree = ast.parse((ROOT / "middleware/crossfade" / name).read_text())
    found = {
        module.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert found & IMPURE == set()


def test_every_module_and_public_name_says_what_it_is() -> None:
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree) and path.read_text().strip():
            silent.append(str(path.relative_to(ROOT)))
        silent += [
            f"{path.relative_to(ROOT)}:{node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if not node.name.startswith("_") and not ast.get_docstring(node)
        ]
    assert silent == []


def test_modules_and_functions_stay_small() -> None:
    long_files = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in SOURCES
        if (lines := len(path.read_text().splitlines())) > 650
    ]
    long_functions = [
        f"{path.relative_to(ROOT)}:{node.name}: {length}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name not in {"assemble", "__init__"}
        if (length := _lines(node)) > 60
    ]
    assert (long_files, long_functions) == ([], [])


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines, its docstring apart."""
    told = (ast.get_docstring(node, clean=False) or "").count("\n") + 1
    return (node.end_lineno or 0) - node.lineno + 1 - told


def test_nothing_is_printed_but_by_the_command_line() -> None:
    printing = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if "crossfade_migrator" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert printing == []


def test_every_reason_not_to_follow_a_rule_is_written_down() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for mark in ("# noqa", "# type: ignore")
        if mark in line
        if not line.partition(mark)[2].partition("]" if "type" in mark else " ")[2].strip(" #-")
    ]
    assert bare == []
