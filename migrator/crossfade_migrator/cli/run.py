"""`crossfade run`: the controller, in the foreground."""

from typing import TYPE_CHECKING, Any

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.cli.consent import ask
from crossfade_migrator.cli.duration import duration
from crossfade_migrator.cli.options import reason_option

if TYPE_CHECKING:
    from crossfade_migrator.context import Context
    from crossfade_migrator.controller import RunResult


@click.command(cls=Verb)
@click.option("--until", metavar="STAGE|PHASE", help="Stop when this is in force.")
@click.option(
    "--every", type=duration, metavar="TIME", help="How often to look; else as the plan says."
)
@reason_option
@click.pass_obj
async def run(call: Call, until: str | None, every: float | None, reason: str) -> int:
    """Steer the rollout: advance while gates pass, roll back if one fails.

    Ctrl-C stops steering and changes nothing; anybody can go on. Leaves with 12 if a gate rolled it
    back, with 15 if it was paused or stopped. With --json one object a line, the last one is the
    result.
    """
    from crossfade_migrator.controller import run as steer

    async with call.open() as context:
        ask(call, f"Steer the rollout until {until or 'it is done'}?")
        result = await steer(
            context,
            until=until,
            every=every,
            reason=reason,
            progress=lambda text: _tell(call, context, text),
        )
    call.answer(_document(result), lambda screen: screen.line(_in_words(result), style="bold"))
    return result.exit_code


def _tell(call: Call, context: "Context", text: str) -> None:
    from crossfade_migrator.cli.screen import day_and_time

    at = context.clock.time()
    call.answer({"at": at, "text": text}, lambda screen: screen.line(f"{day_and_time(at)} {text}"))


def _document(result: "RunResult") -> dict[str, Any]:
    state = result.head.document
    return {
        "end": result.end,
        "why": result.why,
        "revision": result.head.number,
        "phase": state.phase,
        "stage": state.stage,
        "status": state.status,
        "advanced": list(result.advanced),
        "gates": [gate.as_json() for gate in result.gates],
        "exit_code": result.exit_code,
    }


def _in_words(result: "RunResult") -> str:
    state = result.head.document
    place = f"stage {state.stage}" if state.stage else f"phase {state.phase}"
    return f"{str(result.end).replace('_', ' ')}: {place} at revision {result.head.number}"
