"""Who wins: the decision table, as data, and the one pure function that reads it.

What came in is turned into one symbol for the token and one for the session; the pair finds its
row. A row says what happens while both are accepted, with either leader, and what happens once
only tokens are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Literal, NamedTuple

from crossfade.errors import Reason
from crossfade.legacy.base import SessionState
from crossfade.principal import Identity
from crossfade.rollout.state import Leader, Mode

Carrier = Literal["header", "cookie"]
"""How a token came: explicit in the Authorization header, or ambient in our cookie."""


class TokenState(StrEnum):
    """What a presented access token turned out to be."""

    ABSENT = "absent"
    OK = "ok"
    EXPIRED = "expired"
    """Past its time; all else is valid."""
    BAD = "bad"
    """Signature, structure, algorithm, type, audience or issuer is wrong."""
    REVOKED = "revoked"
    FOREIGN = "foreign"
    """Not ours to judge."""
    UNKNOWN = "unknown"
    """Keys or revocations are unavailable: our fault."""


class TokenEvidence(NamedTuple):
    """One carrier's token.

    Attributes:
        identity: whom it names; set for ok and expired only.
        reason: why it is not ok.
        is_forgivable: expired by at most five minutes, and its login is known alive.
    """

    state: TokenState
    identity: Identity | None = None
    reason: Reason | None = None
    is_forgivable: bool = False


class SessionEvidence(NamedTuple):
    """The legacy session.

    Attributes:
        identity: set for ok, and for partial where it is known.
        ended_login: it is the token's own anchor, and ended before its time or lost its user.
    """

    state: SessionState
    identity: Identity | None = None
    ended_login: bool = False


class Evidence(NamedTuple):
    """All that one request brought, verified and read.

    Attributes:
        several: two bearers, or two cookies of ours that name different identities.
        is_unsafe: the method may change something (RFC 9110 9.2.1), or it is a WebSocket.
        login_required: the route answers nobody without a log-in.
    """

    header: TokenEvidence
    cookie: TokenEvidence
    session: SessionEvidence
    several: bool = False
    is_unsafe: bool = False
    login_required: bool = False


class Verdict(StrEnum):
    """What happens to the request."""

    TOKEN = "token"
    SESSION = "session"
    ANONYMOUS = "anonymous"
    LEGACY = "legacy"
    """As if Crossfade were not there: the application works on a log-in that is not finished."""
    UNAUTHORIZED = "401"
    BAD_REQUEST = "400"
    CONFLICT = "409"
    UNAVAILABLE = "503"


class Effect(StrEnum):
    """What else follows from a row."""

    UPGRADE = "upgrade"
    """A candidate for tokens, if nothing else speaks against it."""
    WITHHOLD = "withhold"
    """The application does not see the presented legacy cookie."""
    CLEAR_ACCESS = "clear_access"
    CLEAR_SESSION = "clear_session"
    """Remove the legacy cookie at every scope, once a login."""
    END_LOGIN = "end_login"
    COMPARE = "compare"
    """Both prove the same identity: counted."""
    HINT_REFRESH = "hint_refresh"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome for one request.

    Attributes:
        row: number of the row in the table, as text.
        carrier: how the winning token came; None if no token won.
        reason: why something was refused, for metrics and logs.
    """

    row: str
    verdict: Verdict
    carrier: Carrier | None = None
    reason: Reason | None = None
    effects: frozenset[Effect] = frozenset()


class _Session(StrEnum):
    """A session's symbol, in relation to the token beside it."""

    ABSENT = "absent"
    GONE = "gone"
    ANONYMOUS = "anonymous"
    TAMPERED = "tampered"
    UNKNOWN = "unknown"
    OK = "ok"
    PARTIAL = "partial"
    SAME = "ok, same identity"
    OTHER = "ok, other identity"
    PARTIAL_SAME = "partial, same identity"
    PARTIAL_OTHER = "partial, other identity"
    ENDED = "the token's own anchor, ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: which symbols it covers and what follows in each mode.

    `session_leads` and `token_leads` hold while both are accepted, `enforce` once only tokens are.
    """

    number: str
    token: tuple[str, ...]
    session: tuple[_Session, ...]
    session_leads: Verdict
    token_leads: Verdict
    enforce: Verdict
    why: str
    reason: Reason | None = None
    effects: frozenset[Effect] = frozenset()
    enforce_effects: frozenset[Effect] | None = None
    enforce_reason: Reason | None = None


def _row(
    number: str,
    token: str,
    session: Iterable[_Session],
    both: Verdict | tuple[Verdict, Verdict],
    enforce: Verdict,
    why: str,
    reason: Reason | None = None,
    effects: Iterable[Effect] = (),
    enforce_effects: Iterable[Effect] | None = None,
    enforce_reason: Reason | None = None,
) -> Row:
    leads = both if isinstance(both, tuple) else (both, both)
    return Row(
        number=number,
        token=tuple(token.split()),
        session=tuple(session),
        session_leads=leads[0],
        token_leads=leads[1],
        enforce=enforce,
        why=why,
        reason=reason,
        effects=frozenset(effects),
        enforce_effects=None if enforce_effects is None else frozenset(enforce_effects),
        enforce_reason=enforce_reason,
    )


_S, _V, _E = _Session, Verdict, Effect
_ALONE = (_S.ABSENT, _S.GONE, _S.ANONYMOUS, _S.TAMPERED, _S.UNKNOWN, _S.OK, _S.PARTIAL)
_NOT_OK = (_S.ABSENT, _S.GONE, _S.ANONYMOUS, _S.TAMPERED, _S.UNKNOWN, _S.PARTIAL)
_RELATED_NOT_SAME = (
    *(_S.ABSENT, _S.GONE, _S.ANONYMOUS, _S.TAMPERED, _S.UNKNOWN, _S.ENDED),
    *(_S.OTHER, _S.PARTIAL_SAME, _S.PARTIAL_OTHER),
)
_OTHERS = (_S.OTHER, _S.PARTIAL_OTHER)

TABLE: tuple[Row, ...] = (
    _row("1", "absent", [_S.OK], _V.SESSION, _V.ANONYMOUS,
         "a candidate for tokens; in phase tokens the cookie is kept, but the log-in form is shown",
         effects=[_E.UPGRADE], enforce_effects=[_E.WITHHOLD],
         enforce_reason=Reason.LEGACY_REFUSED),
    _row("2", "absent", [_S.ABSENT, _S.GONE], _V.ANONYMOUS, _V.ANONYMOUS,
         "the route decides: a browser to the log-in form, an API 401"),
    _row("3", "absent", [_S.ANONYMOUS], _V.ANONYMOUS, _V.ANONYMOUS,
         "its data is kept; it is never upgraded"),
    _row("4", "absent", [_S.PARTIAL], _V.LEGACY, _V.LEGACY,
         "the application's own log-in goes on; it never authenticates"),
    _row("5", "absent", [_S.TAMPERED], _V.ANONYMOUS, _V.ANONYMOUS,
         "never cleared: a mistyped secret must not be an irreversible mass log-out",
         Reason.SESSION_TAMPERED, [_E.AUDIT]),
    _row("6", "absent", [_S.UNKNOWN], _V.UNAVAILABLE, _V.ANONYMOUS,
         "503 where a log-in is required, else anonymous; never 401, no cookie is cleared",
         Reason.SESSION_UNKNOWN),
    _row("7", "header:ok cookie:ok", [_S.ABSENT, _S.GONE, _S.ANONYMOUS], _V.TOKEN, _V.TOKEN,
         "the token stands by itself"),
    _row("7", "header:ok", [_S.ENDED], _V.UNAUTHORIZED, _V.UNAUTHORIZED,
         "the login ended with its session", Reason.REVOKED, [_E.END_LOGIN]),
    _row("7", "cookie:ok", [_S.ENDED], _V.ANONYMOUS, _V.ANONYMOUS,
         "the login ended with its session", Reason.REVOKED, [_E.END_LOGIN, _E.CLEAR_ACCESS]),
    _row("8", "header:ok cookie:ok", [_S.SAME], (_V.SESSION, _V.TOKEN), _V.TOKEN,
         "both prove the same identity; the leader serves", effects=[_E.COMPARE]),
    _row("9", "header:ok cookie:ok", [_S.TAMPERED, _S.UNKNOWN], _V.TOKEN, _V.TOKEN,
         "a token survives an outage of the session store"),
    _row("10", "header:ok cookie:ok", [_S.PARTIAL_SAME], _V.TOKEN, _V.TOKEN,
         "a second factor is being asked for; the application sees that session"),
    _row("11", "header:ok", _OTHERS, _V.TOKEN, _V.TOKEN,
         "explicit beats ambient; policy `reject` answers 400",
         Reason.IDENTITY_CONFLICT, [_E.WITHHOLD, _E.AUDIT]),
    _row("12", "cookie:ok", _OTHERS, _V.TOKEN, _V.TOKEN,
         "a sub-domain can plant a legacy cookie, never a __Host- one; unsafe methods get 409",
         Reason.IDENTITY_CONFLICT, [_E.WITHHOLD, _E.AUDIT, _E.CLEAR_SESSION]),
    _row("15", "header:forgivable", [_S.SAME], _V.SESSION, _V.UNAUTHORIZED,
         "the one fallback: good signature, same identity, just expired",
         Reason.EXPIRED, [_E.HINT_REFRESH]),
    _row("16", "header:expired", [*_RELATED_NOT_SAME, _S.SAME], _V.UNAUTHORIZED, _V.UNAUTHORIZED,
         "the client refreshes; never slide into another identity", Reason.EXPIRED),
    _row("16", "header:forgivable", _RELATED_NOT_SAME, _V.UNAUTHORIZED, _V.UNAUTHORIZED,
         "the client refreshes; never slide into another identity", Reason.EXPIRED),
    _row("18", "header:bad", _ALONE, _V.UNAUTHORIZED, _V.UNAUTHORIZED,
         "an attack or a misconfiguration must be seen"),
    _row("20", "header:revoked", tuple(_S), _V.UNAUTHORIZED, _V.UNAUTHORIZED,
         "revocation holds in both worlds", Reason.REVOKED),
    _row("22", "header:unknown cookie:unknown", [_S.OK], _V.SESSION, _V.UNAVAILABLE,
         "redundancy helps"),
    _row("23", "header:unknown cookie:unknown", _NOT_OK, _V.UNAVAILABLE, _V.UNAVAILABLE,
         "a fault of ours is never a log-out"),
)  # fmt: skip
"""Rows 13, 14, 17, 19, 20 (cookie) and 21 choose which token counts; see `decide`."""

ROWS = {(token, session): row for row in TABLE for token in row.token for session in row.session}

_SEVERAL = Decision(row="13", verdict=Verdict.BAD_REQUEST, reason=Reason.SEVERAL_CREDENTIALS)
_DIFFERENT = Decision(row="13", verdict=Verdict.BAD_REQUEST, reason=Reason.IDENTITY_CONFLICT)
_NO_TOKEN = TokenEvidence(state=TokenState.ABSENT)
_DROPPED = {TokenState.EXPIRED: "17", TokenState.BAD: "19", TokenState.REVOKED: "20"}


def decide(
    evidence: Evidence,
    mode: Mode,
    leader: Leader,
    *,
    reject_conflicts: bool = False,
) -> Decision:
    """Decide one request. Pure.

    Args:
        evidence: what came in, and what each part turned out to be.
        mode: `off`: only sessions count; `both`; `enforce`: only tokens do.
        leader: who serves when both prove the same identity.
        reject_conflicts: answer 400 where a bearer meets another user's session.
    """
    if mode is Mode.OFF:
        return _off(evidence.session.state)
    header, cookie = evidence.header, evidence.cookie
    if evidence.several:
        return _SEVERAL
    if header.state is cookie.state is TokenState.OK and header.identity != cookie.identity:
        return _DIFFERENT
    if header.state in {TokenState.ABSENT, TokenState.FOREIGN}:
        decision = _by_cookie(evidence, mode, leader)
        return _foreign(decision) if header.state is TokenState.FOREIGN else decision
    decision = _look_up(header, "header", evidence, mode, leader)
    if header.state is TokenState.OK and cookie.state in _DROPPED:
        effects = decision.effects | {Effect.CLEAR_ACCESS}
        row = "14" if decision.row == "7" else decision.row
        decision = replace(decision, row=row, effects=effects)
    if reject_conflicts and decision.row == "11":
        decision = replace(decision, verdict=Verdict.BAD_REQUEST, carrier=None)
    return decision


def _by_cookie(evidence: Evidence, mode: Mode, leader: Leader) -> Decision:
    cookie = evidence.cookie
    if cookie.state not in _DROPPED:
        return _look_up(cookie, "cookie", evidence, mode, leader)
    # An ambient cookie that is not good any more is as none: its user cannot mend it, and garbage
    # must neither lock out nor change who somebody is.
    decision = _look_up(_NO_TOKEN, "cookie", evidence, mode, leader)
    effects = decision.effects
    if cookie.state is not TokenState.EXPIRED:
        effects = (effects | {Effect.CLEAR_ACCESS}) - {Effect.UPGRADE}
    reason = decision.reason or cookie.reason
    return replace(decision, row=_DROPPED[cookie.state], reason=reason, effects=effects)


def _foreign(decision: Decision) -> Decision:
    # The application may know somebody by that scheme: no tokens are made for the session beside
    # it.
    return replace(decision, row="21", effects=decision.effects - {Effect.UPGRADE})


def _look_up(
    token: TokenEvidence, carrier: Carrier, evidence: Evidence, mode: Mode, leader: Leader
) -> Decision:
    return _outcome(
        _token_symbol(token, carrier),
        _session_symbol(evidence.session, token),
        token.reason,
        "enforce" if mode is Mode.ENFORCE else leader,
        evidence.is_unsafe,
        evidence.login_required,
    )


@lru_cache(maxsize=4096)
def _outcome(
    token: str,
    session: _Session,
    why: Reason | None,
    leader: Leader | Literal["enforce"],
    is_unsafe: bool,
    login_required: bool,
) -> Decision:
    """Read one row. All arguments are closed sets, so that each outcome is made once."""
    row = ROWS[token, session]
    carrier: Carrier = "header" if token.startswith("header") else "cookie"
    reason, effects = row.reason or why, row.effects
    if leader == "enforce":
        verdict, reason = row.enforce, row.enforce_reason or reason
        effects = row.effects if row.enforce_effects is None else row.enforce_effects
        effects -= {Effect.UPGRADE}
    else:
        verdict = row.token_leads if leader == "token" else row.session_leads
    if row.number == "6" and not login_required:
        verdict = Verdict.ANONYMOUS
    if row.number == "12" and is_unsafe:
        verdict = Verdict.CONFLICT
    return Decision(
        row=row.number,
        verdict=verdict,
        carrier=carrier if verdict is Verdict.TOKEN else None,
        reason=reason,
        effects=effects,
    )


def _token_symbol(token: TokenEvidence, carrier: Carrier) -> str:
    if token.state is TokenState.ABSENT:
        return "absent"
    if token.state is TokenState.EXPIRED and token.is_forgivable:
        return f"{carrier}:forgivable"
    return _SYMBOLS[carrier, token.state]


def _session_symbol(session: SessionEvidence, token: TokenEvidence) -> _Session:
    if token.identity is None:
        return _ALONE_SYMBOLS[session.state]
    if session.ended_login:
        return _Session.ENDED
    is_same = session.identity == token.identity
    if session.state is SessionState.OK:
        return _Session.SAME if is_same else _Session.OTHER
    if session.state is SessionState.PARTIAL:
        return _Session.PARTIAL_SAME if is_same else _Session.PARTIAL_OTHER
    return _ALONE_SYMBOLS[session.state]


_CARRIERS: tuple[Carrier, ...] = ("header", "cookie")
_SYMBOLS = {(carrier, state): f"{carrier}:{state}" for carrier in _CARRIERS for state in TokenState}
_ALONE_SYMBOLS = {state: _Session(state) for state in SessionState}


def _off(session: SessionState) -> Decision:
    """Let sessions rule: the application answers as it always did, whatever the session is."""
    if session is SessionState.OK:
        return Decision(row="off", verdict=Verdict.SESSION)
    if session is SessionState.PARTIAL:
        return Decision(row="off", verdict=Verdict.LEGACY)
    return Decision(row="off", verdict=Verdict.ANONYMOUS)
