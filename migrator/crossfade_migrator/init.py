"""Write a working set of settings, secrets and plan for an application that has none yet."""

import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, DateTime, Float, Integer, Numeric, inspect
from sqlalchemy.types import TypeEngine

from crossfade.errors import ConfigurationError
from crossfade.settings import Settings
from crossfade.stores.engine import Database
from crossfade_migrator.database import missing_file

SETTINGS = "crossfade.toml"
SECRETS = "crossfade.secrets"
PLAN = "plan.toml"
DEFAULT_PLAN = Path(__file__).parent / "plans" / "default.toml"

# Names that people give the columns of a table of sessions, the likeliest first.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "key": ("session_id", "session_key", "sid", "key", "token", "id"),
    "data": ("data", "session_data", "payload", "value", "sess"),
    "user": ("user_id", "userid", "uid", "user"),
    "created": ("created_at", "created", "date_created"),
    "seen": (
        "last_seen_at",
        "last_seen",
        "seen_at",
        "seen",
        "last_activity",
        "accessed_at",
        "updated_at",
    ),
    "expires": ("expires_at", "expires", "expire_date", "expiry", "expire"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What `init` must know.

    Attributes:
        legacy: the `[legacy]` section as plain values, its own section included.
        secure: False for plain HTTP on localhost.
    """

    issuer: str
    audience: str
    database: str
    algorithm: str
    legacy: Mapping[str, Any]
    secure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files that were written, and the settings in them."""

    files: tuple[Path, ...]
    settings: Settings


def render_settings(answers: Answers) -> str:
    """Return the text of crossfade.toml.

    Raises:
        ConfigurationError: an answer that the settings would refuse; names the key.
    """
    legacy = {k: v for k, v in answers.legacy.items() if not isinstance(v, Mapping)}
    sections = {k: v for k, v in answers.legacy.items() if isinstance(v, Mapping)}
    parts = [
        "# Settings of Crossfade. Unknown keys are errors; `crossfade doctor` checks the rest.\n",
        _pairs({"schema": 1, "issuer": answers.issuer, "audience": answers.audience}),
        _pairs({"secrets_file": SECRETS}),
        _section(
            "database",
            {"url": answers.database},
            "Crossfade's own tables. For many machines: postgresql://…, or env:VARIABLE.",
        ),
        _section("legacy", legacy, "The application's present sessions."),
        *(_section(f"legacy.{name}", pairs) for name, pairs in sections.items()),
        _section("tokens", {"algorithm": answers.algorithm, "access_ttl": "10m"}),
        _section(
            "cookies",
            {"secure": answers.secure},
            "false only for plain HTTP on localhost: it gives up the __Host- prefix.",
        ),
    ]
    text = "".join(parts)
    Settings.from_mapping(tomllib.loads(text))
    return text


def render_plan(default: str, name: str) -> str:
    """Return the default plan with a name and a salt of its own."""
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "application"
    text = re.sub(r'(?m)^name(\s*)=\s*"[^"]*"', rf'name\1= "{word}-to-tokens"', default, count=1)
    return re.sub(r'(?m)^salt(\s*)=\s*"[^"]*"', rf'salt\1= "{secrets.token_hex(4)}"', text, count=1)


def write(folder: Path, answers: Answers) -> Written:
    """Write the three files, the secrets with mode 600.

    Raises:
        ConfigurationError: a file is there already, or an answer is wrong; nothing was written.
    """
    texts = {
        folder / SECRETS: _render_secrets(),
        folder / SETTINGS: render_settings(answers),
        folder / PLAN: render_plan(DEFAULT_PLAN.read_text(encoding="utf-8"), answers.audience),
    }
    for path in texts:
        if path.exists():
            raise ConfigurationError(
                f"{path} is there already: move it away, or name another folder"
            )
    done: list[Path] = []
    try:
        for path, text in texts.items():
            _create(path, text, mode=0o600 if path.name == SECRETS else 0o644)
            done.append(path)
    except OSError as error:
        for path in done:
            path.unlink()
        raise ConfigurationError(f"{error.filename} cannot be written: {error.strerror}") from error
    return Written(files=tuple(texts), settings=Settings.load(folder / SETTINGS))


async def with_table(answers: Answers, folder: Path, table: str | None = None) -> Answers:
    """Complete `[legacy.sql]` with the table of sessions and its columns, if they can be told.

    What was answered stays. Nothing is added if the database is not there yet, or if no table,
    or more than one, looks like it.

    Raises:
        ConfigurationError: the URL cannot be used.
        StoreUnavailable: the database did not answer.
    """
    settings = Settings.from_mapping(tomllib.loads(render_settings(answers)), base=folder)
    section = answers.legacy["sql"]
    url = settings.resolve_url(section["url"])
    if missing_file(url):
        return answers
    database = Database(url, timeout=5, backend="sessions")
    try:
        async with database.read() as connection:
            found = await connection.run_sync(_guess, table)
    finally:
        await database.close()
    return replace(answers, legacy={**answers.legacy, "sql": {**found, **section}})


def _guess(connection: Connection, wanted: str | None) -> dict[str, Any]:
    inspector = inspect(connection)
    names = [n for n in inspector.get_table_names() if not n.startswith("crossfade_")]
    tables = [n for n in names if (n == wanted if wanted else "session" in n.lower())]
    found = []
    for name in tables:
        columns = {c["name"]: c["type"] for c in inspector.get_columns(name)}
        roles = _roles(list(columns))
        if {"key", "data"} <= roles.keys():
            times = [columns[roles[r]] for r in ("seen", "expires", "created") if r in roles]
            found.append({"table": name, **roles, **({"times": _times(times[0])} if times else {})})
    return found[0] if len(found) == 1 else {}


def _roles(columns: list[str]) -> dict[str, str]:
    lowered = {name.lower(): name for name in columns}
    return {
        role: lowered[next(name for name in names if name in lowered)]
        for role, names in _COLUMNS.items()
        if any(name in lowered for name in names)
    }


def _times(kind: TypeEngine[Any]) -> str:
    if isinstance(kind, DateTime):
        return "timestamp"
    return "unix" if isinstance(kind, Float | Integer | Numeric) else "iso"


def _render_secrets() -> str:
    rings = {name: [secrets.token_urlsafe(48)] for name in ("root", "wrapping")}
    return (
        "# The first of each list is active; older ones keep what they made alive.\n"
        "# Keep this file out of version control and backups of the database.\n" + _pairs(rings)
    )


def _section(name: str, pairs: Mapping[str, Any], comment: str = "") -> str:
    head = f"# {comment}\n" if comment else ""
    return f"\n{head}[{name}]\n{_pairs(pairs)}"


def _pairs(pairs: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in pairs.items())


def _value(value: Any) -> str:
    if isinstance(value, str) and not value.isprintable():
        raise ConfigurationError("an answer holds a control character")
    # A JSON string, number, boolean or list of these is TOML too.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _create(path: Path, text: str, *, mode: int) -> None:
    # O_EXCL: neither overwrite what appeared meanwhile nor follow a link that was planted.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
