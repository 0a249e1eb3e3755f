"""Where a rollout stands, why it waits, and what unblocks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossfade.rollout.state import CLIENTS, RolloutState, RunStatus
from crossfade.stores.instances import InstanceRow
from crossfade.stores.rollout import Revision
from crossfade_migrator import transitions
from crossfade_migrator.context import Context
from crossfade_migrator.convergence import Convergence, measure
from crossfade_migrator.durations import span
from crossfade_migrator.gates import CANARY, GateResult, Verdict, evaluate
from crossfade_migrator.plan import Plan, Stage, stored_plan
from crossfade_migrator.transitions import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Everything `crossfade status` shows.

    Attributes:
        status: as stored, or `held` where bake is over and a gate is inconclusive.
        stage_number, stage_count: place in the plan, 0 before the first.
        baked, bake: seconds; 0 without a stage.
        next_stage: None behind the last.
        gates: results at this moment. instances: with the vanished ones.
        why: what it waits for; empty if `advance` would go through. unblocks: what helps.
    """

    head: Revision
    status: RunStatus
    plan_name: str | None
    stage_number: int
    stage_count: int
    baked: float
    bake: float
    next_stage: str | None
    narrow_in: float | None
    gates: tuple[GateResult, ...]
    instances: tuple[InstanceRow, ...]
    convergence: Convergence
    why: tuple[str, ...]
    unblocks: tuple[str, ...]

    @property
    def state(self) -> RolloutState:
        """Return the rollout document."""
        return self.head.document

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        state = self.state
        return {
            "revision": self.head.number,
            "sha256": self.head.sha256,
            "plan": self.plan_name,
            "stage": state.stage,
            "stage_number": self.stage_number,
            "stage_count": self.stage_count,
            "phase": state.phase,
            "status": self.status,
            "mode": state.mode,
            "leader": state.leader,
            "accept": {"session": state.accept_session, "token": state.accept_token},
            "issue": {"session": state.issue_session, "token": _percents(state)},
            "baked_seconds": round(self.baked, 3),
            "bake_seconds": self.bake,
            "next_stage": self.next_stage,
            "narrow_in_seconds": self.narrow_in,
            "gates": [gate.as_json() for gate in self.gates],
            "instances": {
                "live": self.convergence.live,
                "acked": self.convergence.acked,
                "laggards": list(self.convergence.laggards),
            },
            "note": state.note,
            "why": list(self.why),
            "unblocks": list(self.unblocks),
        }


async def status(ctx: Context) -> StatusReport:
    """Gather the state, the evidence and the fleet. Raises StoreUnavailable."""
    head = await ctx.rollout.head()
    state, plan = head.document, stored_plan(head.document)
    instances = await ctx.instances.live(ctx.settings.rollout.instance_ttl)
    now = await ctx.database.time()
    stage = plan.stage(state.stage) if plan is not None else None
    ahead = transitions.target_ahead(plan, state) if plan is not None else None
    gates = tuple(await evaluate(ctx, head, plan))
    convergence = measure(instances, head)
    baked = state.baked(now) if stage is not None else 0.0
    reasons = _reasons(state, plan, stage, ahead, gates, convergence, now)
    return StatusReport(
        head=head,
        status=_effective(state, stage, baked, gates),
        plan_name=None if plan is None else plan.name,
        stage_number=0 if plan is None or stage is None else plan.stages.index(stage) + 1,
        stage_count=0 if plan is None else len(plan.stages),
        baked=baked,
        bake=0.0 if stage is None else stage.bake,
        next_stage=None if ahead is None else ahead.name,
        narrow_in=None if state.narrow_at is None else max(0.0, state.narrow_at - now),
        gates=gates,
        instances=tuple(instances),
        convergence=convergence,
        why=tuple(why for why, _ in reasons),
        unblocks=tuple(unblocks for _, unblocks in reasons if unblocks),
    )


def _reasons(
    state: RolloutState,
    plan: Plan | None,
    stage: Stage | None,
    ahead: Target | None,
    gates: tuple[GateResult, ...],
    convergence: Convergence,
    now: float,
) -> list[tuple[str, str]]:
    """Return (why it waits, what unblocks it), the most basic first."""
    if plan is None:
        return [("no plan is applied", "crossfade plan apply plan.toml")]
    if (stopped := _stopped(state, now)) is not None:
        return [stopped]
    reasons = []
    if not convergence.live:
        reasons.append(("no live instance", "start the application"))
    elif not convergence.is_complete:
        reasons.append(
            (f"not on this revision: {', '.join(convergence.laggards)}", "crossfade instances")
        )
    reasons += [
        (f"gate {gate.name} {_verb(gate)}: {gate.why}", _mend(gate))
        for gate in gates
        if gate.blocks
    ]
    remaining = 0.0 if stage is None else stage.bake - state.baked(now)
    if remaining > 0:
        reasons.append((f"bakes for {span(remaining)} more", "time"))
    if not reasons and ahead is not None:
        return [(f"nothing: {ahead.name} may begin", "crossfade advance, or crossfade run")]
    return reasons


def _stopped(state: RolloutState, now: float) -> tuple[str, str] | None:
    if state.frozen:
        return ("frozen", "whoever froze it must unfreeze it")
    if state.status is RunStatus.PAUSED:
        return (f"paused: {state.note}", "crossfade resume")
    if state.status is RunStatus.ROLLED_BACK:
        return (f"rolled back: {state.note}", "crossfade resume")
    if state.status is RunStatus.ROLLING_BACK:
        if state.narrow_at is None or state.narrow_at <= now:
            return ("the rollback is not settled", "crossfade resume, or crossfade rollback --wait")
        return (f"the last token ends in {span(state.narrow_at - now)}", "time, then resume")
    if state.status is RunStatus.DONE:
        return ("done: the last stage is in force", "")
    return None


def _effective(
    state: RolloutState, stage: Stage | None, baked: float, gates: tuple[GateResult, ...]
) -> RunStatus:
    if state.frozen:
        return RunStatus.FROZEN
    is_over = stage is not None and baked >= stage.bake
    if state.status is RunStatus.BAKING and is_over and any(gate.blocks for gate in gates):
        return RunStatus.HELD
    return state.status


def _verb(gate: GateResult) -> str:
    return "fails" if gate.verdict is Verdict.FAIL else "is inconclusive"


def _mend(gate: GateResult) -> str:
    if gate.verdict is Verdict.FAIL:
        return "crossfade rollback"
    if gate.gate == CANARY:
        return "time: each instance verifies the canary every few seconds"
    return f'traffic, or crossfade advance --force {gate.name} --reason "…"'


def _percents(state: RolloutState) -> Mapping[str, float]:
    return {client: state.issue_token[client] / 1000 for client in CLIENTS}
