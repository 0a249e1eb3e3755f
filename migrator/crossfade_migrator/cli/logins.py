"""`crossfade logins`: on which devices a user is logged in, and how to end that."""

from typing import TYPE_CHECKING, Any

import click

from crossfade_migrator.cli.call import Call, Verbs
from crossfade_migrator.cli.consent import ask, ask_for_name
from crossfade_migrator.cli.options import dry_run_option
from crossfade_migrator.cli.screen import day_and_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.stores.logins import LoginRow
    from crossfade.tokens.refresh import Login
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.context import Context
    from crossfade_migrator.logins import Revoked

_tenant = click.option("--tenant", metavar="ID", default="", help="The user's tenant.")


@click.group(cls=Verbs)
def logins() -> None:
    """List and end the logins of a user."""


@logins.command("list")
@click.argument("subject")
@_tenant
@click.pass_obj
async def list_(call: Call, subject: str, tenant: str) -> None:
    """List the live logins of a user who has tokens."""
    from crossfade_migrator.logins import list_logins

    async with call.open() as context:
        rows = await list_logins(context, subject, tenant=tenant)
    document = {"subject": subject, "tenant": tenant, "logins": [_entry(row) for row in rows]}
    call.answer(document, lambda screen: _show_list(screen, rows, subject))


# One id in 64 begins with a dash, and must not be taken for an option.
@logins.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("sid", required=False)
@click.option("--all", "subject", metavar="SUBJECT", help="All logins of this user.")
@click.option("--except", "kept", metavar="SID", help="With --all: save this one.")
@_tenant
@dry_run_option
@click.pass_obj
async def revoke(
    call: Call, sid: str | None, subject: str | None, kept: str | None, tenant: str, dry_run: bool
) -> None:
    """End one login, or all of a user; in both worlds, on every instance.

    --all also refuses the user's legacy sessions that began before now.
    """
    from crossfade_migrator.logins import read_sid

    if (sid is None) == (subject is None):
        raise click.UsageError("name a login, or a user with --all")
    if kept is not None and subject is None:
        raise click.UsageError("--except goes with --all")
    spared = None if kept is None else read_sid(kept)
    async with call.open() as context:
        if sid is not None:
            done = await _revoke_one(call, context, read_sid(sid), dry_run=dry_run)
        else:
            done = await _revoke_all(call, context, str(subject), tenant, spared, dry_run=dry_run)
    document = {"dry_run": dry_run, "ended": done.ended, "sid": sid, "subject": subject}
    call.answer(document, lambda screen: _show_revoked(screen, done, dry_run))


async def _revoke_one(call: Call, context: "Context", sid: bytes, *, dry_run: bool) -> "Revoked":
    from crossfade_migrator.logins import Revoked, find
    from crossfade_migrator.logins import revoke as end

    login = await find(context, sid)
    if dry_run:
        return Revoked(ended=int(login.ended_at is None), login=login)
    ask(call, f"End this login of {login.identity.subject} on {login.client}?")
    return await end(context, sid)


async def _revoke_all(
    call: Call,
    context: "Context",
    subject: str,
    tenant: str,
    spared: bytes | None,
    *,
    dry_run: bool,
) -> "Revoked":
    from crossfade_migrator.logins import Revoked, list_logins, revoke_all

    rows = await list_logins(context, subject, tenant=tenant)
    ending = [row for row in rows if row.login.sid != spared]
    if dry_run:
        return Revoked(ended=len(ending))
    warning = f"This ends {len(ending)} logins of {subject} and all older sessions."
    ask_for_name(call, warning, subject)
    return await revoke_all(context, subject, tenant=tenant, except_sid=spared)


def _entry(row: "LoginRow") -> dict[str, Any]:
    from crossfade_migrator.logins import sid_text

    login = row.login
    return {
        "sid": sid_text(login.sid),
        "client": login.client,
        "client_id": login.client_id,
        "created_at": login.created_at,
        "auth_time": login.auth_time,
        "refreshed_at": login.rotated_at,
        "idle_until": login.idle_until,
        "absolute_until": login.absolute_until,
        "has_session": login.anchor is not None,
        "address": row.address,
        "agent": row.agent,
    }


def _show_list(screen: "Screen", rows: "Sequence[LoginRow]", subject: str) -> None:
    from crossfade_migrator.logins import sid_text

    if not rows:
        screen.line(f"{subject} has no live login with tokens")
        return
    screen.table(
        ("SID", "CLIENT", "SINCE", "REFRESHED", "DEVICE"),
        [
            [
                sid_text(row.login.sid),
                row.login.client,
                day_and_time(row.login.created_at)[:11],
                day_and_time(row.login.rotated_at)[:11],
                _device(row),
            ]
            for row in rows
        ],
    )


def _device(row: "LoginRow") -> str:
    return " ".join(part for part in (row.address, row.agent[:60]) if part) or "-"


def _show_revoked(screen: "Screen", done: "Revoked", dry_run: bool) -> None:
    login: Login | None = done.login
    if login is not None and not done.ended:
        screen.line(f"that login ended already: {login.why or 'expired'}")
        return
    verb = "would be ended" if dry_run else "ended; every instance refuses it within 2 s"
    screen.line(f"{done.ended} {'login' if done.ended == 1 else 'logins'} {verb}")
