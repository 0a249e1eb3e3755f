"""Every change of the rollout document, as pure functions from one state to the next.

Accepting leads and issuing follows on the way up; on the way back issuing is narrowed first and
accepting only after the last token has ended (ADR 0004).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from crossfade.rollout.state import CLIENTS, Phase, RolloutState, RunStatus
from crossfade_migrator.errors import Misused
from crossfade_migrator.plan import Plan, Stage

NOBODY: Mapping[str, int] = dict.fromkeys(CLIENTS, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a change leads: the dials of a stage, or of a phase without a plan's stage."""

    stage: str | None
    phase: Phase
    issue: Mapping[str, int]

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.stage or str(self.phase)

    @classmethod
    def of(cls, stage: Stage | None) -> "Target":
        """Return the target of a stage; of the phase `sessions` for None."""
        if stage is None:
            return cls(stage=None, phase=Phase.SESSIONS, issue=NOBODY)
        return cls(stage=stage.name, phase=stage.phase, issue=stage.issue)

    def is_reached(self, state: RolloutState) -> bool:
        """Say whether all dials stand there already, with nothing halfway."""
        return (
            state.pending is None
            and state.narrow_at is None
            and state.stage == self.stage
            and state.phase is self.phase
            and dict(state.issue_token) == dict(self.issue)
            and state.accept_token == self.phase.accepts_token
            and state.accept_session == self.phase.accepts_session
            and state.issue_session == self.phase.issues_session
        )


def target_ahead(plan: Plan, state: RolloutState) -> Target | None:
    """Return the next stage; the one under way while converging; None behind the last."""
    if state.status is RunStatus.CONVERGING and state.pending is not None:
        return Target.of(plan.stage(state.pending["stage"]))
    stage = plan.after(state.stage)
    return None if stage is None else Target.of(stage)


def target_back(plan: Plan | None, state: RolloutState, to: str | None) -> Target:
    """Return where a rollback leads: `to` is a stage, a phase, or None for one step back.

    A way back that is halfway goes on where it was bound for; a half-made advance is undone.

    Raises:
        Misused: no such stage or phase, or one that lies ahead.
    """
    if to is None:
        return _one_step_back(plan, state)
    target = _named(plan, state, to)
    if target.phase.order > state.phase.order or _grows(target, state):
        raise Misused(f"{to} lies ahead of {state.stage or state.phase}", "use `crossfade advance`")
    return target


def needs_widening(state: RolloutState, target: Target) -> bool:
    """Say whether the target relies on a credential that is not accepted yet."""
    return (target.phase.accepts_token and not state.accept_token) or (
        target.phase.accepts_session and not state.accept_session
    )


def widen(state: RolloutState, target: Target) -> RolloutState:
    """Accept what the target relies on, and change nothing else."""
    return replace(
        state,
        accept_token=state.accept_token or target.phase.accepts_token,
        accept_session=state.accept_session or target.phase.accepts_session,
        status=RunStatus.CONVERGING,
        pending={"verb": "advance", "stage": target.stage},
        note=f"widening what is accepted, for {target.name}",
    )


def enter(state: RolloutState, target: Target, *, now: float, revision: int) -> RolloutState:
    """Put a stage into force; its clock and its evidence begin at zero."""
    return replace(
        _dials(state, target),
        accept_token=target.phase.accepts_token,
        accept_session=target.phase.accepts_session,
        status=RunStatus.BAKING,
        entered_at=now,
        stage_revision=revision,
        paused_at=None,
        paused_for=0.0,
        pending=None,
        note="",
    )


def finish(state: RolloutState) -> RolloutState:
    """Note that the last stage has baked and passed."""
    return replace(state, status=RunStatus.DONE, note="the last stage of the plan is in force")


def reopen(state: RolloutState, target: Target) -> RolloutState:
    """Accept and issue sessions again beside the tokens: the first step out of `tokens`."""
    return replace(
        state,
        phase=Phase.PREFER,
        stage=None,
        accept_session=True,
        issue_session=True,
        status=RunStatus.ROLLING_BACK,
        pending=_bound_for(target),
        narrow_at=None,
        paused_at=None,
        note=f"accepting sessions again, on the way back to {target.name}",
    )


def narrow_issuing(
    state: RolloutState, target: Target, *, now: float, revision: int, last_token: float
) -> RolloutState:
    """Issue only what the target issues, still accepting both.

    `last_token` is how many seconds a token issued just now may still be used.
    """
    is_over = target.phase.accepts_token or not state.accept_token
    return replace(
        _dials(state, target),
        accept_session=True,
        status=RunStatus.ROLLED_BACK if is_over else RunStatus.ROLLING_BACK,
        entered_at=now,
        stage_revision=revision,
        paused_at=None,
        paused_for=0.0,
        pending=None if is_over else _bound_for(target),
        narrow_at=None if is_over else now + last_token,
        note=f"back to {target.name}; nothing advances before `crossfade resume`",
    )


def narrow_accepting(state: RolloutState) -> RolloutState:
    """Accept no more than the phase does, once the last token has ended."""
    return replace(
        state,
        accept_token=state.phase.accepts_token,
        status=RunStatus.ROLLED_BACK,
        pending=None,
        narrow_at=None,
    )


def fall_back(state: RolloutState, target: Target, *, now: float, revision: int) -> RolloutState:
    """Go back in one step, tokens in use refused at once where the target refuses them."""
    return replace(
        enter(state, target, now=now, revision=revision),
        narrow_at=None,
        status=RunStatus.ROLLED_BACK,
        note=f"back to {target.name} at once; nothing advances before `crossfade resume`",
    )


def pause(state: RolloutState, *, now: float, note: str) -> RolloutState:
    """Stop the stage's clock."""
    return replace(state, status=RunStatus.PAUSED, paused_at=now, note=note)


def resume(state: RolloutState, *, now: float, revision: int) -> RolloutState:
    """Let the clock run again; after a rollback the stage begins anew, with fresh evidence."""
    if state.status is RunStatus.ROLLED_BACK:
        begun = replace(state, entered_at=now, stage_revision=revision, paused_for=0.0)
        return replace(begun, status=_standing(state), note="")
    stood = 0.0 if state.paused_at is None else now - state.paused_at
    return replace(
        state,
        status=RunStatus.CONVERGING if state.pending is not None else _standing(state),
        paused_at=None,
        paused_for=state.paused_for + stood,
        note="",
    )


def _dials(state: RolloutState, target: Target) -> RolloutState:
    return replace(
        state,
        phase=target.phase,
        stage=target.stage,
        issue_session=target.phase.issues_session,
        accept_session=state.accept_session or target.phase.issues_session,
        issue_token=dict(target.issue),
    )


def _standing(state: RolloutState) -> RunStatus:
    return RunStatus.IDLE if state.stage is None else RunStatus.BAKING


def _bound_for(target: Target) -> dict[str, str | None]:
    return {"verb": "rollback", "stage": target.stage, "phase": str(target.phase)}


def _one_step_back(plan: Plan | None, state: RolloutState) -> Target:
    if state.pending is not None:
        bound = state.pending["stage"] if state.pending["verb"] == "rollback" else state.stage
        return Target.of(plan.stage(bound) if plan is not None else None)
    return Target.of(plan.before(state.stage) if plan is not None else None)


def _named(plan: Plan | None, state: RolloutState, to: str) -> Target:
    stages = () if plan is None else plan.stages
    for stage in stages:
        if stage.name == to:
            return Target.of(stage)
    if to == Phase.SESSIONS:
        return Target.of(None)
    behind = [s for s in stages if s.phase == to and not _grows(Target.of(s), state)]
    if behind:
        return Target.of(behind[-1])
    known = ", ".join([str(Phase.SESSIONS), *(stage.name for stage in stages)])
    raise Misused(f"there is no stage or phase {to!r} to go back to", f"there is: {known}")


def _grows(target: Target, state: RolloutState) -> bool:
    return any(target.issue[client] > state.issue_token[client] for client in CLIENTS)
