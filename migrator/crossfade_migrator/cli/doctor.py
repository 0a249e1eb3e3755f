"""`crossfade doctor`: every check on one line, with the mend below what is wrong."""

from typing import TYPE_CHECKING

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.cli.secret import secret

if TYPE_CHECKING:
    from crossfade_migrator.cli.screen import Cell, Screen
    from crossfade_migrator.doctor import Finding

_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


@click.command(cls=Verb)
@click.option(
    "--app", metavar="MODULE:NAME", help="Look at this application's middleware and routes."
)
@click.option(
    "--cookie",
    type=secret,
    metavar="-|@FILE",
    envvar="CROSSFADE_COOKIE",
    help="Try the reader on one live session cookie: - for stdin, @FILE for a file.",
)
@click.pass_obj
async def doctor(call: Call, app: str | None, cookie: str | None) -> int:
    """Check settings, secrets, database, clocks, keys, instances and cookies.

    Leaves with 1 if anything must be mended.
    """
    from crossfade_migrator.doctor import Examination, examine

    examination = Examination(settings_path=call.config, app=app, cookie=cookie)
    findings = [finding async for finding in examine(examination)]
    faults = sum(finding.level == "fault" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    document = {
        "state": "fault" if faults else "ok",
        "faults": faults,
        "warnings": warnings,
        "checks": [
            {"check": f.check, "level": f.level, "text": f.text, "mend": f.mend} for f in findings
        ],
    }
    call.answer(document, lambda screen: _show(screen, findings, faults, warnings))
    return 1 if faults else 0


def _show(screen: "Screen", findings: list["Finding"], faults: int, warnings: int) -> None:
    rows: list[list[Cell]] = []
    for f in findings:
        rows.append([(f.level, _STYLES[f.level]), f.check, f.text])
        if f.mend:
            rows.append(["", "", (f"→ {f.mend}", "dim")])
    screen.table((), rows)
    screen.line()
    if faults or warnings:
        screen.line(f"{_count(faults, 'fault')}, {_count(warnings, 'warning')}")
    else:
        screen.line("all is well")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
