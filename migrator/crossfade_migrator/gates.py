"""Say from the evidence whether a stage harms people: the sequential test, the canary, the verdict.

The test may be looked at as often as one likes without raising its false alarms (Ville's
inequality), and it needs no minimum to find a large fault: three failures can be enough.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from crossfade.rollout.bucketing import BUCKETS
from crossfade.rollout.state import RolloutState
from crossfade.stores.gates import Count, Window
from crossfade.stores.instances import InstanceRow
from crossfade.stores.rollout import Revision
from crossfade_migrator.context import Context
from crossfade_migrator.plan import SKIPPED_ABOVE, Gate, Plan, Stage, percent_of

RATIOS = (1.5, 2.0, 4.0, 10.0, 50.0)
"""How many times likelier than session subjects token subjects might fail, were tokens at fault."""

CANARY = "canary"
"""Name of the built-in gate that watches every stage in which tokens are accepted."""

_LARGEST_EXPONENT = 700.0
_LARGEST_SHARE = SKIPPED_ABOVE / BUCKETS
_NOBODY = Count()


class Verdict(StrEnum):
    """What one gate says."""

    PASS = "pass"
    """Enough evidence, and no harm in it."""
    FAIL = "fail"
    """Harm."""
    INCONCLUSIVE = "inconclusive"
    """Not enough evidence yet: hold."""
    SKIPPED = "skipped"
    """Cannot be tested at this share, and enough people were seen: does not hold anything up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate says about one client kind.

    Attributes:
        client: empty for the canary, which watches instances.
        why: the numbers in words.
        e: the e-value; None where none was computed. threshold: fails from there on.
        token, session: subjects and counted failures by arm.
        is_observed: only reports; neither holds nor rolls back.
        on_fail: `rollback` or `pause`.
    """

    gate: str
    client: str
    verdict: Verdict
    why: str
    e: float | None = None
    threshold: float | None = None
    token: Count = _NOBODY
    session: Count = _NOBODY
    is_observed: bool = False
    on_fail: str = "rollback"

    @property
    def name(self) -> str:
        """Return gate and client kind as `--force` takes them: `auth-failure:web`, `canary`."""
        return f"{self.gate}:{self.client}" if self.client else self.gate

    @property
    def blocks(self) -> bool:
        """Say whether nothing may advance because of it."""
        return not self.is_observed and self.verdict in {Verdict.FAIL, Verdict.INCONCLUSIVE}

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, as evidence is kept."""
        return {
            "gate": self.gate,
            "client": self.client,
            "verdict": self.verdict,
            "why": self.why,
            "e": self.e,
            "threshold": self.threshold,
            "token": {"subjects": self.token.subjects, "failures": self.token.failures},
            "session": {"subjects": self.session.subjects, "failures": self.session.failures},
            "observed": self.is_observed,
        }


def e_value(windows: Iterable[Window]) -> float:
    """Return the evidence against "tokens fail no more often than sessions", 1 at the start.

    Windows with an empty arm, or with more than 95 % of people in the token arm, say nothing.
    """
    logs = dict.fromkeys(RATIOS, 0.0)
    for window in windows:
        everybody = window.token_subjects + window.session_subjects
        share = window.token_subjects / everybody if everybody else 0.0
        if not 0.0 < share <= _LARGEST_SHARE:
            continue
        for ratio in RATIOS:
            # Were the ratio true, that part of the failures would be in the token arm.
            expected = share * ratio / (share * ratio + 1 - share)
            logs[ratio] += window.token_failures * math.log(expected / share)
            logs[ratio] += window.session_failures * math.log((1 - expected) / (1 - share))
    # Cut, so that a hopeless fault is a large number and no overflow; JSON has no infinity.
    return sum(math.exp(min(log, _LARGEST_EXPONENT)) for log in logs.values()) / len(RATIOS)


def compare(
    gate: Gate,
    client: str,
    stage: Stage,
    *,
    counts: Mapping[tuple[str, str], Count],
    windows: Sequence[Window],
    threshold: float,
    on_fail: str = "rollback",
) -> GateResult:
    """Compare the two arms of one client kind in one stage."""
    token = counts.get((client, "token"), _NOBODY)
    session = counts.get((client, "session"), _NOBODY)
    e = e_value(windows)
    share = stage.issue[client]
    if share <= SKIPPED_ABOVE and e >= threshold:
        verdict, why = Verdict.FAIL, f"{_arms(token, session)}: E={e:.4g} reached {threshold:.4g}"
    elif token.subjects < stage.min_subjects:
        verdict = Verdict.INCONCLUSIVE
        why = f"{token.subjects}/{stage.min_subjects} token subjects seen"
    elif share > SKIPPED_ABOVE:
        verdict = Verdict.SKIPPED
        why = f"at {percent_of(share)} nobody is left to compare with"
    elif session.subjects == 0 and stage.min_subjects > 0:
        verdict, why = Verdict.INCONCLUSIVE, "no session subjects seen to compare with"
    else:
        verdict, why = Verdict.PASS, f"{_arms(token, session)}: E={e:.4g} of {threshold:.4g}"
    return GateResult(
        gate=gate.name,
        client=client,
        verdict=verdict,
        why=why,
        e=e,
        threshold=threshold,
        token=token,
        session=session,
        is_observed=gate.mode == "observe",
        on_fail=gate.on_fail or on_fail,
    )


def canary(instances: Sequence[InstanceRow], *, patience: float) -> GateResult:
    """Ask what every live instance found when it last verified the canary token.

    A finding older than `patience` seconds is none: who stopped to look proves nothing.
    """
    alive = [one for one in instances if not one.is_vanished]
    lately = [one for one in alive if one.canary is not None and one.canary.age <= patience]
    failing = [one for one in lately if one.canary is not None and not one.canary.ok]
    silent = [one for one in alive if one not in lately]
    if failing:
        named = ", ".join(f"{one.name} ({one.canary.why})" for one in failing if one.canary)
        verdict, why = Verdict.FAIL, f"{len(failing)} of {len(alive)} refuse it: {named}"
    elif not alive:
        verdict, why = Verdict.INCONCLUSIVE, "no live instance"
    elif silent:
        verdict, why = Verdict.INCONCLUSIVE, f"not verified lately by {_names(silent)}"
    else:
        verdict, why = Verdict.PASS, f"verified by {len(alive)} of {len(alive)} instances"
    return GateResult(gate=CANARY, client="", verdict=verdict, why=why)


async def evaluate(ctx: Context, head: Revision, plan: Plan | None) -> list[GateResult]:
    """Evaluate the gates of the stage in force and, where tokens are accepted, the canary.

    Raises:
        StoreUnavailable: no evidence could be had; that is an error, never a verdict.
    """
    results: list[GateResult] = []
    state = head.document
    if state.accept_token:
        instances = await ctx.instances.live(ctx.settings.rollout.instance_ttl)
        results.append(canary(instances, patience=_patience(ctx)))
    stage = plan.stage(state.stage) if plan is not None else None
    if plan is not None and stage is not None:
        results += await _evaluate_stage(ctx, state, plan, stage)
    return results


async def _evaluate_stage(
    ctx: Context, state: RolloutState, plan: Plan, stage: Stage
) -> list[GateResult]:
    watched = list(stage.watches())
    if not watched:
        return []
    counts = await ctx.gates.counts(state.stage_revision)
    windows = await ctx.gates.windows(
        state.stage_revision, since=state.entered_at, width=plan.evaluate_every
    )
    return [
        compare(
            gate,
            client,
            stage,
            counts=counts,
            windows=windows.get(client, []),
            threshold=plan.threshold(),
            on_fail=plan.on_fail,
        )
        for gate, client in watched
    ]


def _patience(ctx: Context) -> float:
    rollout = ctx.settings.rollout
    return 3 * rollout.canary + 2 * rollout.heartbeat


def _arms(token: Count, session: Count) -> str:
    return f"token {token.failures}/{token.subjects}, session {session.failures}/{session.subjects}"


def _names(instances: Sequence[InstanceRow]) -> str:
    return ", ".join(one.name for one in instances)
