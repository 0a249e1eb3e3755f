"""The plan file: which stages a rollout passes, how long each bakes, and which gates watch it.

A plan is TOML and speaks percent with up to three decimals; inside, shares are buckets of 100,000.
It is linted before it is stored, and stored as it stands in the file, so that what runs can be read
back.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import msgspec

from crossfade.rollout.bucketing import BUCKETS
from crossfade.rollout.state import CLIENTS, Phase, RolloutState
from crossfade.settings import ClientKind, Seconds, Settings
from crossfade_migrator.errors import Misconfigured, Misused

AVAILABLE_GATES = frozenset({"compare"})
"""Gate kinds that this version evaluates."""
KNOWN_GATES = AVAILABLE_GATES | {"ceiling", "zero", "srm", "below"}

SKIPPED_ABOVE = 95_000
"""Share beyond which two arms can no longer be compared: too few people are left in the other."""

_Value = TypeVar("_Value")


class Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for every stage that does not say otherwise.

    bake: how long a stage is in force before the next may begin. evaluate_every: how often gates
    are looked at. min_subjects: token subjects a gate must have seen. max_hold: after that long
    beyond its bake without an answer, the run pauses. on_fail: what a failing gate does by itself.
    """

    bake: Seconds = Seconds(86400)
    evaluate_every: Seconds = Seconds(300)
    min_subjects: int = 300
    max_hold: Seconds = Seconds(3 * 86400)
    on_fail: Literal["rollback", "pause"] = "rollback"


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One test of the evidence.

    clients: the kinds it watches, all by default; name those that you have traffic of, because
    silence never passes. mode: `observe` only reports what it would have done.
    """

    name: str
    kind: str
    clients: tuple[ClientKind, ...] = CLIENTS  # type: ignore[assignment]  # the same three words
    mode: Literal["enforce", "observe"] = "enforce"
    on_fail: Literal["rollback", "pause"] | None = None


class StageSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage as the file has it.

    Shares that are left out are those of the stage before; the rest comes from the defaults.
    """

    name: str
    phase: Phase
    issue: dict[ClientKind, float] = {}
    bake: Seconds | None = None
    min_subjects: int | None = None
    max_hold: Seconds | None = None
    gates: tuple[str, ...] | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: Literal[1]
    name: str
    salt: str
    false_rollback_budget: float = 0.05
    defaults: Defaults = Defaults()
    gate: tuple[Gate, ...] = ()
    stage: tuple[StageSection, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage with everything filled in.

    Attributes:
        issue: client kind -> share, 0..100,000, all kinds.
        bake, max_hold: seconds.
        gates: those that watch it.
    """

    name: str
    phase: Phase
    issue: Mapping[str, int]
    bake: float
    min_subjects: int
    max_hold: float
    gates: tuple[Gate, ...]

    def watches(self) -> Iterator[tuple[Gate, str]]:
        """Yield each gate with each client kind that it tests in this stage."""
        for gate in self.gates:
            for client in gate.clients:
                if self.issue[client] > 0:
                    yield gate, client


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan ready for use. `document` is the file's content as plain values."""

    name: str
    salt: str
    false_rollback_budget: float
    evaluate_every: float
    on_fail: Literal["rollback", "pause"]
    gates: tuple[Gate, ...]
    stages: tuple[Stage, ...]
    document: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a plan file. Raises Misconfigured: not there, not TOML, or not a plan."""
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{path} cannot be read: {type(error).__name__}") from error
        except tomllib.TOMLDecodeError as error:
            raise Misconfigured(f"{path} is not valid TOML: {error}") from error
        try:
            return cls.from_mapping(document)
        except Misconfigured as error:
            raise Misconfigured(f"{path}: {error.message}", error.hint) from error

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> Self:
        """Check the shape of a plan given as plain values. Raises Misconfigured naming the key."""
        try:
            file = msgspec.convert({**document}, _File, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise Misconfigured(_in_words(str(error)), "see `crossfade plan lint`") from error
        return cls(
            name=file.name,
            salt=file.salt,
            false_rollback_budget=file.false_rollback_budget,
            evaluate_every=file.defaults.evaluate_every,
            on_fail=file.defaults.on_fail,
            gates=file.gate,
            stages=tuple(_stages(file)),
            document=document,
        )

    def stage(self, name: str | None) -> Stage | None:
        """Return the stage of that name, None for None. Raises Misused for an unknown one."""
        if name is None:
            return None
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise Misused(
            f"the plan {self.name} has no stage {name!r}",
            f"it has: {', '.join(stage.name for stage in self.stages)}",
        )

    def after(self, name: str | None) -> Stage | None:
        """Return the stage that follows, the first one for None; None behind the last."""
        place = 0 if name is None else self._place(name) + 1
        return self.stages[place] if place < len(self.stages) else None

    def before(self, name: str | None) -> Stage | None:
        """Return the stage before; None before the first."""
        place = 0 if name is None else self._place(name)
        return self.stages[place - 1] if place > 0 else None

    def threshold(self) -> float:
        """Return the e-value at which a gate fails: K tests share the plan's budget."""
        tests = sum(
            stage.issue[client] <= SKIPPED_ABOVE
            for stage in self.stages
            for _, client in stage.watches()
        )
        return max(1, tests) / self.false_rollback_budget

    def _place(self, name: str) -> int:
        return self.stages.index(self.stage(name))


def stored_plan(state: RolloutState) -> Plan | None:
    """Return the plan in a rollout document, None if none was applied."""
    return None if state.plan is None else Plan.from_mapping(state.plan)


def share_of(percent: float) -> int | None:
    """Return a percentage as a share of 100,000; None if out of 0..100 or finer than 0.001."""
    share = round(percent * 1000)
    is_exact = abs(percent * 1000 - share) < 1e-6
    return share if is_exact and 0 <= share <= BUCKETS else None


def percent_of(share: int) -> str:
    """Write a share as people read it: `25%`, `0.5%`."""
    return f"{share / 1000:g}%"


def longest_session(settings: Settings) -> float:
    """Return how long a legacy session may live, in seconds: a drain must bake that long.

    Where the application has no absolute limit, it is the life of a login by our settings.
    """
    legacy = settings.legacy
    if legacy.sql is not None and legacy.framework == "sql":
        return legacy.sql.absolute or settings.tokens.login_lifetime
    return legacy.max_age or _STARLETTE_MAX_AGE


_STARLETTE_MAX_AGE = 14 * 86400.0


def _stages(file: _File) -> Iterator[Stage]:
    """Fill in what stages leave out. What lint refuses is carried along, for lint to find."""
    gates = {gate.name: gate for gate in file.gate}
    shares = dict.fromkeys(CLIENTS, 0)
    for stage in file.stage:
        if stage.phase.order >= Phase.DRAIN.order:
            shares = dict.fromkeys(CLIENTS, BUCKETS)
        for client, percent in stage.issue.items():
            share = share_of(percent)
            if share is None:
                raise Misconfigured(
                    f"stage {stage.name}: issue.{client} = {percent:g} is no percentage",
                    "write 0 to 100 with up to three decimals",
                )
            shares = {**shares, client: share}
        names = gates.keys() if stage.gates is None else stage.gates
        if unknown := [name for name in names if name not in gates]:
            raise Misconfigured(
                f"stage {stage.name}: there is no gate {unknown[0]!r}",
                f"declare it as [[gate]], or use: {', '.join(gates) or 'none is declared'}",
            )
        yield Stage(
            name=stage.name,
            phase=stage.phase,
            issue=shares if stage.phase.accepts_token else dict.fromkeys(CLIENTS, 0),
            bake=_or(stage.bake, file.defaults.bake),
            min_subjects=_or(stage.min_subjects, file.defaults.min_subjects),
            max_hold=_or(stage.max_hold, file.defaults.max_hold),
            gates=tuple(gates[name] for name in names) if stage.phase.accepts_token else (),
        )


def _or(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value


def _decode(kind: type, value: object) -> object:
    if kind is Seconds:
        return Seconds.parse(value)
    raise NotImplementedError(kind)


def _in_words(message: str) -> str:
    """Turn msgspec's `- at `$.stage[0].bake`` into the key as the file has it."""
    text, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".").replace("[...]", "")
    text = text.replace("Object contains unknown field", "unknown key")
    text = text.replace("Object missing required field", "missing key")
    return f"the plan at `{key}`: {text}" if key else f"the plan: {text}"
