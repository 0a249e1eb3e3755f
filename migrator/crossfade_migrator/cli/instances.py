"""`crossfade instances`: the processes of the application, one line each."""

from typing import TYPE_CHECKING

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.durations import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.stores.instances import InstanceRow
    from crossfade.stores.rollout import Revision
    from crossfade_migrator.cli.screen import Screen


@click.command(cls=Verb)
@click.pass_obj
async def instances(call: Call) -> None:
    """List the live processes: which revision each runs, its keys, its canary, its clock."""
    async with call.open() as context:
        head = await context.rollout.head()
        rows = await context.instances.live(context.settings.rollout.instance_ttl)
    document = {"revision": head.number, "instances": [_entry(row, head) for row in rows]}
    call.answer(document, lambda screen: _show(screen, rows, head))


def _entry(row: "InstanceRow", head: "Revision") -> dict[str, object]:
    return {
        "id": row.id,
        "host": row.host,
        "pid": row.pid,
        "boot_id": row.boot_id,
        "version": row.version,
        "revision": row.revision,
        "acked": row.has_acked(head),
        "joined_at": row.joined_at,
        "seen_at": row.seen_at,
        "vanished": row.is_vanished,
        "kids": list(row.kids),
        "clock_offset": row.clock_offset,
        "canary_ok": None if row.canary is None else row.canary.ok,
        "canary_why": None if row.canary is None else row.canary.why,
    }


def _show(screen: "Screen", rows: "Sequence[InstanceRow]", head: "Revision") -> None:
    if not rows:
        screen.line("no process of the application reports; start it with the middleware around it")
        return
    screen.table(
        ("INSTANCE", "VERSION", "REV", "SEEN", "KEYS", "CLOCK", "CANARY"),
        [
            [
                row.name,
                row.version,
                _revision(row, head),
                ("silent", "bold red") if row.is_vanished else f"{span(row.age)} ago",
                str(len(row.kids)),
                f"{row.clock_offset:+.1f}s",
                _canary(row),
            ]
            for row in rows
        ],
    )
    acked = sum(row.has_acked(head) for row in rows)
    screen.line(f"{acked} of {len(rows)} run revision {head.number}")


def _revision(row: "InstanceRow", head: "Revision") -> str | tuple[str, str]:
    return str(row.revision) if row.has_acked(head) else (f"{row.revision} behind", "bold yellow")


def _canary(row: "InstanceRow") -> str | tuple[str, str]:
    if row.canary is None:
        return "-"
    return ("ok", "green") if row.canary.ok else (f"fails: {row.canary.why}", "bold red")
