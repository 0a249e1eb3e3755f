"""`advance`, `pause`, `resume`, `rollback`: look first, ask, then write what was shown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.cli.consent import ask, ask_for_name
from crossfade_migrator.cli.duration import duration
from crossfade_migrator.cli.options import dry_run_option, if_revision_option, reason_option
from crossfade_migrator.cli.outcome import give

if TYPE_CHECKING:
    from crossfade_migrator.context import Context
    from crossfade_migrator.rollout import Outcome


@click.command(cls=Verb)
@click.option("--force", multiple=True, metavar="GATE", help="Go past this gate, or `bake`; once.")
@click.option("--allow-empty", is_flag=True, help="Even if no process of the application is live.")
@click.option(
    "--wait", type=duration, metavar="TIME", default="60s", help="For the fleet, at most. [60s]"
)
@reason_option
@if_revision_option
@dry_run_option
@click.pass_obj
async def advance(call: Call, /, if_revision: int | None, dry_run: bool, **options: Any) -> int:
    """Go on to the plan's next stage.

    Refused while a gate fails (10), evidence or bake time is missing (11), a process does not
    follow (14), or the rollout is paused or rolled back (15). --force wants a --reason.
    """
    from crossfade_migrator import rollout as verbs

    async with call.open() as context, naming_who_was_faster(context):
        seen = await _seen(context, if_revision)
        shown = await verbs.advance(context, if_revision=seen, dry_run=True, **options)
        if dry_run:
            return give(call, shown) or _code_of(shown)
        if shown.blocked:
            raise _refusal(shown)
        words = "; ".join(shown.steps)
        if options["force"]:
            ask_for_name(call, f"{words}; past {', '.join(options['force'])}", _name(shown))
        else:
            ask(call, f"{words}. Go on?")
        done = await verbs.advance(context, if_revision=seen, progress=call.say, **options)
    return give(call, done)


@click.command(cls=Verb)
@reason_option
@if_revision_option
@dry_run_option
@click.pass_obj
async def pause(call: Call, reason: str, if_revision: int | None, dry_run: bool) -> int:
    """Stop this rollout's clock. Nothing advances before `crossfade resume`."""
    from crossfade_migrator import rollout as verbs

    async with call.open() as context, naming_who_was_faster(context):
        if not dry_run:
            ask(call, "Pause the rollout?")
        done = await verbs.pause(context, reason=reason, if_revision=if_revision, dry_run=dry_run)
    return give(call, done)


@click.command(cls=Verb)
@click.option("--wait/--no-wait", default=True, help="Wait until a rollback is settled. [wait]")
@reason_option
@if_revision_option
@dry_run_option
@click.pass_obj
async def resume(
    call: Call, wait: bool, reason: str, if_revision: int | None, dry_run: bool
) -> int:
    """Go on after a pause or a rollback."""
    from crossfade_migrator import rollout as verbs

    async with call.open() as context, naming_who_was_faster(context):
        if not dry_run:
            ask(call, "Let the rollout go on?")
        done = await verbs.resume(
            context,
            reason=reason,
            if_revision=if_revision,
            wait=wait,
            dry_run=dry_run,
            progress=call.say,
        )
    return give(call, done)


@click.command(cls=Verb)
@click.option("--to", metavar="STAGE|PHASE", help="How far back; else one stage.")
@click.option("--hard", is_flag=True, help="At once: tokens in use fail too. For a stolen key.")
@click.option("--wait", is_flag=True, help="Wait until the last token has ended.")
@reason_option
@dry_run_option
@click.pass_obj
async def rollback(call: Call, /, dry_run: bool, **options: Any) -> int:
    """Go back to an earlier stage or phase, at once.

    Works in every status, without metrics, whoever writes meanwhile. Logs nobody out unless it
    says so first. Nothing advances afterwards before `crossfade resume`.
    """
    from crossfade_migrator import rollout as verbs

    async with call.open() as context:
        shown = await verbs.rollback(context, dry_run=True, **_without_wait(options))
        if dry_run:
            return give(call, shown)
        if shown.steps:
            ask_for_name(call, _warning(shown), _name(shown))
        done = await verbs.rollback(context, progress=call.say, **options)
    return give(call, done)


@asynccontextmanager
async def naming_who_was_faster(context: "Context") -> AsyncIterator[None]:
    """Tell, where a change came too late, who changed what in the meantime."""
    from crossfade.errors import RevisionConflict
    from crossfade_migrator.errors import Conflict

    try:
        yield
    except RevisionConflict as error:
        since = [
            f"{r.number} {r.verb} by {r.actor}" + (f' "{r.reason}"' if r.reason else "")
            for r in await context.rollout.history(3)
            if r.number > error.expected
        ]
        raise Conflict(
            f"the rollout is at revision {error.head}, not {error.expected}"
            + (f": {'; '.join(since)}" if since else ""),
            "look at `crossfade status`, then decide anew",
        ) from error


async def _seen(context: "Context", if_revision: int | None) -> int:
    """Return the revision that the operator is shown, and that the change is then bound to."""
    return (await context.rollout.head()).number if if_revision is None else if_revision


def _code_of(shown: "Outcome") -> int:
    return _refusal(shown).exit_code if shown.blocked else 0


def _refusal(shown: "Outcome") -> Any:
    from crossfade_migrator.errors import GateFailed, Held

    failed = any(gate.blocks and gate.verdict == "fail" for gate in shown.gates)
    kind = GateFailed if failed else Held
    return kind("; ".join(shown.blocked), "see `crossfade status`")


def _name(shown: "Outcome") -> str:
    """Return what must be typed: the plan's name."""
    plan = shown.before.plan
    return "sessions" if plan is None else str(plan["name"])


def _warning(shown: "Outcome") -> str:
    from crossfade_migrator.cli.outcome import impact_in_words

    return "\n".join([*shown.steps, *impact_in_words(shown)])


def _without_wait(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "wait"}
