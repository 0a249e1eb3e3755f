"""What forbids a change now, each with the mend in words."""

from collections.abc import Sequence

from crossfade.rollout.state import RolloutState, RunStatus
from crossfade_migrator.context import Context
from crossfade_migrator.durations import span
from crossfade_migrator.errors import GateFailed, Held, Misused, OperatorError, Stopped
from crossfade_migrator.gates import GateResult, Verdict
from crossfade_migrator.plan import Plan, stored_plan

BAKE = "bake"
"""What `--force` calls the bake time."""

_STANDING = frozenset(
    {RunStatus.PAUSED, RunStatus.FROZEN, RunStatus.ROLLING_BACK, RunStatus.ROLLED_BACK}
)


def require_plan(state: RolloutState) -> Plan:
    """Return the stored plan. Raises Misused if there is none."""
    plan = stored_plan(state)
    if plan is None:
        raise Misused("no plan is applied", "crossfade plan apply plan.toml")
    return plan


def refuse_if_stopped(state: RolloutState) -> None:
    """Raise Stopped where a human must act first, Misused where nothing is left to do."""
    if state.frozen:
        raise Stopped("the rollout is frozen", "whoever froze it must unfreeze it")
    if state.status is RunStatus.DONE:
        raise Misused("the rollout is done: the last stage is in force")
    if state.status in _STANDING:
        raise Stopped(f"the rollout is {words(state.status)}: {state.note}", "crossfade resume")


def check_force(force: Sequence[str], reason: str, gates: Sequence[GateResult]) -> None:
    """Refuse to force what is not there, or without a reason. Raises Misused."""
    known = {BAKE} | {name for gate in gates for name in (gate.gate, gate.name)}
    if unknown := [name for name in force if name not in known]:
        raise Misused(
            f"nothing called {unknown[0]!r} can be forced now",
            f"there is: {', '.join(sorted(known))}",
        )
    if force and not reason.strip():
        raise Misused("forcing needs a reason", 'say why: --reason "…"')


async def held_by(
    ctx: Context,
    state: RolloutState,
    plan: Plan,
    gates: Sequence[GateResult],
    force: Sequence[str],
) -> list[OperatorError]:
    """Return what forbids to advance now, failing gates first."""
    is_converging = state.status is RunStatus.CONVERGING
    failed: list[OperatorError] = []
    held: list[OperatorError] = []
    for gate in gates:
        if not gate.blocks or {gate.gate, gate.name} & set(force):
            continue
        hint = f'crossfade advance --force {gate.name} --reason "…"'
        if gate.verdict is Verdict.FAIL:
            failed.append(GateFailed(f"gate {gate.name} fails: {gate.why}", "`crossfade rollback`"))
        elif not is_converging:  # the decision was taken; instances still warm up
            held.append(
                Held(f"gate {gate.name} is inconclusive: {gate.why}", f"traffic, or {hint}")
            )
    stage = plan.stage(state.stage)
    if stage is not None and not is_converging and BAKE not in force:
        remaining = stage.bake - state.baked(await ctx.database.time())
        if remaining > 0:
            text = f"{stage.name} bakes for {span(remaining)} more of {span(stage.bake)}"
            held.append(Held(text, 'wait, or crossfade advance --force bake --reason "…"'))
    return [*failed, *held]


def check_replacement(plan: Plan, state: RolloutState) -> None:
    """Keep a new plan from moving people while a rollout is under way. Raises Misused."""
    old = stored_plan(state)
    is_under_way = state.stage is not None or state.pending is not None
    if old is None or not (is_under_way or state.stage_revision):
        return
    if plan.salt != old.salt and (is_under_way or plan.name == old.name):
        raise Misused(
            "the salt is fixed once a plan has begun: another one would pick other people",
            f'keep salt = "{old.salt}", or go back to sessions and give the plan a new name',
        )
    if state.pending is not None:
        plan.stage(state.pending["stage"])
    if (stage := plan.stage(state.stage)) is None:
        return
    if stage.phase is not state.phase or dict(stage.issue) != dict(state.issue_token):
        raise Misused(f"stage {stage.name} is in force and the new plan changes its dials")


def words(status: RunStatus) -> str:
    """Write a status as people say it."""
    return status.replace("_", " ")
