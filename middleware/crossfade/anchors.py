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
from crossfade.tokens.anchor import AnchorHint
from crossfade.tokens.claims import VerifiedToken
from crossfade.tokens.refresh import Login
from crossfade.tokens.revocation import FeedEntry, FeedKind, Revocations

logger = logging.getLogger("crossfade.anchors")

SEEN_FOR = 60.0
"""Seconds for which an anchor that was seen alive is not looked at again."""
ENDED = "ended"
"""Why a session is gone that the application itself might still accept: a log-out voided it."""
_CLOSE = 2.0
"""Seconds before a session's absolute end at which its login goes on under a new one.

Not earlier: until the other processes have heard of it, what the application writes into the old
one is lost with it. Not later: it would end between our look and the application's.
"""
_UNDATED = 0.0
"""A session that tells no time is older than any log-out everywhere, but not than "never"."""
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
    hints: tuple[str, ...] = field(repr=False)  # the keys that tokens name it by: its former too


@dataclass(frozen=True, slots=True)
class SessionClaim:
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
        watch_every: float,
        is_on: bool = True,
        pins: bool = True,
    ) -> None:
        self._legacy, self._store, self._sentinels = legacy, store, sentinels
        self._revocations, self._clock, self._metrics = revocations, clock, metrics
        self._margin, self.is_on, self._pins = 4 * watch_every, is_on, pins
        mac = roots.mac(roots.active, "sentinel", legacy.reader.encode())
        self._sentinel_key = str(UUID(bytes=mac[:16]))  # a form that every store takes for an id
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._looked_up: deque[tuple[float, bool]] = deque(maxlen=10_000)
        self._cleared: OrderedDict[bytes, None] = OrderedDict()

    def digest(self, key: str) -> bytes:
        """Return the anchor digest of a session's key."""
        return anchor_digest(self._legacy.reader, key)

    async def keep(self, login: Login, *, is_last: bool = False) -> Kept:
        """Pin a login's session, or make it anew if it lapsed; called once a refresh.

        With `is_last` nobody will look after it again: one that is in the second half of its life,
        and would end before the login, is made anew too. A login without an anchor keeps none.
        Raises StoreUnavailable only for our own database.
        """
        if login.anchor_key is None or not self.is_on:
            return Kept(fate=Fate.NONE)
        if not self._pins:
            return Kept(fate=Fate.NONE, key=login.anchor_key, until=login.anchor_until)
        try:
            kept = await self._keep(login, login.anchor_key, is_last=is_last)
        except StoreUnavailable as error:
            if error.backend != "sessions":
                raise
            kept = Kept(fate=Fate.ERROR, key=login.anchor_key, until=login.anchor_until)
        self._metrics.inc("anchors", kept.fate) if kept.fate is not Fate.NONE else None
        if kept.fate is Fate.PINNED and kept.key is not None:
            await self._store.anchor_seen(login.sid, self.digest(kept.key), until=kept.until)
        return kept

    async def _keep(self, login: Login, key: str, *, is_last: bool) -> Kept:
        now = self._clock.time()
        if not self._legacy.server_side:
            return await self._keep_cookie(login, key, now)
        ends = min(login.idle_until, login.absolute_until)
        session = await self._legacy.pin(key, ends, now)
        if session.state is SessionState.OK and session.identity == login.identity:
            if is_last and _is_old(session, now) and _ends_before(session, login):
                return await self._recreate(login, session, Fate.RECREATED)
            until = self._by_its_own_rule(session.deadline, now)
            self._remember(login.sid, key, until)
            return Kept(
                fate=Fate.PINNED,
                key=key,
                until=until,
                session=session,
                cookie_value=self._legacy.cookie_value(key),
            )
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
        if session.identity == login.identity:
            return await self._recreate(login, session, Fate.RECREATED)
        if login.anchor_until is not None and now >= login.anchor_until:
            return await self._recreate(login, session, Fate.RECREATED)
        # Only what is missing before its time: else many that lapse would look like a loss of data,
        # and a loss of data keeps log-outs from being believed.
        self._looked_up.append((self._clock.monotonic(), True))
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
            return Kept(
                fate=fate,
                key=current.anchor_key,
                until=current.anchor_until,
                cookie_value=self._legacy.cookie_value(current.anchor_key),
            )
        await self._legacy.pin(made.key, min(login.idle_until, login.absolute_until), now)
        self._remember(login.sid, made.key, made.deadline, hint=login.anchor_key)
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
        # A token that names another session than the one seen may be newer than our news.
        is_fresh = is_fresh and seen is not None and token.anchor.key in seen.hints
        if seen is not None and is_fresh and not self._revocations.is_buried(seen.digest):
            return seen.kept
        try:
            return await self._look(token, token.anchor)
        except StoreUnavailable:
            self._metrics.inc("session_access_unanchored")
            return Kept(fate=Fate.ERROR)

    async def _look(self, token: VerifiedToken, hint: AnchorHint) -> Kept:
        now, key = self._clock.time(), hint.key
        if not self._legacy.server_side:
            return await self._synthesise(token, key, now)
        if self._may_be_stale(token, hint, now):
            login = await self._live(token.sid)
            if login is None or self.is_buried(key := login.anchor_key or ""):
                return Kept(fate=Fate.NONE)
        session = await self._legacy.read_key(key, now)
        self._looked_up.append((self._clock.monotonic(), False))
        if session.state is SessionState.GONE or _is_at_its_end(session, now):
            # Another process may just have made it anew: what is read here is then the old copy.
            login = await self._live(token.sid)
            if login is None:
                return Kept(fate=Fate.NONE)
            if login.anchor_key is not None and login.anchor_key != key:
                key = login.anchor_key
                session = await self._legacy.read_key(key, now)
            if session.state is SessionState.GONE:
                return await self.gone(login, session)
            is_own = session.state is SessionState.OK and session.identity == login.identity
            if is_own and _is_at_its_end(session, now) and login.absolute_until > now + _CLOSE:
                return await self._recreate(login, session, Fate.RECREATED)
        return self._seen_alive(token, key, session)

    def _may_be_stale(self, token: VerifiedToken, hint: AnchorHint, now: float) -> bool:
        """Say whether the login row must be asked: the claim is a hint, the row the truth."""
        has_lapsed = hint.until is not None and now >= hint.until
        has_moved = self._revocations.is_rebound(token.sid, token.issued_at)
        return has_lapsed or has_moved or self.is_buried(hint.key)

    async def _live(self, sid: bytes) -> Login | None:
        """Return a live login that has a session."""
        login = await self._store.get(sid)
        if login is None or login.ended_at is not None or login.anchor_key is None:
            return None
        return login

    def _seen_alive(self, token: VerifiedToken, key: str, session: LegacySession) -> Kept:
        """Judge a session that was read and is there."""
        if session.state is SessionState.PARTIAL:
            return Kept(fate=Fate.NONE)
        if session.state is not SessionState.OK or session.identity != token.identity:
            return Kept(fate=Fate.DELETED, session=session)
        hint = None if token.anchor is None else token.anchor.key
        self._remember(token.sid, key, session.deadline, hint=hint)
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
        claim = claim_of(session)
        return claim is not None and self._revocations.is_revoked(claim)

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
        self,
        sid: bytes,
        key: str,
        deadline: float | None,
        value: str | None = None,
        hint: str | None = None,
    ) -> None:
        if value is None and (value := self._legacy.cookie_value(key)) is None:
            return
        left = SEEN_FOR
        if deadline is not None:
            left = min(SEEN_FOR, deadline - self._clock.time() - _CLOSE)
        kept = Kept(fate=Fate.PINNED, key=key, until=deadline, cookie_value=value)
        hints = (key, hint or key)
        self._seen[sid] = _Seen(self._clock.monotonic() + left, kept, self.digest(key), hints)
        self._seen.move_to_end(sid)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    async def watch_sentinel(self) -> None:
        """Keep the sentinel alive, and date a new one when the store lost it. A chore."""
        if not self._legacy.server_side:
            return
        now = self._clock.time()
        found = await self._legacy.read_key(self._sentinel_key, now)
        is_there = found.state is not SessionState.GONE
        if is_there and (found.deadline is None or found.deadline - now > self._margin):
            return
        known = await self._sentinels.get(self._legacy.reader)
        is_lost = known is not None and not is_there and now < known.lives_until
        if is_lost:
            logger.error("the session store lost our sentinel: nobody is logged out for it")
        # Replaced before its end: while it is missing no log-out could be told from a loss.
        end = now + _SENTINEL_LIFE
        await self._legacy.create(None, {}, deadline=end, now=now, key=self._sentinel_key)
        made = await self._legacy.pin(self._sentinel_key, end, now)
        born_at = now if known is None or is_lost else known.born_at
        lives_until = end if made.deadline is None else made.deadline
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


def _is_old(session: LegacySession, now: float) -> bool:
    end, began = session.absolute_deadline, session.created_at
    return end is not None and began is not None and end - now < now - began


def _ends_before(session: LegacySession, login: Login) -> bool:
    end = session.absolute_deadline
    return end is not None and end + 1 < login.absolute_until


def _is_at_its_end(session: LegacySession, now: float) -> bool:
    end = session.absolute_deadline
    return end is not None and end - now <= _CLOSE


def claim_of(session: LegacySession) -> SessionClaim | None:
    """Return what a session claims, for the revocation view; None if it names nobody."""
    if session.identity is None:
        return None
    since = session.auth_time if session.auth_time is not None else session.created_at
    return SessionClaim(session.identity, _UNDATED if since is None else since)
