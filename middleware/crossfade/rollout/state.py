"""The rollout document: which credentials the fleet accepts and issues, to whom, and why so.

One document with one revision number is changed by compare-and-set and followed by every instance
(ADR 0004). Records here are values: they do no I/O and know no clock.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, Self

from crossfade.errors import ConfigurationError
from crossfade.rollout.bucketing import BUCKETS, bucket, in_cohort

CLIENTS = ("web", "mobile", "machine")
"""The client kinds that have a share of their own."""

Leader = Literal["session", "token"]
"""Which credential wins where both are valid and agree."""


class Phase(StrEnum):
    """How the dials are set, in the order in which a rollout passes them."""

    SESSIONS = "sessions"
    """Sessions rule; access tokens are not even parsed."""
    SHADOW = "shadow"
    """As sessions; tokens are made, verified and thrown away."""
    DUAL = "dual"
    """Both are accepted, the session leads, tokens are issued to a cohort."""
    PREFER = "prefer"
    """Both are accepted, the token leads, sessions are still issued."""
    DRAIN = "drain"
    """As prefer, but authenticated sessions are no longer issued."""
    TOKENS = "tokens"
    """Only tokens authenticate."""

    @property
    def order(self) -> int:
        """Return the place in the order of a rollout, `sessions` = 0."""
        return _ORDER[self]

    @property
    def accepts_token(self) -> bool:
        """Say whether access tokens authenticate in this phase."""
        return self.order >= Phase.DUAL.order

    @property
    def accepts_session(self) -> bool:
        """Say whether legacy sessions authenticate in this phase."""
        return self is not Phase.TOKENS

    @property
    def issues_session(self) -> bool:
        """Say whether authenticated legacy sessions are still handed out."""
        return self.order <= Phase.PREFER.order

    @property
    def leader(self) -> Leader:
        """Return which credential wins where both agree."""
        return "token" if self.order >= Phase.PREFER.order else "session"


_ORDER: Mapping[str, int] = {phase: place for place, phase in enumerate(Phase)}


class RunStatus(StrEnum):
    """What the rollout is doing."""

    IDLE = "idle"
    """Nothing is under way: no plan yet, or a plan that was not begun."""
    BAKING = "baking"
    """A stage is in force and gathers evidence."""
    CONVERGING = "converging"
    """Acceptance was widened; the rest follows once every live instance has acked."""
    HELD = "held"
    """Bake is over, evidence is not sufficient."""
    AWAITING_APPROVAL = "awaiting_approval"
    """All gates pass; a human must agree."""
    PAUSED = "paused"
    """This rollout's clock stands still."""
    FROZEN = "frozen"
    """Every widening is refused until unfrozen."""
    ROLLING_BACK = "rolling_back"
    """Issuing is narrowed; accepting follows once the last token has ended."""
    ROLLED_BACK = "rolled_back"
    """Done going back; nothing advances until a human resumes."""
    DONE = "done"
    """The last stage of the plan is in force."""


class Mode(StrEnum):
    """Which table of the decision applies."""

    OFF = "off"
    """Sessions rule and tokens are not parsed."""
    BOTH = "both"
    """Both are accepted."""
    ENFORCE = "enforce"
    """Tokens authenticate, sessions do not."""


def _no_shares() -> Mapping[str, int]:
    return MappingProxyType(dict.fromkeys(CLIENTS, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """The rollout document of one revision.

    Attributes:
        phase: how the dials are meant; the four below say how they are, halfway changes too.
        stage: name of the plan's stage in force; None before the first and after the last way back.
        accept_session, accept_token: fleet-wide.
        issue_session: authenticated legacy sessions are handed out.
        issue_token: client kind -> share, 0..100,000; always all kinds.
        status: what is going on.
        entered_at: when the stage came into force, POSIX seconds of the database's clock.
        stage_revision: revision at which it did; gates count from there.
        paused_at: since when the clock stands; None while it runs.
        paused_for: seconds that it stood since `entered_at`, the present pause apart.
        plan: the stored plan as plain JSON values; None before `plan apply`.
        salt: of the buckets; fixed once a plan has begun.
        pending: target of a change of two steps while it is halfway; None otherwise.
        narrow_at: earliest time at which accepting may be narrowed; None if nothing is due.
        frozen: every widening is refused.
        note: why the status is what it is, in words.

    Raises:
        ConfigurationError: nobody could authenticate, tokens would be issued that nobody accepts,
            or a share is out of range.
    """

    phase: Phase = Phase.SESSIONS
    stage: str | None = None
    accept_session: bool = True
    accept_token: bool = False
    issue_session: bool = True
    issue_token: Mapping[str, int] = field(default_factory=_no_shares)
    status: RunStatus = RunStatus.IDLE
    entered_at: float = 0.0
    stage_revision: int = 0
    paused_at: float | None = None
    paused_for: float = 0.0
    plan: Mapping[str, Any] | None = field(default=None, repr=False)
    salt: str = ""
    pending: Mapping[str, Any] | None = None
    narrow_at: float | None = None
    frozen: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        for wrong, text in self._faults():
            if wrong:
                raise ConfigurationError(f"the rollout document is not sound: {text}")

    @classmethod
    def initial(cls) -> Self:
        """Return the document of a fleet that knows sessions only."""
        return cls()

    @property
    def mode(self) -> Mode:
        """Return which decision table applies."""
        if not self.accept_token:
            return Mode.OFF
        return Mode.BOTH if self.accept_session else Mode.ENFORCE

    @property
    def leader(self) -> Leader:
        """Return which credential wins where both are valid and agree."""
        return self.phase.leader

    @property
    def issues_session(self) -> bool:
        """Say whether authenticated legacy sessions are handed to clients."""
        return self.issue_session

    def selects(self, client: str, subject: str) -> bool:
        """Say whether this subject is issued tokens on that client kind; a missing one never is."""
        share = self.issue_token.get(client, 0)
        if share <= 0 or not subject:
            return False
        return share >= BUCKETS or in_cohort(bucket(self.salt, client, subject), share)

    def baked(self, now: float) -> float:
        """Return the seconds for which the stage has been in force, pauses apart."""
        until = now if self.paused_at is None else self.paused_at
        return max(0.0, until - self.entered_at - self.paused_for)

    def to_json(self) -> str:
        """Write the canonical form: sorted keys, no spaces, ASCII."""
        document = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a document.

        Raises:
            ConfigurationError: not JSON, an unknown or missing key, a wrong type or value.
        """
        try:
            document = json.loads(text, parse_constant=_refuse)
        except ValueError as error:
            raise ConfigurationError("the rollout document is not JSON") from error
        if not isinstance(document, dict) or document.keys() != _SHAPES.keys():
            # Guessing what a dial of a newer version means could let in what it keeps out.
            raise ConfigurationError(
                "the rollout document has other keys than this version knows: upgrade this instance"
            )
        for key, fits in _SHAPES.items():
            if not fits(document[key]):
                raise ConfigurationError(f"the rollout document has a wrong value at `{key}`")
        document["phase"] = Phase(document["phase"])
        document["status"] = RunStatus(document["status"])
        return cls(**document)

    def _faults(self) -> list[tuple[bool, str]]:
        shares = self.issue_token.values()
        return [
            (not (self.accept_session or self.accept_token), "it accepts no credential at all"),
            (self.issue_session and not self.accept_session, "it issues sessions it refuses"),
            (any(shares) and not self.accept_token, "it issues tokens it does not accept"),
            (set(self.issue_token) != set(CLIENTS), "it must have a share for each client kind"),
            (not all(0 <= share <= BUCKETS for share in shares), "a share is out of 0..100000"),
        ]


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _is(*kinds: type) -> Callable[[object], bool]:
    # type() and not isinstance: True is an int in Python, and no share.
    return lambda value: type(value) in kinds


def _among(values: type[StrEnum]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in set(values)


def _shares(value: object) -> bool:
    return isinstance(value, dict) and all(type(share) is int for share in value.values())


_NOTHING = type(None)
_SHAPES: Mapping[str, Callable[[object], bool]] = {
    "phase": _among(Phase),
    "stage": _is(str, _NOTHING),
    "accept_session": _is(bool),
    "accept_token": _is(bool),
    "issue_session": _is(bool),
    "issue_token": _shares,
    "status": _among(RunStatus),
    "entered_at": _is(float, int),
    "stage_revision": _is(int),
    "paused_at": _is(float, int, _NOTHING),
    "paused_for": _is(float, int),
    "plan": _is(dict, _NOTHING),
    "salt": _is(str),
    "pending": _is(dict, _NOTHING),
    "narrow_at": _is(float, int, _NOTHING),
    "frozen": _is(bool),
    "note": _is(str),
}
