import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from crossfade_migrator import __version__
from crossfade_migrator.cli import VERBS, cli

ALL_VERBS = [verb for section in VERBS.values() for verb in section]


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_imports_nothing_that_a_verb_needs() -> None:
    code = (
        "import sys\nfrom crossfade_migrator.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "heavy = {'sqlalchemy', 'rich', 'alembic', 'starlette', 'msgspec', 'asyncio', 'jwt'}\n"
        "print('HEAVY', sorted(heavy & sys.modules.keys()))\n"
    )
    assert "HEAVY []" in _python("-c", code).stdout


def test_every_verb_has_one_line_in_the_help_that_fits_80_columns() -> None:
    text = CliRunner().invoke(cli, ["--help"]).stdout
    for verb in ALL_VERBS:
        assert re.search(rf"(?m)^  {verb} +[A-Z].*\.$", text), verb
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0
    assert f"Usage: crossfade {verb}" in result.stdout
    assert "--json" in result.stdout


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_the_lazy_table_names_the_command_that_is_there(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.name == verb


def test_the_version_is_the_one_of_the_package() -> None:
    pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    assert CliRunner().invoke(cli, ["--version"]).stdout == f"crossfade {__version__}\n"
    assert pyproject["project"]["version"] == __version__


def test_the_module_can_be_run_like_the_command() -> None:
    done = _python("-m", "crossfade_migrator", "--version")
    assert (done.returncode, done.stdout) == (0, f"crossfade {__version__}\n")


def test_a_closed_pipe_is_no_error_of_ours() -> None:
    command = f"{sys.executable} -m crossfade_migrator --help | true"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert "Traceback" not in done.stderr


def test_verbs_live_in_the_module_of_the_table() -> None:
    for section in VERBS.values():
        for verb, (module, _) in section.items():
            assert hasattr(import_module(f"crossfade_migrator.cli.{module}"), verb)
