"""Find what is unsafe or unwise in a plan before it is stored."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from crossfade.rollout.bucketing import BUCKETS
from crossfade.rollout.state import CLIENTS, Phase
from crossfade.settings import Seconds, Settings
from crossfade_migrator.plan import (
    AVAILABLE_GATES,
    KNOWN_GATES,
    SKIPPED_ABOVE,
    Plan,
    Stage,
    longest_session,
    percent_of,
)

Level = Literal["error", "warning", "info"]

DAY = 86400.0
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LARGEST_BUDGET = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One remark. An `error` keeps the plan from being stored; `where` names stage, gate or key."""

    level: Level
    where: str
    text: str


def lint(
    plan: Plan, settings: Settings, traffic: Mapping[str, float] | None = None
) -> list[Finding]:
    """Return all findings, errors first.

    `traffic` is client kind -> active subjects a day, for the expected time to enough evidence.
    """
    rules = (_heading(plan), _gates(plan), _names(plan), _order(plan), _shares(plan))
    findings = [finding for rule in rules for finding in rule]
    findings += _way_to_tokens(plan, settings)
    findings += _evidence(plan, settings)
    findings += _waiting(plan, traffic or {})
    return sorted(findings, key=lambda finding: _LEVELS.index(finding.level))


_LEVELS: tuple[Level, ...] = ("error", "warning", "info")


def _error(where: str, text: str) -> Finding:
    return Finding(level="error", where=where, text=text)


def _warning(where: str, text: str) -> Finding:
    return Finding(level="warning", where=where, text=text)


def _heading(plan: Plan) -> Iterator[Finding]:
    if not _NAME.fullmatch(plan.name):
        yield _error("name", "use lower-case letters, digits, dots and dashes")
    if not plan.salt or ":" in plan.salt:
        # `salt:client:subject` is hashed: a colon would let two salts put people alike.
        yield _error("salt", "give it a text without a colon; it is fixed once the plan has begun")
    if not 0 < plan.false_rollback_budget <= _LARGEST_BUDGET:
        yield _error("false_rollback_budget", "must be above 0 and at most 0.5")
    if plan.evaluate_every <= 0:
        yield _error("defaults.evaluate_every", "must be longer than nothing")
    if not plan.stages:
        yield _error("stage", "the plan has no stages")


def _gates(plan: Plan) -> Iterator[Finding]:
    names = [gate.name for gate in plan.gates]
    used = {gate.name for stage in plan.stages for gate in stage.gates}
    for gate in plan.gates:
        if gate.kind not in KNOWN_GATES:
            yield _error(f"gate {gate.name}", f"there is no kind {gate.kind!r}; use compare")
        elif gate.kind not in AVAILABLE_GATES:
            yield _error(f"gate {gate.name}", f"kind {gate.kind} is not available yet; use compare")
        if not gate.clients:
            yield _error(f"gate {gate.name}", "`clients` is empty: name those to watch")
        if gate.name == "canary":
            yield _error("gate canary", "the canary is built in and watches every stage: rename it")
        if gate.name not in used:
            yield _warning(f"gate {gate.name}", "no stage is watched by it")
    for name in _twice(names):
        yield _error(f"gate {name}", "two gates have this name")


def _names(plan: Plan) -> Iterator[Finding]:
    for stage in plan.stages:
        where = f"stage {stage.name}"
        if not _NAME.fullmatch(stage.name):
            yield _error(where, "use lower-case letters, digits, dots and dashes in its name")
        if stage.name in set(Phase) and stage.name != stage.phase:
            yield _error(where, f"is named for another phase than its own, {stage.phase}")
        if stage.min_subjects < 0:
            yield _error(where, "min_subjects must not be negative")
    for name in _twice([stage.name for stage in plan.stages]):
        yield _error(f"stage {name}", "two stages have this name")


def _order(plan: Plan) -> Iterator[Finding]:
    for stage in plan.stages:
        if stage.phase is Phase.SESSIONS:
            yield _error(f"stage {stage.name}", "phase sessions is the start; go there by rollback")
        if stage.phase is Phase.SHADOW:
            yield _error(f"stage {stage.name}", "phase shadow is not available yet")
    for before, stage in pairwise(plan.stages):
        if stage.phase.order < before.phase.order:
            yield _error(f"stage {stage.name}", f"phase {stage.phase} cannot follow {before.phase}")


def _shares(plan: Plan) -> Iterator[Finding]:
    for before, stage in pairwise(plan.stages):
        for client in CLIENTS:
            old, new = before.issue[client], stage.issue[client]
            if new < old:
                yield _error(
                    f"stage {stage.name}",
                    f"{client} falls from {percent_of(old)} to {percent_of(new)}; shares only grow",
                )
    for stage in plan.stages:
        short = [client for client in CLIENTS if stage.issue[client] < BUCKETS]
        if stage.phase.order >= Phase.DRAIN.order and short:
            yield _error(
                f"stage {stage.name}",
                f"{stage.phase} hands out no sessions, so {', '.join(short)} must be issued 100",
            )


def _way_to_tokens(plan: Plan, settings: Settings) -> Iterator[Finding]:
    if not any(stage.phase is Phase.TOKENS for stage in plan.stages):
        return
    drains = [stage for stage in plan.stages if stage.phase is Phase.DRAIN]
    where = f"stage {next(s.name for s in plan.stages if s.phase is Phase.TOKENS)}"
    if not drains:
        yield _error(where, "tokens needs a drain stage before it")
        return
    longest = longest_session(settings)
    if max(stage.bake for stage in drains) < longest:
        yield _error(
            f"stage {drains[-1].name}",
            f"must bake for at least {Seconds(longest)}, the life of the longest session:"
            " whoever still has only a session would be logged out",
        )


def _evidence(plan: Plan, settings: Settings) -> Iterator[Finding]:
    last_token = settings.tokens.access_ttl + settings.tokens.leeway
    for stage in plan.stages:
        where = f"stage {stage.name}"
        watched = list(stage.watches())
        if stage.phase.accepts_token and not watched:
            yield _warning(where, "no gate watches it: bake time and the canary alone decide")
        if watched and stage.min_subjects == 0:
            yield _warning(where, "min_subjects = 0 lets it advance without any evidence")
        if stage.bake < last_token:
            yield _warning(
                where,
                f"bakes for {Seconds(stage.bake)}, less than an access token lives: a fault at"
                " refresh is not seen before the next stage",
            )
        for gate, client in watched:
            if stage.issue[client] > SKIPPED_ABOVE:
                yield Finding(
                    level="info",
                    where=where,
                    text=f"{gate.name}/{client} is skipped above 95%: nobody is left to compare",
                )


def _waiting(plan: Plan, traffic: Mapping[str, float]) -> Iterator[Finding]:
    for stage in plan.stages:
        for client in sorted({client for _, client in stage.watches()} & traffic.keys()):
            yield _expected(stage, client, traffic[client] * stage.issue[client] / BUCKETS)


def _expected(stage: Stage, client: str, a_day: float) -> Finding:
    where = f"stage {stage.name}"
    if a_day <= 0:
        return _warning(where, f"{client} has no traffic: it would hold for ever")
    seconds = stage.min_subjects / a_day * DAY
    text = f"{client} reaches {stage.min_subjects} subjects in about {_about(seconds)}"
    if seconds > stage.bake + stage.max_hold:
        return _warning(where, f"{text}, longer than bake and max_hold together")
    return Finding(level="info", where=where, text=text)


def _about(seconds: float) -> str:
    for unit, length in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
