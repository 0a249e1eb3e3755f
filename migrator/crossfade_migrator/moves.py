"""Write the revisions of a verb, step by step, on top of whatever the head is by then."""

from collections.abc import Mapping
from typing import Any

from crossfade.errors import RevisionConflict
from crossfade.rollout.state import RolloutState, RunStatus
from crossfade.stores.rollout import ActorKind, Requirement, Revision
from crossfade_migrator import transitions
from crossfade_migrator.context import Context
from crossfade_migrator.convergence import (
    INTERVAL,
    Convergence,
    Progress,
    all_acked,
    converge,
    converge_regardless,
    enough_alive,
    not_converged,
)
from crossfade_migrator.errors import Conflict, NotConverged
from crossfade_migrator.transitions import Target

ATTEMPTS = 20
"""How often a rollback is tried on top of somebody else's change."""


class Move:
    """The revisions of one verb: all with the same author, reason and evidence."""

    def __init__(
        self,
        ctx: Context,
        verb: str,
        reason: str,
        actor_kind: ActorKind,
        evidence: Mapping[str, Any],
    ) -> None:
        self.ctx = ctx
        self.verb = verb
        self.revisions: list[Revision] = []
        self._change: dict[str, Any] = {
            "verb": verb,
            "actor": ctx.actor,
            "actor_kind": actor_kind,
            "reason": reason,
            "evidence": evidence,
        }

    async def append(
        self, head: Revision, state: RolloutState, require: Requirement | None = None
    ) -> Revision:
        """Write the next revision. Raises RevisionConflict and what `require` raises."""
        revision = await self.ctx.rollout.append(
            head.number, state, require=require, **self._change
        )
        self.revisions.append(revision)
        return revision

    async def enter(self, head: Revision, target: Target, require: Requirement) -> Revision:
        """Put a stage into force."""
        now, number = await self.ctx.database.time(), head.number + 1
        after = transitions.enter(head.document, target, now=now, revision=number)
        return await self.append(head, after, require)

    async def go_back(self, head: Revision, target: Target, *, hard: bool) -> Revision:
        """Narrow what is issued; with `hard` what is accepted too."""
        now, number = await self.ctx.database.time(), head.number + 1
        if hard:
            after = transitions.fall_back(head.document, target, now=now, revision=number)
            return await self.append(head, after)
        tokens = self.ctx.settings.tokens
        after = transitions.narrow_issuing(
            head.document,
            target,
            now=now,
            revision=number,
            last_token=tokens.access_ttl + tokens.leeway,
        )
        return await self.append(head, after)


async def widen_then_enter(
    move: Move,
    head: Revision,
    target: Target,
    *,
    wait: float,
    allow_empty: bool,
    progress: Progress,
) -> None:
    """Accept what the stage relies on, wait until all live instances do, then enter it.

    Raises:
        NotConverged: not within `wait` seconds; what was widened stays so.
        RevisionConflict, StoreUnavailable: the step was not written.
    """
    ctx = move.ctx
    if transitions.needs_widening(head.document, target):
        after = transitions.widen(head.document, target)
        head = await move.append(head, after, enough_alive(ctx, allow_empty=allow_empty))
        progress(f"revision {head.number}: {after.note}")
    deadline = ctx.clock.monotonic() + wait
    while True:
        left = max(0.0, deadline - ctx.clock.monotonic())
        if not (state := await converge(ctx, head, wait=left, progress=progress)).is_complete:
            raise not_converged(head, state)
        try:
            await move.enter(head, target, all_acked(ctx, allow_empty=allow_empty))
            return
        except NotConverged:  # an instance joined between the look and the lock
            if ctx.clock.monotonic() >= deadline:
                raise
            await ctx.clock.sleep(INTERVAL)


async def go_back(
    move: Move, target: Target, *, hard: bool, progress: Progress
) -> Convergence | None:
    """Write the steps of a rollback; None if somebody is back there already, or nobody can tell.

    Raises:
        Conflict: the head moved under each of many attempts.
        StoreUnavailable: the step was not written.
    """
    ctx = move.ctx
    for _ in range(ATTEMPTS):
        head = await ctx.rollout.head()
        if _is_under_way(head.document, target, hard=hard):
            return None
        try:
            if not hard and target.phase.accepts_session and not head.document.accept_session:
                head = await move.append(head, transitions.reopen(head.document, target))
                progress(f"revision {head.number}: {head.document.note}")
            if not hard and _is_reopened(head.document):
                await converge_regardless(ctx, head, progress=progress)
            last = await move.go_back(head, target, hard=hard)
        except RevisionConflict as conflict:
            progress(f"somebody else wrote revision {conflict.head}; going back on top of it")
            continue
        progress(f"revision {last.number}: {last.document.note}")
        return await converge_regardless(ctx, last, progress=progress)
    raise Conflict("the rollout keeps changing under the rollback", "say it again")


def _is_under_way(state: RolloutState, target: Target, *, hard: bool) -> bool:
    """Say whether somebody has already gone back there, or is waiting for the last token."""
    if target.is_reached(state):
        return True
    return (
        not hard
        and state.narrow_at is not None
        and state.stage == target.stage
        and state.phase is target.phase
    )


def _is_reopened(state: RolloutState) -> bool:
    return state.status is RunStatus.ROLLING_BACK and state.narrow_at is None
