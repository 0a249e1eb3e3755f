"""Say in words which revisions a verb would write."""

from crossfade.rollout.state import CLIENTS, RolloutState
from crossfade.stores.rollout import Revision
from crossfade_migrator.plan import percent_of
from crossfade_migrator.transitions import Target, needs_widening


def steps_ahead(head: Revision, target: Target | None) -> tuple[str, ...]:
    """Return the steps of an advance; None is the end of the plan."""
    number, state = head.number + 1, head.document
    if target is None:
        return (f"revision {number}: note that the rollout is done",)
    enter = f"enter {target.name}: {changes(state, target)}"
    if not needs_widening(state, target):
        return (f"revision {number}: {enter}",)
    what = "sessions" if state.accept_token else "tokens"
    return (
        f"revision {number}: accept {what}; nothing is issued yet",
        f"revision {number + 1}, once every live instance acked: {enter}",
    )


def steps_back(head: Revision, target: Target, *, hard: bool) -> tuple[str, ...]:
    """Return the steps of a rollback; none if everything stands there already."""
    number, state = head.number + 1, head.document
    if target.is_reached(state):
        return ()
    back = f"back to {target.name}: {changes(state, target)}"
    if hard:
        return (
            f"revision {number}: {back}, at once",
            "then: revoke the signing keys, and let a new one sign",
        )
    steps = []
    if target.phase.accepts_session and not state.accept_session:
        steps.append(f"revision {number}: accept and issue sessions again")
    steps.append(f"revision {number + len(steps)}: {back}")
    if state.accept_token and not target.phase.accepts_token:
        steps.append(f"revision {number + len(steps)}, once the last token ended: refuse tokens")
    return tuple(steps)


def changes(state: RolloutState, target: Target) -> str:
    """Return what moves: `phase dual -> prefer, web 25% -> 100%`."""
    moved = [
        f"{client} {percent_of(state.issue_token[client])} -> {percent_of(target.issue[client])}"
        for client in CLIENTS
        if state.issue_token[client] != target.issue[client]
    ]
    if state.phase is not target.phase:
        moved.insert(0, f"phase {state.phase} -> {target.phase}")
    return ", ".join(moved) or "no dial moves"
