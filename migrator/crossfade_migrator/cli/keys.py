"""`crossfade keys`: which keys sign and verify, and their rotation."""

from typing import TYPE_CHECKING

import click

from crossfade_migrator.cli.call import Call, Verbs
from crossfade_migrator.cli.consent import ask
from crossfade_migrator.cli.duration import duration
from crossfade_migrator.cli.init import ALGORITHMS
from crossfade_migrator.cli.options import dry_run_option
from crossfade_migrator.cli.screen import full_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.keys.jwks import KeyAlgorithm
    from crossfade.stores.keys import KeyRow
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.keys import Rotation

_STYLES = {"active": "bold green", "next": "green", "retiring": "yellow", "retired": "dim"}


@click.group(cls=Verbs)
def keys() -> None:
    """List and rotate signing keys."""


@keys.command("list")
@click.pass_obj
async def list_(call: Call) -> None:
    """List all keys. The active one signs; next and retiring ones verify."""
    from crossfade_migrator.keys import list_keys

    async with call.open() as context:
        rows = await list_keys(context)
    document = {
        "keys": [
            {
                "kid": row.kid,
                "algorithm": row.algorithm,
                "state": row.state,
                "created_at": row.created_at,
                "activated_at": row.activated_at,
                "retiring_at": row.retiring_at,
                "retired_at": row.retired_at,
                "can_sign": row.can_sign,
            }
            for row in rows
        ]
    }
    call.answer(document, lambda screen: _show_list(screen, rows))


@keys.command()
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="Else that of the settings.")
@click.option(
    "--wait", type=duration, metavar="TIME", default="60s", help="For the fleet, at most. [60s]"
)
@dry_run_option
@click.pass_obj
async def rotate(call: Call, algorithm: "KeyAlgorithm | None", wait: float, dry_run: bool) -> None:
    """Let a new key sign, once every instance lists it.

    Tokens that the former key signed stay good until they expire.
    """
    from crossfade_migrator.keys import rotate as rotate_keys

    if not dry_run:
        ask(call, "Let a new key sign all tokens?")
    async with call.open() as context:
        done = await rotate_keys(
            context, algorithm=algorithm, wait=wait, dry_run=dry_run, progress=call.say
        )
    document = {
        "dry_run": dry_run,
        "kid": done.kid or None,
        "former": done.former,
        "made": done.made,
        "retired": list(done.retired),
        "instances": done.instances,
    }
    call.answer(document, lambda screen: _show_rotation(screen, done, dry_run))


def _show_list(screen: "Screen", rows: "Sequence[KeyRow]") -> None:
    if not rows:
        screen.line("there is no key: run `crossfade db upgrade`")
        return
    screen.table(
        ("KID", "ALGORITHM", "STATE", "SINCE", "SIGNS"),
        [
            [
                row.kid[:16],
                row.algorithm,
                (row.state, _STYLES[row.state]),
                full_time(_since(row)),
                _signs(row),
            ]
            for row in rows
        ],
    )


def _since(row: "KeyRow") -> float:
    return row.retired_at or row.retiring_at or row.activated_at or row.created_at


def _signs(row: "KeyRow") -> str | tuple[str, str]:
    if row.state == "active":
        return "yes" if row.can_sign else ("no, secret is gone", "bold red")
    return "-"


def _show_rotation(screen: "Screen", done: "Rotation", dry_run: bool) -> None:
    if dry_run:
        key = "a new key" if done.made else f"key {done.kid[:16]}"
        screen.line(f"{key} would sign, once all {done.instances} instances list it")
    else:
        screen.line(f"key {done.kid[:16]} signs; {done.instances} instances list it")
    if done.former:
        verifies = "would verify" if dry_run else "verifies"
        screen.line(f"key {done.former[:16]} {verifies} until its tokens end")
    for kid in done.retired:
        screen.line(
            f"key {kid[:16]} {'would be' if dry_run else 'is'} retired: its last token ended"
        )
