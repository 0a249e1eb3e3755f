"""`crossfade audit`: one line an event."""

from typing import TYPE_CHECKING

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.cli.duration import duration
from crossfade_migrator.cli.screen import day_and_time

if TYPE_CHECKING:
    from crossfade.stores.audit import AuditRow
    from crossfade_migrator.audit import Page
    from crossfade_migrator.cli.screen import Screen

_LONGEST = 24
"""Characters of one fact that are shown; --json has all."""


@click.command(cls=Verb)
@click.option("--since", type=duration, metavar="TIME", default="24h", help="How far back. [24h]")
@click.option("--subject", metavar="ID", help="Of this user alone.")
@click.option("--tenant", metavar="ID", default="", help="The user's tenant.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, help="How many. [50]")
@click.option("--after", type=click.IntRange(0), default=0, help="Go on behind this entry.")
@click.pass_obj
async def audit(
    call: Call, since: float, subject: str | None, tenant: str, limit: int, after: int
) -> None:
    """List what happened to logins, keys and the rollout, oldest first."""
    from crossfade_migrator.audit import read

    async with call.open() as context:
        page = await read(
            context, age=since, subject=subject, tenant=tenant, limit=limit, after=after
        )
    document = {"entries": [_entry(row) for row in page.entries], "after": page.after}
    call.answer(document, lambda screen: _show(screen, page))


def _entry(row: "AuditRow") -> dict[str, object]:
    return {
        "id": row.id,
        "at": row.at,
        "event": row.event,
        "client": row.client,
        "actor": row.actor,
        "tenant": row.tenant,
        "subject": row.subject,
        "detail": dict(row.detail),
    }


def _show(screen: "Screen", page: "Page") -> None:
    if not page.entries:
        screen.line("nothing happened in that time")
        return
    screen.table(
        ("ID", "AT", "EVENT", "WHO", "DETAIL"),
        [
            [str(r.id), day_and_time(r.at), r.event, r.subject or r.actor or "-", _detail(r)]
            for r in page.entries
        ],
    )
    if page.after is not None:
        screen.line(f"there is more: --after {page.after}")


def _detail(row: "AuditRow") -> str:
    words = dict(row.detail)
    moved = [_place(words.pop(end)) for end in ("from", "to") if isinstance(words.get(end), dict)]
    facts = {"client": row.client, **words}
    told = [f"{key}={_shortened(str(value))}" for key, value in facts.items() if value]
    return " ".join([" → ".join(moved), *told]).strip()


def _place(state: dict[str, object]) -> str:
    return f"{state.get('stage') or state.get('phase')} {state.get('status')}"


def _shortened(text: str) -> str:
    # The names of keys are long and hardly differ in what follows.
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
