"""A deployment in a folder of its own, and the command to run on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner

from crossfade_migrator.cli import cli
from crossfade_migrator.context import Context

_Value = TypeVar("_Value")

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
cookie = "session"
max_age = "1d"
starlette = { secret_variable = "SESSION_SECRET" }

[rollout]
min_instances = 0
"""
SECRETS = 'root = ["' + "r" * 40 + '"]\nwrapping = ["' + "w" * 40 + '"]\n'


@dataclass(frozen=True)
class Outcome:
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


class Deployment:
    """Settings, secrets and database in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "crossfade.toml"
        self.database = folder / "crossfade.db"
        self.settings.write_text(SETTINGS)
        secrets = folder / "crossfade.secrets"
        secrets.write_text(SECRETS)
        secrets.chmod(0o600)

    def __call__(self, *arguments: str, typed: str | None = None) -> Outcome:
        """Run `crossfade --config … arguments`, with a pipe as stdin."""
        given = ["--config", str(self.settings), *arguments]
        result = CliRunner(env={"COLUMNS": "80"}).invoke(cli, given, input=typed)
        return Outcome(code=result.exit_code, out=result.stdout, err=result.stderr)

    def upgraded(self) -> "Deployment":
        assert self("db", "upgrade").code == 0
        return self

    def within(self, verb: Callable[[Context], Awaitable[_Value]]) -> _Value:
        """Do something in the deployment's own context."""

        async def do() -> _Value:
            async with Context.open(self.settings, actor="test") as context:
                return await verb(context)

        return asyncio.run(do())


@pytest.fixture
def crossfade(tmp_path: Path) -> Deployment:
    """A deployment without a database yet; call it with the words of a command line."""
    return Deployment(tmp_path)


@pytest.fixture
def upgraded(crossfade: Deployment) -> Deployment:
    return crossfade.upgraded()


PLAN = """\
schema = 1
name = "shop-to-tokens"
salt = "salt-1"

[defaults]
bake = "1h"
min_subjects = 0

[[stage]]
name = "dual-10"
phase = "dual"
issue = { web = 10, mobile = 10 }

[[stage]]
name = "dual-50"
phase = "dual"
issue = { web = 50, mobile = 50, machine = 50 }

[[stage]]
name = "prefer"
phase = "prefer"
issue = { web = 100, mobile = 100, machine = 100 }
"""


@pytest.fixture
def planned(upgraded: Deployment) -> Deployment:
    """A deployment with a plan of short stages applied, and no process of the application."""
    plan = upgraded.folder / "plan.toml"
    plan.write_text(PLAN)
    assert upgraded("plan", "apply", str(plan), "--yes").code == 0
    return upgraded
