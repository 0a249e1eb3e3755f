"""What a response means: log-in, log-out, switch, rotation, or nothing. Pure.

Only transitions of the session that this request was given count: before and after, with the
cookie that the application set in between. Six frameworks were run to find the signs (ADR 0003); a
re-sent cookie is nothing, and a clear on a session that was not known alive is nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from crossfade.legacy.base import CookieAttributes, LegacySession, SessionState

_CLEARED_VALUES = frozenset({b"", b'""', b"''", b"null"})


class Meaning(StrEnum):
    """What the application did to the session of its user."""

    SILENT = "silent"
    """Nothing that concerns the log-in."""
    LOG_IN = "log_in"
    LOG_OUT = "log_out"
    SWITCH = "switch"
    """Another user now: a new log-in over the old one."""
    ROTATED = "rotated"
    """The same user under a new key: password change, key cycling."""
    CHANGED = "changed"
    """The same user, and a client-held cookie with new content."""
    RESURRECTED = "resurrected"
    """A slow reply brings back a session that was ended meanwhile."""
    STALE_ATTACH = "stale_attach"
    """The application cleared a key of ours that the login has left behind."""
    CLEAR_OF_NOTHING = "clear_of_nothing"
    """A clear on a session that was not alive: some frameworks send it on any request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The last Set-Cookie with the legacy name.

    Attributes:
        value: the new value; None for a clear.
        positions: where all such headers stand in the list.
    """

    value: str | None = field(default=None, repr=False)
    positions: tuple[int, ...] = ()

    @property
    def is_clear(self) -> bool:
        """Whether the cookie is removed."""
        return self.value is None


def written(
    headers: Sequence[tuple[bytes, bytes]], cookie: CookieAttributes, now: float
) -> Written | None:
    """Return what a response does to the legacy cookie; None if nothing."""
    prefix = cookie.name.encode("latin-1") + b"="
    found = [
        (position, value)
        for position, (name, value) in enumerate(headers)
        if name.lower() == b"set-cookie" and value.lstrip().startswith(prefix)
    ]
    if not found:
        return None
    positions = tuple(position for position, _ in found)
    text, _, attributes = found[-1][1].strip()[len(prefix) :].partition(b";")
    value = text.strip()
    if value in _CLEARED_VALUES or _has_expired(attributes, now):
        return Written(positions=positions)
    return Written(value=value.decode("latin-1"), positions=positions)


def _has_expired(attributes: bytes, now: float) -> bool:
    """Judge Max-Age, and Expires only without it: Max-Age wins (RFC 6265 4.1.2.2)."""
    expires: bytes | None = None
    for part in attributes.split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name.lower() == b"max-age":
            return value.strip().startswith(b"-") or value.strip() == b"0"
        if name.lower() == b"expires":
            expires = value.strip()
    return expires is not None and _date(expires) <= now


def _date(text: bytes) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text.decode("latin-1")).timestamp()
    except ValueError:
        return float("inf")  # a browser that cannot read the date ignores it


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """All that the meaning of a response depends on.

    Attributes:
        before: the session the application was given.
        is_assumed: we attached it and did not read it.
        is_current_anchor: for attached ones: the login row still names it. Asked only for a clear.
        given: the cookie value the application was given; None if none.
        written: what the response does to the cookie; None: nothing.
        after: the session after the application; None if it was not looked at.
        was_ended: the given or the new session, or the request's login, was ended meanwhile.
    """

    before: LegacySession
    is_assumed: bool = False
    is_current_anchor: bool = True
    given: str | None = field(default=None, repr=False)
    written: Written | None = None
    after: LegacySession | None = None
    was_ended: bool = False


def meaning(transition: Transition, *, server_side: bool) -> Meaning:
    """Say what a response means (the table of ADR 0003)."""
    before, after = transition.before, transition.after
    was_in = before.state is SessionState.OK
    if transition.written is None:
        return Meaning.SILENT
    if transition.written.is_clear:
        if not was_in:
            return Meaning.CLEAR_OF_NOTHING
        if transition.is_assumed and not transition.is_current_anchor:
            return Meaning.STALE_ATTACH
        return Meaning.LOG_OUT
    if after is None:
        return Meaning.SILENT
    is_in = after.state is SessionState.OK
    if transition.was_ended and was_in and is_in and before.identity == after.identity:
        return Meaning.RESURRECTED
    if not was_in:
        return Meaning.LOG_IN if is_in else Meaning.SILENT
    if not is_in:
        return _user_left(before, after)
    if before.identity != after.identity:
        return Meaning.SWITCH
    if transition.written.value == transition.given or not server_side:
        return Meaning.SILENT if transition.written.value == transition.given else Meaning.CHANGED
    return Meaning.ROTATED


def _user_left(before: LegacySession, after: LegacySession) -> Meaning:
    # A step-up asks the same user for a second factor; everything else is a log-out.
    if after.state is SessionState.PARTIAL and after.identity == before.identity:
        return Meaning.SILENT
    if after.state is SessionState.UNKNOWN:
        return Meaning.SILENT
    return Meaning.LOG_OUT
