"""`crossfade status`: where the rollout stands, why it waits and what unblocks it."""

import sys
from typing import TYPE_CHECKING

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.cli.duration import duration
from crossfade_migrator.cli.gate import show_gates
from crossfade_migrator.cli.screen import day_and_time, percent
from crossfade_migrator.durations import span

if TYPE_CHECKING:
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.status import StatusReport

_STYLES = {
    "baking": "bold green",
    "done": "bold green",
    "idle": "bold",
    "converging": "bold cyan",
    "rolling_back": "bold red",
    "rolled_back": "bold red",
}


@click.command(cls=Verb)
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option(
    "--every", type=duration, metavar="TIME", default="2s", help="With --watch: how often. [2s]"
)
@click.pass_obj
async def status(call: Call, watch: bool, every: float) -> int:
    """Show where the rollout stands, why it waits and what unblocks it."""
    import asyncio

    from crossfade_migrator.status import status as read_status

    async with call.open() as context:
        while True:
            report = await read_status(context)
            if watch and not call.json and sys.stdout.isatty():
                click.clear()
            call.answer(report.as_json(), lambda screen: _show(screen, report))  # noqa: B023 - called at once
            if not watch:
                return 0
            try:
                await context.clock.sleep(every)
            except asyncio.CancelledError:  # Ctrl-C is how one stops to look
                return 0


def _show(screen: "Screen", report: "StatusReport") -> None:
    word = report.status.replace("_", " ").upper()
    screen.line(
        f"{report.plan_name or 'no plan'}   revision {report.head.number}   {word}",
        style=_STYLES.get(report.status, "bold yellow"),
    )
    screen.facts(_facts(report))
    if report.gates:
        screen.line()
        show_gates(screen, report.gates)
    screen.line()
    waiting = [("waits for" if n == 0 else "", why) for n, why in enumerate(report.why)]
    help_ = [
        ("unblocks" if n == 0 else "", what)
        for n, what in enumerate(dict.fromkeys(report.unblocks))
    ]
    screen.facts([*waiting, *help_] or [("waits for", "nothing")])


def _facts(report: "StatusReport") -> list[tuple[str, str]]:
    state = report.state
    place = "-"
    if state.stage:
        place = f"{report.stage_number}/{report.stage_count} {state.stage}"
    facts = [("stage", f"{place}, phase {state.phase}")]
    if state.stage and report.status not in {"rolling_back", "rolled_back"}:
        facts.append(("bake", f"{span(report.baked)} of {span(report.bake)}"))
    if report.next_stage:
        facts.append(("next", report.next_stage))
    facts.append(("accepts", _accepts(report)))
    facts.append(("issues", _issues(report)))
    if report.narrow_in is not None:
        facts.append(("narrows", f"in {span(report.narrow_in)}, once the last token has ended"))
    facts.append(("runs on", f"{report.convergence.acked} of {report.convergence.live} instances"))
    head = report.head
    if head.number:
        who = head.actor.partition(" (")[0]
        reason = f': "{head.reason}"' if head.reason else ""
        facts.append(("last", f"{head.verb} by {who}, {day_and_time(head.created_at)}{reason}"))
    return facts


def _accepts(report: "StatusReport") -> str:
    state = report.state
    if state.accept_session and state.accept_token:
        return f"sessions and tokens; the {state.leader} leads"
    return "sessions" if state.accept_session else "tokens"


def _issues(report: "StatusReport") -> str:
    from crossfade.rollout.state import CLIENTS

    state = report.state
    shares = [f"{kind} {percent(n)}" for kind in CLIENTS if (n := state.issue_token[kind])]
    kinds = ["sessions"] if state.issue_session else []
    if shares:
        kinds.append(f"tokens to {', '.join(shares)}")
    return "; ".join(kinds) or "nothing"
