"""`crossfade db`: the schema and the house-keeping."""

from typing import TYPE_CHECKING

import click

from crossfade_migrator.cli.call import Call, Verbs
from crossfade_migrator.cli.options import dry_run_option

if TYPE_CHECKING:
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.database import Upgraded


@click.group(cls=Verbs)
def db() -> None:
    """Upgrade the database's schema, delete what has expired."""


@db.command()
@dry_run_option
@click.pass_obj
async def upgrade(call: Call, dry_run: bool) -> None:
    """Bring the tables to this version.

    Makes the first signing key if there is none. Safe to repeat, and to run
    from several places at once.
    """
    from crossfade_migrator.database import plan_upgrade
    from crossfade_migrator.database import upgrade as upgrade_database

    async with call.open(new=True) as context:
        done = await (plan_upgrade if dry_run else upgrade_database)(context)
    document = {
        "dry_run": dry_run,
        "schema_before": done.before,
        "schema": done.after,
        "first_revision": done.began,
        "key": done.key,
    }
    call.answer(document, lambda screen: _show_upgrade(screen, done, dry_run))


@db.command()
@click.option("--dry-run", is_flag=True, help="Count, delete nothing.")
@click.pass_obj
async def prune(call: Call, dry_run: bool) -> None:
    """Delete rows that nothing needs any more.

    How long they are kept stands in the settings under [retention]. Rollout
    history is kept for ever.
    """
    from crossfade_migrator.database import count_expired
    from crossfade_migrator.database import prune as prune_database

    async with call.open() as context:
        if dry_run:
            rows = await count_expired(context)
        else:
            with call.counting("deleting") as progress:
                rows = await prune_database(context, progress)
    document = {"dry_run": dry_run, "deleted": {} if dry_run else rows, "expired": rows}
    call.answer(document, lambda screen: _show_pruned(screen, rows, dry_run))


def _show_upgrade(screen: "Screen", done: "Upgraded", dry_run: bool) -> None:
    be = "would be " if dry_run else ""
    if done.before == done.after:
        screen.line(f"schema {done.after}: up to date")
    else:
        screen.line(f"schema {done.after} {be}made; before: {done.before or 'no tables'}")
    if done.began:
        screen.line(f"rollout: first revision {be}written, phase sessions")
    if done.key:
        screen.line(f"keys: first signing key {be}made ({done.key})")


def _show_pruned(screen: "Screen", rows: dict[str, int], dry_run: bool) -> None:
    found = [(table, f"{count:,}") for table, count in rows.items() if count]
    if not found:
        screen.line("nothing has expired")
        return
    screen.table(("TABLE", "EXPIRED" if dry_run else "DELETED"), found)
