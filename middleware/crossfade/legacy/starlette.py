"""Starlette's and FastAPI's SessionMiddleware: the session is a cookie, signed and in the clear.

The format is `base64(json) . base64url(unix seconds) . base64url(HMAC-SHA1)`, by itsdangerous.
There is no record to delete and one login has many valid texts: what a log-out can reach is `_cf`,
a random marker that we put into the payload and that the application carries through changes.
"""

import json
import secrets
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from itsdangerous import BadData, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode, bytes_to_int, int_to_bytes
from starlette.requests import cookie_parser

from crossfade.legacy.base import (
    CookieAttributes,
    Created,
    LegacySession,
    Presented,
    SessionState,
)
from crossfade.legacy.identity import IdentityMap
from crossfade.legacy.payload import UnreadableError, load
from crossfade.principal import Identity
from crossfade.settings import LegacySettings, StarletteSettings

MARKER = "_cf"
DEFAULT_MAX_AGE = 14 * 86400

_CLEARED = "null"
# Servers cap headers at about this size; an HMAC over more would cost more than refusing may.
_MAXIMUM_COOKIE = 64 * 1024
_NO_RECORD = LegacySession(
    state=SessionState.GONE, why="the cookie is the session, there is no record"
)


class StarletteSessions:
    """Reads and makes the cookies of an application that runs SessionMiddleware with this secret.

    The timestamp in the cookie is its last change, so `created_at` is the latest that the log-in
    can be. Since Starlette 1.0 an unchanged session is not signed anew: it ends `max_age` later.
    """

    reader = "starlette"
    server_side = False
    idle: float | None = None

    def __init__(self, settings: LegacySettings, secret: str) -> None:
        own = settings.starlette or StarletteSettings()
        self._max_age = None if own.endless else int(settings.max_age or DEFAULT_MAX_AGE)
        self._marks = own.mark_logins
        self._signer = _Signer(secret)
        self._identities = IdentityMap(settings.identity)
        self._name = settings.cookie.encode("latin-1")
        self.cookie = CookieAttributes(
            name=settings.cookie,
            path=settings.path,
            domain=settings.domain,
            secure=settings.secure,
            same_site=settings.same_site,
            max_age=self._max_age,
        )

    def pick(self, cookies: Mapping[bytes, Sequence[bytes]]) -> Presented | None:
        """Return the last of the twins, as Starlette's parser does; its clear marker is absent."""
        values = cookies.get(self._name, ())
        if not values or values[-1] in {b"", b'""', _CLEARED.encode()}:
            return None
        return Presented(
            value=values[-1].decode("latin-1"), has_twin=any(v != values[-1] for v in values)
        )

    async def read(self, presented: Presented, now: float) -> LegacySession:
        """Verify one cookie; no I/O."""
        return self._read(presented.value, now)

    async def read_key(self, key: str, now: float) -> LegacySession:
        """Answer `gone`: nothing but the cookie holds the session."""
        return _NO_RECORD

    def peek(self, scope: MutableMapping[str, Any], value: str, now: float) -> LegacySession | None:
        """Return what the application left in `scope["session"]`; None if it is not there."""
        session = scope.get("session")
        return self._session(dict(session), int(now), now) if isinstance(session, Mapping) else None

    async def pin(self, key: str, until: float, now: float) -> LegacySession:
        """Answer `gone`: only a new cookie could move a deadline."""
        return _NO_RECORD

    async def delete(self, key: str) -> None:
        """Do nothing: a cookie cannot be taken back. The tombstone of its marker does the work."""

    async def create(
        self,
        identity: Identity | None,
        data: Mapping[str, Any],
        *,
        deadline: float,
        now: float,
        auth_time: float | None = None,
        key: str | None = None,
    ) -> Created:
        """Sign a cookie, back-dated where it would otherwise outlive `deadline`.

        Without `mark_logins` only `key` gives it a marker. An endless one has no deadline.
        """
        payload = self._identities.put(data, identity, auth_time)
        if key is None and self._marks:
            key = secrets.token_urlsafe(16)
        if key is not None:
            payload[MARKER] = key
        # A timestamp of the future is refused by itsdangerous, so a cookie can only be shortened.
        latest = now if self._max_age is None else min(now, deadline - self._max_age)
        return Created(
            cookie_value=self._signed(payload, int(latest)),
            key=key,
            deadline=self._end(int(latest)),
        )

    def cookie_value(self, key: str) -> str | None:
        """Return None: a marker alone makes no cookie."""
        return None

    def mark(self, value: str, marker: str, now: float) -> str | None:
        """Return an authenticated session's cookie with this marker, data and deadline kept.

        A marker of an earlier login is replaced: the tombstone of that one must go on to hold.
        """
        session = self._read(value, now)
        if not self._marks or session.state is not SessionState.OK or session.key == marker:
            return None
        signed_at, payload = self._signer.opened(_as_starlette_reads(value))
        return self._signed(load(b64decode(payload)) | {MARKER: marker}, signed_at)

    async def close(self) -> None:
        """Do nothing: there is no store."""

    def _read(self, value: str, now: float) -> LegacySession:
        if len(value) > _MAXIMUM_COOKIE:
            return LegacySession(
                state=SessionState.TAMPERED, why="the cookie is larger than 64 KiB"
            )
        try:
            signed_at, payload = self._signer.opened(_as_starlette_reads(value))
        except BadData as error:
            return LegacySession(state=SessionState.TAMPERED, why=error.message)
        if why := self._out_of_time(signed_at, int(now)):
            return LegacySession(state=SessionState.GONE, why=why)
        try:
            data = load(b64decode(payload))
        except ValueError as error:
            why = str(error) if isinstance(error, UnreadableError) else "the payload is not base64"
            return LegacySession(state=SessionState.GONE, why=why)
        return self._session(data, signed_at, now)

    def _out_of_time(self, signed_at: int, now: int) -> str | None:
        if self._max_age is None:
            return None
        if signed_at > now:
            return "dated in the future"
        return "expired" if now - signed_at > self._max_age else None

    def _session(self, data: dict[str, Any], signed_at: int, now: float) -> LegacySession:
        marker = data.pop(MARKER, None)
        state, identity, auth_time = self._identities.of(data, now)
        return LegacySession(
            state=state,
            identity=identity,
            key=marker if isinstance(marker, str) else None,
            auth_time=auth_time,
            created_at=signed_at,
            deadline=self._end(signed_at),
            data=data,
        )

    def _end(self, signed_at: int) -> float | None:
        return None if self._max_age is None else float(signed_at + self._max_age)

    def _signed(self, data: Mapping[str, Any], signed_at: int) -> str:
        return self._signer.signed(b64encode(json.dumps(data).encode()), signed_at)


class _Signer(TimestampSigner):
    """itsdangerous' signer, the time an argument and the key derived once, not per request."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self._derived = super().derive_key()

    def derive_key(self, secret_key: str | bytes | None = None) -> bytes:
        return self._derived

    def signed(self, payload: bytes, at: int) -> str:
        dated = payload + b"." + base64_encode(int_to_bytes(at))
        return (dated + b"." + self.get_signature(dated)).decode()

    def opened(self, text: str) -> tuple[int, bytes]:
        """Return the time and the payload of a signed text, whatever its age. Raises BadData."""
        dated, _, signature = text.encode().rpartition(b".")
        if not self.verify_signature(dated, signature):
            raise BadData("the signature does not verify")
        payload, dot, time = dated.rpartition(b".")
        try:
            at = bytes_to_int(base64_decode(time))
        except struct.error as error:
            raise BadData("the time cannot be read") from error
        if not dot:
            raise BadData("the time is missing")
        return at, payload


def _as_starlette_reads(value: str) -> str:
    """Undo quotes, octal escapes and odd white space as the framework behind us will."""
    return cookie_parser(f"c={value}")["c"]
