"""Steer a rollout: look at the evidence, advance stage by stage, go back on harm, stop on doubt.

It calls the very verbs that an operator has and keeps nothing of its own, so it can be stopped at
any moment, and anybody can go on from there. Nothing ever advances on silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from crossfade.errors import OutcomeUnknown, RevisionConflict, StoreUnavailable
from crossfade.rollout.state import RunStatus
from crossfade.stores.rollout import Revision
from crossfade_migrator.context import Context
from crossfade_migrator.convergence import Progress, ignore
from crossfade_migrator.errors import (
    EndedByRollback,
    GateFailed,
    Held,
    Misused,
    NotConverged,
    Stopped,
    Unreachable,
)
from crossfade_migrator.gates import GateResult, Verdict, evaluate
from crossfade_migrator.guards import refuse_if_stopped, require_plan
from crossfade_migrator.plan import Plan, Stage
from crossfade_migrator.rollout import advance, pause, rollback, settle

ERRORS_IN_A_ROW = 4
"""So many looks without an answer pause the rollout: blind is no state to advance in."""


class RunEnd(StrEnum):
    """Why a run ended."""

    REACHED = "reached"
    """The stage or phase of `until` is in force."""
    DONE = "done"
    """The last stage has baked and passed."""
    ROLLED_BACK = "rolled_back"
    """A gate failed; everything is back and waits for a human."""
    PAUSED = "paused"
    """A gate failed that only pauses, an answer took too long, or nothing could be seen."""
    STOPPED = "stopped"
    """Somebody else paused, froze or rolled back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        head: the revision at the end. why: in words.
        advanced: names of the stages this run entered.
        gates: the results that ended it, empty where none did.
    """

    end: RunEnd
    head: Revision
    why: str
    advanced: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return the exit code of `crossfade run`."""
        if self.end in {RunEnd.REACHED, RunEnd.DONE}:
            return 0
        return (EndedByRollback if self.end is RunEnd.ROLLED_BACK else Stopped).exit_code


async def run(
    ctx: Context,
    *,
    until: str | None = None,
    every: float | None = None,
    reason: str = "",
    progress: Progress = ignore,
) -> RunResult:
    """Carry the rollout on until it is done, until a stage or phase, or until something forbids it.

    `every` is how many seconds lie between two looks; the plan's `evaluate_every` by default. A
    rollback that somebody left halfway is settled first.

    Raises:
        Misused: no plan, or `until` is not in it.
        Unreachable: the database is gone, and the rollout could not even be paused.
    """
    return await _Run(ctx, until=until, every=every, reason=reason, progress=progress).steer()


class _Run:
    """One run: what it entered so far and how often it could not see."""

    def __init__(
        self,
        ctx: Context,
        *,
        until: str | None,
        every: float | None,
        reason: str,
        progress: Progress,
    ) -> None:
        self._ctx = ctx
        self._until = until
        self._every = every
        self._reason = reason or "the controller"
        self._progress = progress
        self._advanced: list[str] = []
        self._errors = 0
        self._told = ""

    async def steer(self) -> RunResult:
        """Look, act, wait, again."""
        pace = self._every
        while True:
            try:
                head = await self._ctx.rollout.head()
                plan = self._plan(head)
                pace = self._every or plan.evaluate_every
                result = await self._look(head, plan)
                self._errors = 0
            except RevisionConflict as conflict:
                self._say(f"somebody else wrote revision {conflict.head}; looking again")
                continue
            except (StoreUnavailable, NotConverged) as error:
                result = await self._count_error(error)
            if result is not None:
                return result
            await self._ctx.clock.sleep(pace or _BLIND_PACE)

    def _plan(self, head: Revision) -> Plan:
        plan = require_plan(head.document)
        known = {name for stage in plan.stages for name in (stage.name, str(stage.phase))}
        if self._until is not None and self._until not in known:
            raise Misused(
                f"the plan {plan.name} has no stage or phase {self._until!r}",
                f"it has: {', '.join(stage.name for stage in plan.stages)}",
            )
        return plan

    async def _look(self, head: Revision, plan: Plan) -> RunResult | None:
        """Do what this moment asks for; None to look again later."""
        state = head.document
        if state.status is RunStatus.ROLLING_BACK:
            settled = await settle(self._ctx, wait=True, progress=self._say)
            return self._end(RunEnd.STOPPED, settled or head, "a rollback was settled")
        if state.status is RunStatus.DONE:
            return self._end(RunEnd.DONE, head, "the last stage is in force")
        try:
            refuse_if_stopped(state)
        except Stopped as stopped:
            return self._end(RunEnd.STOPPED, head, stopped.message)
        gates = await evaluate(self._ctx, head, plan)
        if harm := [g for g in gates if g.verdict is Verdict.FAIL and not g.is_observed]:
            return await self._act_on_harm(head, harm)
        self._report_observed(gates)
        if state.status is not RunStatus.CONVERGING and self._is_reached(plan.stage(state.stage)):
            return self._end(RunEnd.REACHED, head, f"{self._until} is in force")
        return await self._try_to_advance(head, plan, gates)

    def _is_reached(self, stage: Stage | None) -> bool:
        return stage is not None and self._until in {stage.name, str(stage.phase)}

    async def _act_on_harm(self, head: Revision, harm: Sequence[GateResult]) -> RunResult:
        why = "; ".join(f"gate {gate.name} failed: {gate.why}" for gate in harm)
        evidence = {"gates": [gate.as_json() for gate in harm]}
        self._say(why)
        if all(gate.on_fail == "pause" for gate in harm):
            return await self._pause(head, why, evidence, tuple(harm))
        outcome = await rollback(
            self._ctx,
            reason=why,
            wait=True,
            evidence=evidence,
            actor_kind="controller",
            progress=self._say,
        )
        last = outcome.revisions[-1] if outcome.revisions else head
        return self._end(RunEnd.ROLLED_BACK, last, why, tuple(harm))

    async def _try_to_advance(
        self, head: Revision, plan: Plan, gates: Sequence[GateResult]
    ) -> RunResult | None:
        try:
            outcome = await advance(
                self._ctx,
                reason=self._reason,
                if_revision=head.number,
                actor_kind="controller",
                progress=self._say,
            )
        except Held as held:
            return await self._hold(head, plan, held, gates)
        except (GateFailed, Stopped) as error:  # it turned meanwhile: the next look acts on it
            self._say(error.message)
            return None
        last = outcome.revisions[-1]
        if last.document.status is RunStatus.DONE:
            return self._end(RunEnd.DONE, last, "the last stage has baked and passed")
        self._advanced.append(last.document.stage or "")
        self._say(f"revision {last.number}: {last.document.stage} is in force")
        return None

    async def _hold(
        self, head: Revision, plan: Plan, held: Held, gates: Sequence[GateResult]
    ) -> RunResult | None:
        self._say(held.message)
        state, stage = head.document, plan.stage(head.document.stage)
        if stage is None:
            return None
        over = state.baked(await self._ctx.database.time()) - stage.bake
        if over <= stage.max_hold:
            return None
        why = f"no answer for {over:.0f} s beyond the bake of {stage.name}: {held.message}"
        return await self._pause(head, why, {"gates": [gate.as_json() for gate in gates]})

    async def _count_error(self, error: StoreUnavailable | NotConverged) -> RunResult | None:
        """Wait out a few errors, then pause; an error is never a verdict."""
        self._errors += 1
        self._say(f"{error} ({self._errors} in a row)")
        if self._errors < ERRORS_IN_A_ROW:
            return None
        why = f"{self._errors} looks in a row failed: {error}"
        try:
            head = await self._ctx.rollout.head()
            return await self._pause(head, why, {})
        except RevisionConflict:
            return None
        except OutcomeUnknown:
            raise
        except StoreUnavailable as gone:
            raise Unreachable(
                f"the rollout stands where it is and could not be paused: {gone}",
                "run it again when the database is back",
            ) from gone

    async def _pause(
        self,
        head: Revision,
        why: str,
        evidence: dict[str, Any],
        gates: tuple[GateResult, ...] = (),
    ) -> RunResult:
        outcome = await pause(
            self._ctx,
            reason=why,
            if_revision=head.number,
            evidence=evidence,
            actor_kind="controller",
        )
        last = outcome.revisions[-1] if outcome.revisions else head
        return self._end(RunEnd.PAUSED, last, why, gates)

    def _report_observed(self, gates: Sequence[GateResult]) -> None:
        for gate in gates:
            if gate.is_observed and gate.verdict is Verdict.FAIL:
                self._say(f"gate {gate.name} would have acted: {gate.why}")

    def _end(
        self, end: RunEnd, head: Revision, why: str, gates: tuple[GateResult, ...] = ()
    ) -> RunResult:
        self._say(why)
        return RunResult(end=end, head=head, why=why, advanced=tuple(self._advanced), gates=gates)

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._progress(text)


_BLIND_PACE = 5.0
