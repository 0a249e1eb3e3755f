"""`crossfade init`: ask, or take flags, and write settings, secrets and plan."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.cli.consent import prompting

if TYPE_CHECKING:
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.init import Answers

ALGORITHMS = ("ES256", "EdDSA", "RS256")
_TRADE = """\
How tokens are signed (microseconds for one verification and signature; bytes of a token):
  ES256   64 and 23, 349   the quickest where most tokens are seen once by a process
  EdDSA  104 and 34, 349   deterministic signatures
  RS256   21 and 258, 605  the only one that some gateways know"""


@click.command(cls=Verb)
@click.option("--folder", type=click.Path(path_type=Path), default=".", help="Where to write.")
@click.option("--issuer", metavar="URL", help="Origin of the site: https://shop.example")
@click.option("--audience", metavar="NAME", help="A name for this application.")
@click.option("--database", metavar="URL", help="Crossfade's own. [sqlite:///crossfade.db]")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="Of signing keys. [ES256]")
@click.option("--framework", type=click.Choice(["sql", "starlette"]), help="Who keeps sessions.")
@click.option("--cookie", metavar="NAME", help="The session cookie. [session]")
@click.option("--user", metavar="PATH", help="The user id in the session's data. [user_id]")
@click.option("--sessions-url", metavar="URL", help="sql: the application's database.")
@click.option("--table", metavar="NAME", help="sql: the table of sessions; else it is looked for.")
@click.option("--idle", metavar="TIME", help="sql: a session ends so long after its last use.")
@click.option("--absolute", metavar="TIME", help="sql: a session ends so long after log-in.")
@click.option("--secret-variable", metavar="VAR", help="starlette: holds secret_key.")
@click.option("--max-age", metavar="TIME", help="starlette: the middleware's max_age. [14d]")
@click.option("--plain-http", is_flag=True, help="Cookies without Secure; localhost only.")
@click.option("--dry-run", is_flag=True, help="Print the settings, write nothing.")
@click.pass_obj
async def init(call: Call, /, folder: Path, dry_run: bool, **given: Any) -> None:
    """Write crossfade.toml, crossfade.secrets and plan.toml for this application.

    Asks for what the flags leave open. Never overwrites a file.
    """
    from crossfade_migrator.init import render_settings, with_table, write

    answers = _answers(call, given)
    if "sql" in answers.legacy:
        answers = await with_table(answers, folder, given["table"])
        if "key" not in answers.legacy["sql"]:
            call.say("no table of sessions was found there: complete [legacy.sql] by hand")
    if dry_run:
        text = render_settings(answers)
        call.answer({"dry_run": True, "settings": text}, lambda screen: screen.raw(text))
        return
    written = write(folder, answers)
    files = [str(path) for path in written.files]

    def show(screen: "Screen") -> None:
        for path in files:
            screen.line(f"wrote {path}")
        screen.line()
        screen.line("Next: read plan.toml, then")
        screen.line("  crossfade db upgrade")
        screen.line("  crossfade doctor")

    call.answer({"files": files}, show)


def _answers(call: Call, given: dict[str, Any]) -> "Answers":
    from crossfade_migrator.init import Answers

    asker = _Asker(call, given)
    issuer = asker.need("issuer", "Origin of the site, as https://shop.example")
    audience = asker.need("audience", "A name for this application")
    framework = asker.need("framework", "Who keeps the sessions now (sql or starlette)")
    plain = given["plain_http"] or issuer.startswith("http://")
    legacy: dict[str, Any] = {
        "framework": framework,
        "cookie": asker.need("cookie", "Name of the session cookie", "session"),
        "secure": not plain,
        "identity": {"user": asker.need("user", "Path of the user id in its data", "user_id")},
    }
    legacy[framework] = _sql(asker) if framework == "sql" else _starlette(asker)
    if framework == "starlette":
        legacy["max_age"] = asker.need("max_age", "The middleware's max_age", "14d")
    if asker.asks and not given["algorithm"]:
        click.echo(_TRADE, err=True)
    return Answers(
        issuer=issuer,
        audience=audience,
        database=asker.need("database", "Crossfade's own database", "sqlite:///crossfade.db"),
        algorithm=asker.need("algorithm", "Algorithm", "ES256"),
        legacy=legacy,
        secure=not plain,
    )


def _sql(asker: "_Asker") -> dict[str, Any]:
    question = "The application's database, as sqlite:///shop.db"
    section = {"url": asker.need("sessions_url", question)}
    return section | {k: v for k in ("table", "idle", "absolute") if (v := asker.given[k])}


def _starlette(asker: "_Asker") -> dict[str, Any]:
    question = "Environment variable that holds secret_key"
    return {"secret_variable": asker.need("secret_variable", question, "SESSION_SECRET")}


class _Asker:
    """Takes an answer from the flags, else asks, else takes the default, else says which flag."""

    def __init__(self, call: Call, given: dict[str, Any]) -> None:
        self.call = call
        self.given = given
        self.asks = not call.yes and sys.stdin.isatty()

    def need(self, name: str, question: str, default: str | None = None) -> str:
        value = self.given.get(name)
        if value is None and self.asks:
            with prompting():
                value = click.prompt(question, default=default, err=True)
        if value is None:
            value = default
        if value is None:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is needed", ctx=click.get_current_context(silent=True)
            )
        return str(value)
