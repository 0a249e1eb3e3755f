"""The legacy session under a login: kept alive with it, re-created when it lapsed, never mistaken.

An unchanged application finds its user only through a live record of its own, in every phase (ADR
0007). A store cannot tell a deleted record from an expired one; the login row, a sentinel record
of ours in the same store, and the rate of missing anchors tell.
"""

import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from crossfade.clock import Clock
from crossfade.errors import StoreUnavailable
from crossfade.keys.roots import RootSecrets
from crossfade.legacy.base import LegacySession, LegacySessions, SessionState, anchor_digest
from crossfade.metrics import Metrics
from crossfade.principal import Identity
from crossfade.stores.logins import LoginStore
from crossfade.stores.sentinels import Sentinel, SentinelStore
from crossfade.tokens.claims import VerifiedToken
from crossfade.tokens.refresh import Login
from crossfade.tokens.revocation import FeedEntry, FeedKind, Revocations

logger = logging.getLogger("crossfade.anchors")

SEEN_FOR = 60.0
"""Seconds for which an anchor that was seen alive is not looked at again."""
ENDED = "ended"
"""Why a session is gone that the application itself might still accept: a log-out voided it."""
_REMEMBERED = 50_000
_MISSING_RATE = 0.02
_MISSING_LEAST = 5
_SENTINEL_LIFE = 365 * 86400.0


class Fate(StrEnum):
    """What became of a login's legacy session."""

    PINNED = "pinned"
    RECREATED = "recreated"
    DELETED = "deleted"
    """Ended elsewhere: a log-out, a password reset, an operator. The login ends with it."""
    STORE_LOSS = "store_loss"
    """The store lost data: nobody is logged out, the session is made anew."""
    ERROR = "error"
    """The store did not answer; the login goes on without it."""
    NONE = "none"
    """The login has no such session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A login's session after it was looked after.

    Attributes:
        key, until: the session's key and deadline; None if there is none to attach.
        session: as read; None where it was not.
        cookie_value: of a session made anew; the browser may need it.
    """

    fate: Fate
    key: str | None = field(default=None, repr=False)
    until: float | None = None
    session: LegacySession | None = None
    cookie_value: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Seen:
    until: float  # monotonic
    kept: Kept
    digest: bytes


@dataclass(frozen=True, slots=True)
class _SessionClaim:
    """A legacy session, asked about as a token is: it has no login and no key of its own."""

    identity: Identity
    auth_time: float
    sid: bytes = b""
    kid: str = ""


class Anchors:
    """Looks after the legacy sessions of logins, for one process."""

    def __init__(
        self,
        *,
        legacy: LegacySessions,
        store: LoginStore,
        sentinels: SentinelStore,
        roots: RootSecrets,
        revocations: Revocations,
        clock: Clock,
        metrics: Metrics,
        access_ttl: float,
        is_on: bool = True,
        pins: bool = True,
    ) -> None:
        self._legacy, self._store, self._sentinels = legacy, store, sentinels
        self._revocations, self._clock, self._metrics = revocations, clock, metrics
        self._access_ttl, self.is_on, self._pins = access_ttl, is_on, pins
        mac = roots.mac(roots.active, "sentinel", legacy.reader.encode())
        self._sentinel_key = str(UUID(bytes=mac[:16]))  # a form that every store takes for an id
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._looked_up: deque[tuple[float, bool]] = deque(maxlen=10_000)
        self._cleared: OrderedDict[bytes, None] = OrderedDict()

    def digest(self, key: str) -> bytes:
        """Return the anchor digest of a session's key."""
        return anchor_digest(self._legacy.reader, key)

    async def keep(self, login: Login) -> Kept:
        """Pin a login's session, or make it anew if it lapsed; called once a refresh.

        A login without an anchor keeps none. Raises StoreUnavailable only for our own database.
        """
        if login.anchor_key is None or not self.is_on:
            return Kept(fate=Fate.NONE)
        if not self._pins:
            return Kept(fate=Fate.NONE, key=login.anchor_key, until=login.anchor_until)
        try:
            kept = await self._keep(login, login.anchor_key)
        except StoreUnavailable as error:
            if error.backend != "sessions":
                raise
            kept = Kept(fate=Fate.ERROR, key=login.anchor_key, until=login.anchor_until)
        self._metrics.inc("anchors", kept.fate) if kept.fate is not Fate.NONE else None
        if kept.fate is Fate.PINNED and kept.key is not None:
            await self._store.anchor_seen(login.sid, self.digest(kept.key), until=kept.until)
        return kept

    async def _keep(self, login: Login, key: str) -> Kept:
        now = self._clock.time()
        if not self._legacy.server_side:
            return await self._keep_cookie(login, key, now)
        ends = min(login.idle_until, login.absolute_until)
        session = await self._legacy.pin(key, ends, now)
        if session.state is SessionState.OK and session.identity == login.identity:
            if _outlives(session, now + 2 * self._access_ttl) or not _outlives_by(login, session):
                until = self._by_its_own_rule(session.deadline, now)
                self._remember(login.sid, key, until)
                return Kept(fate=Fate.PINNED, key=key, until=until, session=session)
            # Its absolute end comes before the next refresh: go on with its data under a new key.
            return await self._recreate(login, session, Fate.RECREATED)
        if session.state is SessionState.PARTIAL:
            return Kept(fate=Fate.NONE, key=key, until=login.anchor_until, session=session)
        if session.state is not SessionState.GONE:
            return Kept(fate=Fate.DELETED, session=session)
        return await self.gone(login, session)

    async def gone(self, login: Login, session: LegacySession) -> Kept:
        """Decide what a missing session means, and act: lapsed, deleted, or the store lost data.

        A store that still shows the record has not deleted it: its data goes on.
        """
        now = self._clock.time()
        self._looked_up.append((self._clock.monotonic(), True))
        if session.identity == login.identity:
            return await self._recreate(login, session, Fate.RECREATED)
        if login.anchor_until is not None and now >= login.anchor_until:
            return await self._recreate(login, session, Fate.RECREATED)
        if await self.store_lost(login):
            logger.error("a live login's session is missing and the store lost data: made anew")
            return await self._recreate(login, session, Fate.STORE_LOSS)
        return Kept(fate=Fate.DELETED, session=session)

    def _by_its_own_rule(self, deadline: float | None, now: float) -> float | None:
        """Return when a session ends at the earliest unless somebody deletes it.

        The application's next request touches it too, and may take back what we pinned.
        """
        if self._legacy.idle is None:
            return deadline
        own = now + self._legacy.idle
        return own if deadline is None else min(own, deadline)

    async def _keep_cookie(self, login: Login, key: str, now: float) -> Kept:
        """Make the cookie of a client-held session: there is no record to look at."""
        made = await self._legacy.create(
            login.identity,
            {},
            deadline=min(login.idle_until, login.absolute_until),
            now=now,
            auth_time=login.auth_time,
            key=key,
        )
        return Kept(fate=Fate.PINNED, key=key, until=made.deadline, cookie_value=made.cookie_value)

    async def _recreate(self, login: Login, session: LegacySession, fate: Fate) -> Kept:
        now = self._clock.time()
        made = await self._legacy.create(
            login.identity,
            session.data,
            deadline=min(login.idle_until, login.absolute_until),
            now=now,
            auth_time=login.auth_time,
        )
        if made.key is None:
            return Kept(fate=fate, cookie_value=made.cookie_value)
        is_ours = await self._store.rebind(
            login.sid,
            login.anchor,
            reader=self._legacy.reader,
            key=made.key,
            until=made.deadline,
            bury_old=False,
        )
        if not is_ours:
            # Another tab was first: its session is the one, ours must not be left behind.
            await self._legacy.delete(made.key)
            current = await self._store.get(login.sid)
            if current is None or current.anchor_key is None or current.ended_at is not None:
                return Kept(fate=Fate.NONE)
            return Kept(fate=fate, key=current.anchor_key, until=current.anchor_until)
        await self._legacy.pin(made.key, min(login.idle_until, login.absolute_until), now)
        self._remember(login.sid, made.key, made.deadline)
        return Kept(
            fate=fate,
            key=made.key,
            until=made.deadline,
            cookie_value=made.cookie_value,
            session=LegacySession(
                state=SessionState.OK, identity=login.identity, data=session.data
            ),
        )

    async def attachable(self, token: VerifiedToken) -> Kept:
        """Return the session to give the application for a token; at most one read a minute.

        `fate` is DELETED where the login ended with its session, ERROR where the store did not
        answer.
        """
        if not self.is_on or token.anchor is None:
            return Kept(fate=Fate.NONE)
        seen = self._seen.get(token.sid)
        is_fresh = seen is not None and self._clock.monotonic() < seen.until
        if seen is not None and is_fresh and not self._revocations.is_buried(seen.digest):
            return seen.kept
        try:
            return await self._look(token, token.anchor.key, token.anchor.until)
        except StoreUnavailable:
            self._metrics.inc("session_access_unanchored")
            return Kept(fate=Fate.ERROR)

    async def _look(self, token: VerifiedToken, key: str, until: float | None) -> Kept:
        now = self._clock.time()
        if not self._legacy.server_side:
            return await self._synthesise(token, key, now)
        login: Login | None = None
        if self._revocations.is_rebound(token.sid, token.issued_at) or (
            until is not None and now >= until
        ):
            login = await self._store.get(token.sid)
            if login is None or login.ended_at is not None or login.anchor_key is None:
                return Kept(fate=Fate.NONE)
            key = login.anchor_key
        session = await self._legacy.read_key(key, now)
        self._looked_up.append((self._clock.monotonic(), False))
        if session.state is SessionState.GONE:
            login = await self._store.get(token.sid)
            if login is None or login.ended_at is not None or login.anchor_key is None:
                return Kept(fate=Fate.NONE)
            if login.anchor_key != key:
                key = login.anchor_key
                session = await self._legacy.read_key(key, now)
            if session.state is SessionState.GONE:
                return await self.gone(login, session)
        if session.state is SessionState.PARTIAL:
            return Kept(fate=Fate.NONE)
        if session.state is not SessionState.OK or session.identity != token.identity:
            return Kept(fate=Fate.DELETED, session=session)
        self._remember(token.sid, key, session.deadline)
        return Kept(
            fate=Fate.PINNED,
            key=key,
            until=session.deadline,
            session=session,
            cookie_value=self._legacy.cookie_value(key),
        )

    async def _synthesise(self, token: VerifiedToken, key: str, now: float) -> Kept:
        """Make the cookie of a client-held session for this process's own application."""
        if self._revocations.is_buried(self.digest(key)):
            return Kept(fate=Fate.NONE)
        made = await self._legacy.create(
            token.identity,
            {},
            deadline=token.expires_at + SEEN_FOR,
            now=now,
            auth_time=token.auth_time,
            key=key,
        )
        self._remember(token.sid, key, made.deadline, made.cookie_value)
        return Kept(fate=Fate.PINNED, key=key, cookie_value=made.cookie_value)

    def is_buried(self, key: str) -> bool:
        """Say whether a session must not be authenticated any more."""
        return self._revocations.is_buried(self.digest(key))

    def is_ended(self, token: VerifiedToken) -> bool:
        """Say whether the login of a token was ended meanwhile."""
        return self._revocations.is_revoked(token)

    def is_void(self, session: LegacySession) -> bool:
        """Say whether a session was ended by us, or its subject logged out everywhere since.

        A session without a log-in time is void for a subject who ever did.
        """
        if session.key is not None and self.is_buried(session.key):
            return True
        if session.identity is None:
            return False
        since = session.auth_time if session.auth_time is not None else session.created_at
        return self._revocations.is_revoked(
            _SessionClaim(session.identity, since if since is not None else float("-inf"))
        )

    def new_marker(self) -> str:
        """Return a random id for a client-held session."""
        return secrets.token_urlsafe(16)

    def clears_once(self, sid: bytes) -> bool:
        """Say whether a login's browser is still to be rid of another user's session; once."""
        if sid in self._cleared:
            return False
        self._cleared[sid] = None
        if len(self._cleared) > _REMEMBERED:
            self._cleared.popitem(last=False)
        return True

    def hear(self, entries: Iterable[FeedEntry]) -> None:
        """Drop what another process has ended or moved to a new key."""
        for entry in entries:
            if entry.kind in {FeedKind.ANCHOR, FeedKind.LOGIN}:
                self.forget(entry.value)

    def forget(self, sid: bytes) -> None:
        """Drop what is known of a login's session: it was rebound or ended."""
        self._seen.pop(sid, None)

    def _remember(
        self, sid: bytes, key: str, deadline: float | None, value: str | None = None
    ) -> None:
        if value is None and (value := self._legacy.cookie_value(key)) is None:
            return
        left = SEEN_FOR if deadline is None else min(SEEN_FOR, deadline - self._clock.time())
        kept = Kept(fate=Fate.PINNED, key=key, until=deadline, cookie_value=value)
        self._seen[sid] = _Seen(self._clock.monotonic() + left, kept, self.digest(key))
        self._seen.move_to_end(sid)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    async def watch_sentinel(self) -> None:
        """Keep the sentinel alive, and date a new one when the store lost it. A chore."""
        if not self._legacy.server_side:
            return
        now = self._clock.time()
        known = await self._sentinels.get(self._legacy.reader)
        found = await self._legacy.pin(self._sentinel_key, now + _SENTINEL_LIFE, now)
        if found.state is SessionState.GONE:
            is_loss = known is not None and now < known.lives_until
            if is_loss:
                logger.error("the session store lost our sentinel: nobody is logged out for it")
            born_at = known.born_at if known is not None and not is_loss else now
            made = await self._legacy.create(
                None, {}, deadline=now + _SENTINEL_LIFE, now=now, key=self._sentinel_key
            )
            lives_until = now + _SENTINEL_LIFE if made.deadline is None else made.deadline
        else:
            born_at = now if known is None else known.born_at
            lives_until = now + _SENTINEL_LIFE if found.deadline is None else found.deadline
        await self._sentinels.put(
            self._legacy.reader, Sentinel(born_at=born_at, lives_until=lives_until)
        )

    async def store_lost(self, login: Login) -> bool:
        """Say whether a session is missing because its store lost data."""
        if not self._legacy.server_side:
            return False
        now = self._clock.time()
        sentinel = await self._sentinels.get(self._legacy.reader)
        if sentinel is None:
            return True
        found = await self._legacy.read_key(self._sentinel_key, now)
        if found.state is SessionState.GONE:
            return True
        if login.anchor_seen_at is not None and login.anchor_seen_at < sentinel.born_at:
            return True
        return self._many_are_missing()

    def _many_are_missing(self) -> bool:
        since = self._clock.monotonic() - 60
        recent = [is_missing for at, is_missing in self._looked_up if at >= since]
        missing = sum(recent)
        return missing >= _MISSING_LEAST and missing > _MISSING_RATE * len(recent)


def _outlives(session: LegacySession, until: float) -> bool:
    return session.absolute_deadline is None or session.absolute_deadline > until


def _outlives_by(login: Login, session: LegacySession) -> bool:
    """Say whether the login goes on past the session's absolute end."""
    end = session.absolute_deadline
    return end is not None and login.absolute_until > end + 1
