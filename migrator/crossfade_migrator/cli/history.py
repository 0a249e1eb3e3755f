"""`crossfade history`: who changed the rollout, what, and on which evidence."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from crossfade_migrator.cli.call import Call, Verb
from crossfade_migrator.cli.screen import day_and_time, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.rollout.state import RolloutState
    from crossfade.stores.rollout import Revision
    from crossfade_migrator.cli.screen import Screen


@click.command(cls=Verb)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=10, help="How many. [10]")
@click.option("--before", type=click.IntRange(1), metavar="N", help="Go on below this revision.")
@click.option("--verify", is_flag=True, help="Check the chain of hashes; leave with 1 if broken.")
@click.pass_obj
async def history(call: Call, limit: int, before: int | None, verify: bool) -> int:
    """List the changes of the rollout, newest first."""
    from crossfade_migrator.rollout import history as read_history

    async with call.open() as context:
        # One more, to say what the oldest one shown has changed.
        found = await read_history(context, limit=limit + 1, after=before)
        faults = await context.rollout.verify() if verify else []
    revisions = found[:limit]
    document: dict[str, Any] = {"revisions": [_entry(revision) for revision in revisions]}
    if verify:
        document |= {"state": "fault" if faults else "ok", "faults": faults}
    call.answer(document, lambda screen: _show(screen, found, limit, faults if verify else None))
    return 1 if faults else 0


def change_in_words(before: "RolloutState | None", after: "RolloutState") -> str:
    """Say what a revision changed: stage, shares, what is accepted, status."""
    from crossfade.rollout.state import CLIENTS

    if before is None:
        return f"phase {after.phase}"
    words = []
    if _place(before) != _place(after):
        words.append(f"{_place(before)} → {_place(after)}")
    for kind in CLIENTS:
        old, new = before.issue_token[kind], after.issue_token[kind]
        if old != new:
            words.append(f"{kind} {percent(old)}→{percent(new)}")
    for what in ("token", "session"):
        is_accepted = getattr(after, f"accept_{what}")
        if is_accepted != getattr(before, f"accept_{what}"):
            words.append(f"{'accepts' if is_accepted else 'refuses'} {what}s")
    if before.plan != after.plan and after.plan is not None:
        words.append(f"plan {after.plan['name']}")
    return ", ".join(words) or str(after.status).replace("_", " ")


def reason_in_words(revision: "Revision") -> str:
    """Return the reason that was given, else the gates it was decided on."""
    if revision.reason:
        return revision.reason
    gates = revision.evidence.get("gates", ())
    return "; ".join(f"{_gate_name(gate)} {gate['verdict']}" for gate in gates)


def _gate_name(gate: dict[str, Any]) -> str:
    return f"{gate['gate']}:{gate['client']}" if gate.get("client") else str(gate["gate"])


def _place(state: "RolloutState") -> str:
    return state.stage or str(state.phase)


def _entry(revision: "Revision") -> dict[str, Any]:
    state = revision.document
    return {
        "revision": revision.number,
        "at": revision.created_at,
        "actor": revision.actor,
        "actor_kind": revision.actor_kind,
        "verb": revision.verb,
        "reason": revision.reason,
        "phase": state.phase,
        "stage": state.stage,
        "status": state.status,
        "issue_token": dict(state.issue_token),
        "accept_session": state.accept_session,
        "accept_token": state.accept_token,
        "evidence": dict(revision.evidence),
        "sha256": revision.sha256,
    }


def _show(
    screen: "Screen", found: "Sequence[Revision]", limit: int, faults: list[str] | None
) -> None:
    if not found:
        screen.line("nothing was changed yet: `crossfade db upgrade`")
    else:
        pairs = [*pairwise(found), (found[-1], None)][:limit]
        screen.table(
            ("REV", "WHEN", "WHO", "VERB", "CHANGE", "REASON"),
            [
                [
                    str(revision.number),
                    day_and_time(revision.created_at),
                    revision.actor.partition(" (")[0],
                    revision.verb,
                    change_in_words(former.document if former else None, revision.document),
                    reason_in_words(revision),
                ]
                for revision, former in pairs
            ],
            wraps=(4, 5),
        )
    for fault in faults or ():
        screen.line(fault, style="bold red")
    if faults == []:
        screen.line("the chain of hashes is whole", style="green")
