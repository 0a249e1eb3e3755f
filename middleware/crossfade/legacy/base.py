"""What every reader of legacy sessions promises.

A reader knows one framework's cookie and store: it reads, pins, deletes and creates sessions so
that the framework itself accepts the result. It never raises on content; it raises StoreUnavailable
only where its store did not answer, and the caller turns that into the state `unknown`.
"""

import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from crossfade.principal import Identity


class SessionState(StrEnum):
    """What a presented legacy session turned out to be. Each is another fact; none is swallowed."""

    ABSENT = "absent"
    """No legacy cookie was presented."""
    OK = "ok"
    """Valid and authenticated."""
    ANONYMOUS = "anonymous"
    """Valid, without a user."""
    PARTIAL = "partial"
    """Valid, with a log-in that is not finished: a second factor is pending, or such."""
    GONE = "gone"
    """Unknown to the store, or past its deadline."""
    TAMPERED = "tampered"
    """The cookie's signature does not verify."""
    UNKNOWN = "unknown"
    """The store did not answer, or what we know of tombstones is too old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """One legacy credential as it came in, unverified.

    Attributes:
        value: the cookie's value as text (latin-1, as the server hands it over).
        key: the session's id where the cookie carries it in clear, else None.
        has_twin: another cookie of that name with another value came too.
    """

    value: str = field(repr=False)
    key: str | None = field(default=None, repr=False)
    has_twin: bool = False

    @property
    def digest(self) -> bytes:
        """SHA-256 of the value: what caches and logs may hold."""
        return hashlib.sha256(self.value.encode("latin-1", "replace")).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacySession:
    """What a reader says about one legacy session.

    Attributes:
        state: see SessionState.
        identity: set for `ok` and `partial`.
        key: the session's id in its store, or its `_cf` marker; None if it has neither.
        auth_time: log-in time, POSIX seconds; None if the session does not tell.
        created_at: POSIX seconds; None if unknown.
        deadline: when it ends if nobody touches it, POSIX seconds; None = never.
        absolute_deadline: when it ends however often it is touched; None = never.
        data: the session's own data; of a lapsed session too, where its store still shows it.
        why: a few words for operators; never a value.
    """

    state: SessionState
    identity: Identity | None = None
    key: str | None = field(default=None, repr=False)
    auth_time: float | None = None
    created_at: float | None = None
    deadline: float | None = None
    absolute_deadline: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A legacy session that we made: the value of its cookie and its key (None: no key)."""

    cookie_value: str = field(repr=False)
    key: str | None = field(repr=False)
    deadline: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieAttributes:
    """How the framework sets its session cookie. Ours must match, or two cookies result."""

    name: str
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    http_only: bool = True
    same_site: str | None = "lax"
    max_age: int | None = None


class LegacySessions(Protocol):
    """One framework's sessions. `now` is POSIX seconds of the caller's clock."""

    reader: str
    """Short name of the format, part of every anchor digest: `sql`, `starlette`."""
    idle: float | None
    """Seconds after which an unused session ends by the framework's own rule; None: it has none."""
    server_side: bool
    """True if a record in a store can be deleted; False if the cookie is the session."""
    cookie: CookieAttributes

    def pick(self, cookies: Mapping[bytes, Sequence[bytes]]) -> Presented | None:
        """Return the credential the framework itself would read; None if absent. No I/O.

        Of twins it takes the one that the framework takes. An id of impossible shape is absent.
        """
        ...

    async def read(self, presented: Presented, now: float) -> LegacySession:
        """Read one session without touching it. Raises StoreUnavailable."""
        ...

    async def read_key(self, key: str, now: float) -> LegacySession:
        """Read a server-side session by its key; client-cookie formats answer `gone`."""
        ...

    def peek(self, scope: MutableMapping[str, Any], value: str, now: float) -> LegacySession | None:
        """Return the state after the application, from what its framework left in the scope.

        `value` is the cookie value being set. None: the scope does not show it, read it instead.
        """
        ...

    async def pin(self, key: str, until: float, now: float) -> LegacySession:
        """Move an idle deadline to `until`, never past the absolute one, and read the session.

        A session that is gone is answered as such and is not re-created.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete the record; absent is fine. Client-cookie formats do nothing."""
        ...

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
        """Make a session that the framework accepts, as if just used, ending by `deadline`.

        `identity` None makes an anonymous one (the sentinel). `key` chooses the id (the sentinel)
        or, for client-cookie formats, the `_cf` marker; None draws a random one. To hold it for
        longer than the framework's own idle time, pin it. Raises StoreUnavailable.
        """
        ...

    def cookie_value(self, key: str) -> str | None:
        """Return the cookie that carries a server-side key; None for client-cookie formats."""
        ...

    def mark(self, value: str, marker: str, now: float) -> str | None:
        """Return a client-held cookie re-signed with `_cf`; None where nothing is to be marked."""
        ...

    async def close(self) -> None:
        """Give the connections to the store back. Client-cookie formats do nothing."""
        ...


def anchor_digest(reader: str, key: str) -> bytes:
    """Return the anchor of a login: SHA-256 of reader and key, so that a leak holds no session."""
    return hashlib.sha256(f"{reader}|{key}".encode()).digest()
