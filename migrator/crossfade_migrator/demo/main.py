"""Run the demo: open the shop, play the scenario, judge it, say so."""

import asyncio
import contextlib
import json as json_
import sys
from pathlib import Path
from typing import Literal

import httpx
from rich.console import Console
from rich.text import Text

from crossfade.errors import CrossfadeError
from crossfade_migrator.context import Context
from crossfade_migrator.demo.clients import Street
from crossfade_migrator.demo.crowd import Crowd
from crossfade_migrator.demo.house import House, open_house
from crossfade_migrator.demo.ledger import Ledger
from crossfade_migrator.demo.report import Report, judge, print_report, totals
from crossfade_migrator.demo.scenario import Failed, Scenario
from crossfade_migrator.demo.server import Without
from crossfade_migrator.demo.view import View
from crossfade_migrator.errors import OperatorError
from crossfade_migrator.plan import Plan
from crossfade_migrator.rollout import history

PLAN = Path(__file__).with_name("plan.toml")
_ALL = 1000


def run_demo(
    *,
    legacy: Literal["sql", "signed-cookie"] = "sql",
    json: bool = False,
    serve: bool = False,
    without: Without | None = None,
) -> int:
    """Take a shop from sessions to tokens, back, and up again; return 1 if a promise was broken.

    `without` switches a part of Crossfade off, to show that the demo would notice.
    """
    ledger = Ledger()
    with View(ledger, json=json) as view:
        report = asyncio.run(_run(legacy, ledger, view, serve=serve, json=json, without=without))
    return 0 if report.is_good else 1


async def _run(
    legacy: Literal["sql", "signed-cookie"],
    ledger: Ledger,
    view: View,
    *,
    serve: bool,
    json: bool,
    without: Without | None,
) -> Report:
    view.say("making a shop: settings, secrets, databases, two workers")
    async with open_house(legacy, without) as house:
        view.say(f"the shop is at {house.origin}, its files in {house.folder}")
        street = Street(house.origin, ledger, legacy)
        async with Context.open(house.config, actor="demo") as ctx:
            report = await _play(ctx, house, street, view)
        await street.close()
        view.stop()  # what is printed from here on stays
        _show(report, view, json=json)
        if not report.is_good:
            view.show_log(house.log)
        if serve:
            await _serve(house, view.console)
    return report


async def _play(ctx: Context, house: House, street: Street, view: View) -> Report:
    crowd, failure = Crowd(street), None
    scenario = Scenario(ctx, house, street, crowd, Plan.load(PLAN), view.say)
    try:
        await scenario.play()
    except (Failed, OperatorError, CrossfadeError) as error:
        failure = str(error)
    finally:
        await scenario.close()
        await crowd.stop()
    past = await history(ctx, limit=_ALL)
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        metrics = (await client.get(f"{house.origin}/metrics")).text
    return Report(
        legacy=street.legacy,
        ledger=street.ledger,
        users=len(crowd) + scenario.extras,
        totals=totals(metrics),
        final_phase=str(past[0].document.phase),
        invariants=judge(street.ledger, past),
        failure=failure,
    )


def _show(report: Report, view: View, *, json: bool) -> None:
    if json:
        sys.stdout.write(json_.dumps(report.as_json()) + "\n")
        sys.stdout.flush()
        return
    console = view.console
    # Eighty columns: a report that is mailed or printed must not be cut.
    print_report(report, Console(file=console.file, width=min(80, console.width), highlight=False))


async def _serve(house: House, console: Console) -> None:
    """Keep the shop up until the person at the keyboard has seen enough."""
    config = f"--config {house.config}"
    for line in (
        "",
        f"The shop stays up at {house.origin} - press Ctrl-C to end it.",
        "Log in as u001 with pw-u001, or as u010 with pw-u010 and the code 000000. Then try:",
        f"  crossfade {config} status",
        f"  crossfade {config} history",
        f"  crossfade {config} logins list u001",
        f'  crossfade {config} rollback --to sessions --reason "to see it"',
        f"  curl {house.origin}/metrics",
    ):
        console.print(Text(line), soft_wrap=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
