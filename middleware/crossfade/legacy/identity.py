"""Who a session belongs to: the settings' dotted paths, applied to a session's data, both ways."""

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from crossfade.legacy.base import SessionState
from crossfade.principal import Identity
from crossfade.settings import IdentitySettings

_MISSING: Any = object()
_MAXIMUM_LENGTH = 255
# A log-in dated later than this after now is milliseconds or nonsense. As a date it would outlive
# every not-before; an undated session does not.
_FUTURE = 300.0


class Found(NamedTuple):
    """What the data says: `identity` is set for `ok`, and for `partial` where the user is known."""

    state: SessionState
    identity: Identity | None
    auth_time: float | None


class IdentityMap:
    """Reads an identity out of a session's data and writes one into it.

    A path such as `user.id` walks through nested objects. A user, tenant or actor is text, an
    integer or a UUID; anything else in that place, or text that no database holds, is nobody.
    """

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self._partial = tuple(path.split(".") for path in settings.partial)
        self._paths = {
            name: path.split(".")
            for name in ("user", "tenant", "actor", "auth_time")
            if (path := getattr(settings, name))
        }

    def of(
        self, data: Mapping[str, Any], now: float, columns: Mapping[str, Any] | None = None
    ) -> Found:
        """Return state, identity and log-in time of a valid session.

        `columns` holds parts (`user`, …) that the table keeps in columns of their own; they take
        the place of the path, also when they are null.
        """
        parts = {name: _walk(data, path) for name, path in self._paths.items()}
        parts.update(columns or {})
        identity = _identity(parts)
        if any(_is_set(_walk(data, path)) for path in self._partial):
            return Found(SessionState.PARTIAL, identity, None)
        if identity is None:
            return Found(SessionState.ANONYMOUS, None, None)
        return Found(SessionState.OK, identity, _moment(parts.get("auth_time"), now))

    def put(
        self,
        data: Mapping[str, Any],
        identity: Identity | None,
        auth_time: float | None = None,
        *,
        columns: Collection[str] = (),
    ) -> dict[str, Any]:
        """Return the data with this identity in it, so that `of` finds exactly this one.

        None makes it anonymous. A log-in that was half done is not taken along, and the parts that
        have `columns` of their own are left alone.
        """
        result = dict(data)
        for pending in self._partial:
            result = _placed(result, pending, None)
        for name, value in self._values(identity, auth_time).items():
            if name not in columns and (path := self._paths.get(name)):
                result = _placed(result, path, value)
        return result

    def stored(self, subject: str) -> str | int:
        """Return a user id in the form in which the application stores it."""
        if self._settings.user_form == "integer" and subject.removeprefix("-").isdecimal():
            return int(subject)
        return subject

    def _values(self, identity: Identity | None, auth_time: float | None) -> dict[str, Any]:
        if identity is None:
            return dict.fromkeys(("user", "tenant", "actor", "auth_time"))
        return {
            "user": self.stored(identity.subject),
            "tenant": identity.tenant or None,
            "actor": identity.actor or None,
            "auth_time": None if auth_time is None else int(auth_time),
        }


def _identity(parts: Mapping[str, object]) -> Identity | None:
    subject = _text(parts.get("user", _MISSING))
    tenant, actor = (_text(parts.get(name, _MISSING)) for name in ("tenant", "actor"))
    # Falling back to "no tenant" or "nobody impersonates" would be another identity.
    if not subject or tenant is None or actor is None:
        return None
    return Identity(subject=subject, tenant=tenant, actor=actor)


def _text(value: object) -> str | None:
    """Return an id as text, empty if there is none; None if it is nothing that can be an id."""
    if value is _MISSING or value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        return None
    try:
        text = str(value)
        text.encode()  # a lone surrogate, legal in JSON, would fail later in SQL and in tokens
    except ValueError:
        return None
    return text if len(text) <= _MAXIMUM_LENGTH and "\x00" not in text else None


def _moment(value: object, now: float) -> float | None:
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            return None
        value = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 0 < value <= now + _FUTURE else None


def _walk(data: object, path: list[str]) -> Any:
    for step in path:
        if not isinstance(data, Mapping) or step not in data:
            return _MISSING
        data = data[step]
    return data


def _is_set(value: object) -> bool:
    return value is not _MISSING and bool(value)


def _placed(data: Mapping[str, Any], path: list[str], value: object) -> dict[str, Any]:
    """Return a copy with the value at the path; None takes what is there away."""
    name, *rest = path
    result = dict(data)
    if rest:
        below = result.get(name)
        below = below if isinstance(below, Mapping) else {}
        if below or value is not None:
            result[name] = _placed(below, rest, value)
    elif value is not None:
        result[name] = value
    else:
        result.pop(name, None)
    return result
