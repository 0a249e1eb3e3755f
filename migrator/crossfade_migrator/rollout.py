"""The verbs that move a rollout: apply a plan, advance, pause, resume, go back, look at the past.

Each is an ordinary coroutine of a Context; the command line, the controller and the demo call the
same ones. Advancing is refused on every doubt; going back works in every status.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crossfade.errors import ConfigurationError, RevisionConflict, StoreUnavailable
from crossfade.rollout.state import RolloutState, RunStatus
from crossfade.stores.rollout import ActorKind, Revision
from crossfade_migrator import transitions
from crossfade_migrator.context import Context
from crossfade_migrator.convergence import (
    Convergence,
    Progress,
    converge,
    converge_regardless,
    ignore,
)
from crossfade_migrator.durations import span
from crossfade_migrator.errors import FaultFound, Held, Misconfigured, Misused, Stopped
from crossfade_migrator.gates import GateResult, evaluate
from crossfade_migrator.guards import (
    check_force,
    check_replacement,
    held_by,
    refuse_if_stopped,
    require_plan,
    words,
)
from crossfade_migrator.impact import Impact, impact
from crossfade_migrator.lint import lint
from crossfade_migrator.moves import ATTEMPTS, Move, go_back, widen_then_enter
from crossfade_migrator.plan import Plan, stored_plan
from crossfade_migrator.status import StatusReport, status
from crossfade_migrator.steps import steps_ahead, steps_back

__all__ = [
    "Impact",
    "Outcome",
    "StatusReport",
    "advance",
    "apply_plan",
    "history",
    "impact",
    "pause",
    "resume",
    "rollback",
    "settle",
    "status",
    "stored_plan",
]

WAIT = 60.0
"""Seconds that an advance waits for the fleet by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a verb did, or with `dry_run` would do.

    Attributes:
        target: stage or phase that it leads to, as `rollback(to=…)` takes it; empty for others.
        before, after: the document; equal if nothing had to change.
        revisions: those written, in order.
        steps: what was or would be written, in words.
        blocked: what forbids it now, in words; only with `dry_run`, else the verb raises.
        gates: results that were looked at.
        impact: whom it logs out; for changes of what is accepted or issued.
        convergence: how far the fleet follows the last revision; None if nobody waited or knows.
    """

    verb: str
    target: str = ""
    before: RolloutState = field(repr=False)
    after: RolloutState = field(repr=False)
    revisions: tuple[Revision, ...] = ()
    steps: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()
    impact: Impact | None = None
    convergence: Convergence | None = None
    is_dry_run: bool = False

    @property
    def has_changed(self) -> bool:
        """Say whether a revision was written."""
        return bool(self.revisions)


async def apply_plan(
    ctx: Context,
    plan: Plan,
    *,
    reason: str = "",
    if_revision: int | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Store a plan as the next revision. Nothing moves until `advance` or `run`.

    Raises:
        FaultFound: the lint finds an error.
        Misused: the salt differs, or the stage in force is missing, while a rollout is under way.
        RevisionConflict, StoreUnavailable: nothing was written.
    """
    head = await _head(ctx, if_revision)
    state = head.document
    faults = [f for f in lint(plan, ctx.settings) if f.level == "error"]
    if faults:
        raise FaultFound(
            f"{faults[0].where}: {faults[0].text}"
            + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""),
            "see all with `crossfade plan lint`",
        )
    check_replacement(plan, state)
    after = replace(state, plan=dict(plan.document), salt=plan.salt)
    steps = (f"store the plan {plan.name}: {', '.join(s.name for s in plan.stages)}",)
    if dry_run or after == state:
        return Outcome(verb="plan", before=state, after=after, steps=steps, is_dry_run=dry_run)
    revision = await ctx.rollout.append(
        head.number, after, verb="plan", actor=ctx.actor, reason=reason
    )
    return Outcome(verb="plan", before=state, after=after, revisions=(revision,), steps=steps)


async def advance(
    ctx: Context,
    *,
    force: Sequence[str] = (),
    reason: str = "",
    if_revision: int | None = None,
    wait: float = WAIT,
    dry_run: bool = False,
    allow_empty: bool = False,
    actor_kind: ActorKind = "human",
    progress: Progress = ignore,
) -> Outcome:
    """Enter the next stage: widen what is accepted, wait for all acks, then issue.

    On the last stage it only notes that the rollout is done. `force` names gates (`auth-failure`,
    `auth-failure:web`, `canary`) or `bake`, needs a reason and holds once.

    Raises:
        GateFailed, Held, Stopped: nothing was written.
        NotConverged: an instance does not follow within `wait` seconds; said again, it goes on.
        RevisionConflict, StoreUnavailable: the step was not written; OutcomeUnknown: perhaps.
    """
    head = await _head(ctx, if_revision)
    plan = require_plan(head.document)
    refuse_if_stopped(head.document)
    target = transitions.target_ahead(plan, head.document)
    gates = await evaluate(ctx, head, plan)
    check_force(force, reason, gates)
    held = await held_by(ctx, head.document, plan, gates, force)
    before = head.document
    outcome = Outcome(
        verb="advance",
        target="" if target is None else target.name,
        before=before,
        after=before,
        steps=steps_ahead(head, target),
        blocked=tuple(str(error) for error in held),
        gates=tuple(gates),
        impact=None if target is None else await impact(ctx, before, target),
        is_dry_run=dry_run,
    )
    if dry_run:
        return outcome
    if held:
        raise held[0]
    evidence = {"gates": [gate.as_json() for gate in gates], "forced": list(force)}
    move = Move(ctx, "advance", reason, actor_kind, evidence)
    if target is None:
        await move.append(head, transitions.finish(before))
    else:
        await widen_then_enter(
            move, head, target, wait=wait, allow_empty=allow_empty, progress=progress
        )
    return replace(
        outcome,
        after=move.revisions[-1].document,
        revisions=tuple(move.revisions),
        convergence=await _follow(ctx, move.revisions[-1], wait, progress),
    )


async def pause(
    ctx: Context,
    *,
    reason: str,
    if_revision: int | None = None,
    dry_run: bool = False,
    evidence: Mapping[str, Any] | None = None,
    actor_kind: ActorKind = "human",
) -> Outcome:
    """Stop the stage's clock; nothing advances until `resume`. Paused already is fine.

    Raises:
        Stopped: the rollout is going or has gone back, which stops it anyway.
        RevisionConflict, StoreUnavailable: nothing was written.
    """
    head = await _head(ctx, if_revision)
    state = head.document
    if state.status in {RunStatus.ROLLING_BACK, RunStatus.ROLLED_BACK}:
        raise Stopped(f"the rollout is {words(state.status)}: nothing advances anyway")
    if state.status is RunStatus.PAUSED:
        return Outcome(verb="pause", before=state, after=state, is_dry_run=dry_run)
    after = transitions.pause(state, now=await ctx.database.time(), note=reason)
    return await _one_step(
        Move(ctx, "pause", reason, actor_kind, evidence or {}),
        head,
        after,
        "stop the clock",
        dry_run,
    )


async def resume(
    ctx: Context,
    *,
    reason: str = "",
    if_revision: int | None = None,
    wait: bool = True,
    dry_run: bool = False,
    progress: Progress = ignore,
) -> Outcome:
    """Let the rollout go on after a pause or a rollback. What runs already is left as it is.

    A rollback that is not settled yet is settled first; with `wait` false that is refused if it is
    not due.

    Raises:
        Held: tokens issued before the rollback still live.
        RevisionConflict, StoreUnavailable: nothing was written.
    """
    head = await _head(ctx, if_revision)
    state = head.document
    if state.status is RunStatus.ROLLING_BACK and dry_run:
        state = transitions.narrow_accepting(state)
    elif state.status is RunStatus.ROLLING_BACK:
        await settle(ctx, wait=wait, progress=progress)
        head = await ctx.rollout.head()
        state = head.document
    if state.status not in {RunStatus.PAUSED, RunStatus.ROLLED_BACK}:
        return Outcome(verb="resume", before=state, after=state, is_dry_run=dry_run)
    now = await ctx.database.time()
    after = transitions.resume(state, now=now, revision=head.number + 1)
    return await _one_step(
        Move(ctx, "resume", reason, "human", {}), head, after, "let the clock run", dry_run
    )


async def rollback(
    ctx: Context,
    *,
    reason: str,
    to: str | None = None,
    hard: bool = False,
    wait: bool = False,
    dry_run: bool = False,
    evidence: Mapping[str, Any] | None = None,
    actor_kind: ActorKind = "human",
    progress: Progress = ignore,
) -> Outcome:
    """Go back to a stage, to a phase, or one step; in every status, whatever gates say.

    The target is fixed at the first look; if somebody else writes meanwhile, it is tried again on
    top of that. With `wait` it lasts until accepting is narrowed too; without, `run`, `resume` or
    another `rollback --wait` does that. `hard` does all in one revision and revokes the signing
    keys: an instance that is cut off goes on for `max_staleness` at most.

    Raises:
        Misused: no reason, or a target that is unknown or lies ahead.
        StoreUnavailable: the step was not written; OutcomeUnknown: perhaps.
    """
    if not reason.strip():
        raise Misused("a rollback needs a reason", 'say why: --reason "…"')
    head = await ctx.rollout.head()
    before = head.document
    target = transitions.target_back(_readable_plan(before), before, to)
    outcome = Outcome(
        verb="rollback",
        target=target.name,
        before=before,
        after=before,
        steps=steps_back(head, target, hard=hard),
        is_dry_run=dry_run,
    )
    if dry_run:
        return replace(outcome, impact=await impact(ctx, before, target, hard=hard))
    move = Move(ctx, "rollback", reason, actor_kind, evidence or {})
    convergence = await go_back(move, target, hard=hard, progress=progress)
    if hard:
        revoked = await _distrust_keys(ctx)
        progress(f"signing keys revoked: {', '.join(revoked) or 'none'}; a new one signs")
    try:
        settled = await settle(ctx, wait=True, progress=progress) if wait else None
        move.revisions += [settled] if settled is not None else []
        counted = await impact(ctx, before, target, hard=hard)
    except StoreUnavailable as error:  # what is written must not be reported as a failure
        progress(f"the rollback is written, the rest is left to `crossfade resume`: {error}")
        counted = None
    return replace(
        outcome,
        after=move.revisions[-1].document if move.revisions else before,
        revisions=tuple(move.revisions),
        impact=counted,
        convergence=convergence,
    )


async def _distrust_keys(ctx: Context) -> list[str]:
    """Revoke the signing keys; after the narrowing, which must not wait for a secret."""
    tokens = ctx.settings.tokens
    horizon = tokens.access_ttl + tokens.leeway + tokens.max_staleness
    try:
        return await ctx.keys.distrust(tokens.algorithm, horizon=horizon, actor=ctx.actor)
    except ConfigurationError as error:
        raise FaultFound(
            f"the rollback is written, but the signing keys are not revoked: {error}",
            "mend that and repeat the same command: it goes on where it stopped",
        ) from error


async def settle(
    ctx: Context, *, wait: bool, actor_kind: ActorKind = "human", progress: Progress = ignore
) -> Revision | None:
    """Narrow what is accepted at the end of a rollback; None if there is nothing to settle.

    Raises:
        Held: the last token still lives, and `wait` is false.
        StoreUnavailable: nothing was written.
    """
    for _ in range(ATTEMPTS):
        head = await ctx.rollout.head()
        state = head.document
        if state.status is not RunStatus.ROLLING_BACK:
            return None
        if (
            state.narrow_at is None
        ):  # the first step out of `tokens` was written and its writer died
            target = transitions.target_back(_readable_plan(state), state, None)
            move = Move(ctx, "rollback", head.reason, actor_kind, head.evidence)
            await go_back(move, target, hard=False, progress=progress)
            continue
        remaining = state.narrow_at - await ctx.database.time()
        if remaining > 0 and not wait:
            raise Held(
                f"tokens issued before the rollback live for {span(remaining)} more",
                "wait, or say `crossfade resume --wait`",
            )
        if remaining > 0:
            progress(f"tokens issued before live for {span(remaining)} more")
            await ctx.clock.sleep(remaining)
        await converge_regardless(ctx, head, progress=progress)
        move = Move(ctx, "settle", head.reason, actor_kind, {})
        try:
            return await move.append(head, transitions.narrow_accepting(state))
        except RevisionConflict:
            continue
    raise Held("the rollout keeps changing", "say it again")


async def history(ctx: Context, *, limit: int = 20, after: int | None = None) -> list[Revision]:
    """Return revisions, newest first, below number `after` if given. Raises StoreUnavailable."""
    return await ctx.rollout.history(limit, after)


def _readable_plan(state: RolloutState) -> Plan | None:
    """Return the stored plan; None too if it cannot be read, which must not bar the way back."""
    try:
        return stored_plan(state)
    except Misconfigured:
        return None


async def _one_step(
    move: Move, head: Revision, after: RolloutState, step: str, dry_run: bool
) -> Outcome:
    outcome = Outcome(
        verb=move.verb,
        before=head.document,
        after=after,
        steps=(f"revision {head.number + 1}: {step}",),
        is_dry_run=dry_run,
    )
    if dry_run:
        return outcome
    return replace(outcome, revisions=(await move.append(head, after),))


async def _head(ctx: Context, if_revision: int | None) -> Revision:
    head = await ctx.rollout.head()
    if if_revision is not None and head.number != if_revision:
        raise RevisionConflict(if_revision, head.number)
    return head


async def _follow(
    ctx: Context, revision: Revision, wait: float, progress: Progress
) -> Convergence | None:
    """Watch the fleet take up what is written already; nothing can fail any more."""
    try:
        return await converge(ctx, revision, wait=wait, progress=progress)
    except StoreUnavailable:
        return None
