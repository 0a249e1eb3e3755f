"""`crossfade gate eval`: what each gate says now, and the numbers it says it on."""

from typing import TYPE_CHECKING

import click

from crossfade_migrator.cli.call import Call, Verbs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.stores.gates import Count
    from crossfade_migrator.cli.screen import Cell, Screen
    from crossfade_migrator.gates import GateResult

VERDICTS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "skipped": "dim"}


@click.group(cls=Verbs)
def gate() -> None:
    """Evaluate the gates of the present stage."""


@gate.command("eval")
@click.pass_obj
async def eval_(call: Call) -> int:
    """Evaluate all gates; change nothing.

    Leaves with 10 if a gate fails, with 11 if one has not seen enough.
    """
    from crossfade_migrator.errors import GateFailed, Held
    from crossfade_migrator.gates import Verdict, evaluate
    from crossfade_migrator.plan import stored_plan

    async with call.open() as context:
        head = await context.rollout.head()
        results = await evaluate(context, head, stored_plan(head.document))
    document = {
        "revision": head.number,
        "stage": head.document.stage,
        "gates": [result.as_json() for result in results],
    }
    call.answer(document, lambda screen: show_gates(screen, results))
    blocking = {result.verdict for result in results if result.blocks}
    if Verdict.FAIL in blocking:
        return GateFailed.exit_code
    return Held.exit_code if blocking else 0


def show_gates(screen: "Screen", results: "Sequence[GateResult]") -> None:
    """Print a table of verdicts, and why below each that stands in the way."""
    if not results:
        screen.line("no gate watches this stage")
        return
    rows: list[list[Cell]] = []
    for result in results:
        verdict = f"{result.verdict} (observed)" if result.is_observed else str(result.verdict)
        rows.append(
            [
                result.name,
                _arm(result.token),
                _arm(result.session),
                "-" if result.e is None else f"{result.e:.3g} ({result.threshold:.4g})",
                (verdict, VERDICTS[result.verdict]),
            ]
        )
    screen.table(("GATE", "TOKEN", "SESSION", "E (FAILS AT)", "VERDICT"), rows)
    for result in results:
        if result.verdict in {"fail", "inconclusive"}:
            screen.line(f"{result.name}: {result.why}")


def _arm(count: "Count") -> str:
    if not count.subjects:
        return "-"
    return f"{count.failures}/{count.subjects} {100 * count.failures / count.subjects:.2f}%"
