"""The life of a login: opened, renewed, given its session back, ended in both worlds.

Here the login row, the tokens minted for it, and the legacy session under it meet. Whoever calls
decides when; what happens then is the same for an observed log-in, an upgrade, an exchange and a
refresh.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crossfade.anchors import Anchors, Fate, Kept
from crossfade.clock import Clock
from crossfade.errors import NotIssued, RefreshRejected, StoreUnavailable, TokenTooLarge
from crossfade.legacy.base import LegacySession, LegacySessions, SessionState
from crossfade.metrics import Metrics
from crossfade.principal import Identity
from crossfade.rollout.state import RolloutState
from crossfade.settings import ClientKind, Settings
from crossfade.stores.logins import LoginStore, NewLogin
from crossfade.tokens.anchor import AnchorHint
from crossfade.tokens.claims import AccessGrant
from crossfade.tokens.issuer import Issuer, Minted
from crossfade.tokens.refresh import Login, RefreshOutcome, RefreshToken
from crossfade.tokens.revocation import FeedEntry, FeedKind, Revocations

logger = logging.getLogger("crossfade.logins")

_ALIVE = frozenset({RefreshOutcome.ROTATED, RefreshOutcome.REPLAYED, RefreshOutcome.CURRENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a person may recognise a login by: address and user agent, shortened."""

    address: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Tokens for a login.

    Attributes:
        refresh_token: None where the client's own is still the live one.
        kept: the legacy session under the login.
    """

    login: Login
    access: Minted
    refresh_token: str | None = field(default=None, repr=False)
    kept: Kept = field(default_factory=lambda: Kept(fate=Fate.NONE))

    @property
    def max_age(self) -> float:
        """Seconds for which a browser is to keep the cookies: the refresh token's own life."""
        return max(1.0, min(self.login.idle_until, self.login.absolute_until) - self._now)

    @property
    def _now(self) -> float:
        return float(self.access.verified.issued_at)


class Logins:
    """Opens, renews and ends logins for one process."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: LoginStore,
        legacy: LegacySessions,
        anchors: Anchors,
        issuer: Issuer,
        state: Callable[[], RolloutState],
        revocations: Revocations,
        metrics: Metrics,
        clock: Clock,
        access_budget: int,
        restores: bool = True,
    ) -> None:
        self._tokens = settings.tokens
        self._store, self._legacy, self._anchors = store, legacy, anchors
        self._issuer, self._state, self._revocations = issuer, state, revocations
        self._metrics, self._clock = metrics, clock
        self._access_budget, self._restores = access_budget, restores

    async def open(
        self,
        session: LegacySession,
        *,
        client: ClientKind,
        grant: str,
        device: Device = Device(),
        supersedes: bytes | None = None,
        is_fresh: bool = False,
    ) -> Issued:
        """Open the login of an authenticated legacy session, or take the live one on it.

        Args:
            session: state ok.
            grant: `login`, `upgrade` or `exchange`.
            supersedes: sid of the browser's previous login, presented with this very request.
            is_fresh: the log-in itself was observed now: it lifts a tombstone.

        Raises:
            NotIssued: the rollout does not select the subject, or the session may not be upgraded.
            StoreUnavailable, KeysUnavailable: ours; nothing was issued.
        """
        identity = session.identity
        if session.state is not SessionState.OK or identity is None:
            raise NotIssued("session")
        if identity.actor:
            raise NotIssued("impersonation")
        if not self._state().selects(client, identity.subject):
            raise NotIssued("not_selected")
        self._issuer.check_key()
        now = self._clock.time()
        opened = await self._store.open(
            NewLogin(
                identity=identity,
                client=client,
                client_id=client,
                auth_time=self._auth_time(session, now, is_fresh=is_fresh),
                amr=(),
                idle=self._tokens.refresh_idle,
                absolute_until=self._absolute_end(session, now),
                reader=self._legacy.reader,
                anchor_key=session.key,
                anchor_until=session.deadline,
                grant=grant,
                address=device.address,
                agent=device.agent,
                supersedes=supersedes,
                fresh=is_fresh,
            )
        )
        kept = Kept(fate=Fate.NONE, key=session.key, until=session.deadline, session=session)
        if opened.is_new and session.key is not None:
            kept = await self._anchors.keep(opened.login)
            if kept.fate in {Fate.DELETED, Fate.ERROR}:
                kept = Kept(
                    fate=kept.fate, key=session.key, until=session.deadline, session=session
                )
        access = self._mint(opened.login, kept)
        self._metrics.inc("issued", "access", grant)
        self._metrics.inc("issued", "refresh", grant)
        return Issued(
            login=opened.login, access=access, refresh_token=opened.refresh_token, kept=kept
        )

    async def renew(self, token: RefreshToken, *, idempotency_key: str | None = None) -> Issued:
        """Spend a refresh token: rotate, look after the session under the login, mint.

        Raises:
            RefreshRejected: with its outcome; what was presented is of no use any more.
            StoreUnavailable, KeysUnavailable: ours; nothing was consumed that a repeat cannot mend.
        """
        # A process without keys must not spend the token: its owner would have to repeat it to
        # another process within the window, or look like a thief.
        self._issuer.check_key()
        try:
            rotation = await self._store.rotate(token, idempotency_key=idempotency_key)
        except StoreUnavailable:
            self._metrics.inc("refresh", "error")
            raise
        self._metrics.inc("refresh", rotation.outcome)
        login = rotation.login
        if rotation.outcome not in _ALIVE or login is None:
            if rotation.outcome is RefreshOutcome.REUSE and login is not None:
                self._deny(login)
                self._metrics.inc("revocations", "reuse")
            raise RefreshRejected(rotation.outcome, _since(login))
        kept = await self._kept(rotation.outcome, login)
        try:
            access = self._mint(login, kept)
        except TokenTooLarge as error:
            # The refresh token is spent: a token without the mapped claims is better than none.
            logger.error("the claims of a session outgrew its cookie and were left out: %s", error)  # noqa: TRY400 - no trace needed
            access = self._mint(login, replace(kept, session=None))
        self._metrics.inc("issued", "access", "refresh")
        if rotation.outcome is RefreshOutcome.ROTATED:
            self._metrics.inc("issued", "refresh", "refresh")
        return Issued(login=login, access=access, refresh_token=rotation.refresh_token, kept=kept)

    async def _kept(self, outcome: RefreshOutcome, login: Login) -> Kept:
        if outcome is RefreshOutcome.ROTATED:
            kept = await self._anchors.keep(login)
            if kept.fate is Fate.DELETED:
                await self.end(login.sid, why="session_ended", trigger="anchor")
                raise RefreshRejected(RefreshOutcome.ENDED)
            return kept
        # A repeat of what another request did a moment ago: the session was looked after there.
        kept = Kept(fate=Fate.NONE, key=login.anchor_key, until=login.anchor_until)
        if self._tokens.claims and login.anchor_key is not None and self._legacy.server_side:
            session = await self._legacy.read_key(login.anchor_key, self._clock.time())
            kept = Kept(fate=kept.fate, key=kept.key, until=kept.until, session=session)
        return kept

    async def restore(self, token: RefreshToken) -> tuple[Login, Kept]:
        """Give a login its legacy session back, without spending the refresh token.

        Raises:
            RefreshRejected: the token is not live.
            StoreUnavailable: ours, or the session store's; nothing changed.
        """
        if not self._restores:
            raise RefreshRejected(RefreshOutcome.SUPERSEDED)
        rotation = await self._store.check(token)
        login = rotation.login
        if rotation.outcome not in _ALIVE or login is None:
            raise RefreshRejected(rotation.outcome, _since(login))
        kept = await self._anchors.keep(login, is_last=True)
        if kept.fate is Fate.DELETED:
            await self.end(login.sid, why="session_ended", trigger="anchor")
            raise RefreshRejected(RefreshOutcome.ENDED)
        if kept.fate is Fate.ERROR:
            raise StoreUnavailable("sessions")
        if kept.cookie_value is None and kept.key is not None:
            value = self._legacy.cookie_value(kept.key)
            kept = Kept(
                fate=kept.fate,
                key=kept.key,
                until=kept.until,
                session=kept.session,
                cookie_value=value,
            )
        if kept.cookie_value is None:
            kept = await self._without_anchor(login)
        self._metrics.inc("restored", login.client)
        return login, kept

    async def _without_anchor(self, login: Login) -> Kept:
        """Make a session for a login that never had one with a key of its own."""
        now = self._clock.time()
        made = await self._legacy.create(
            login.identity,
            {},
            deadline=min(login.idle_until, login.absolute_until),
            now=now,
            auth_time=login.auth_time,
        )
        if made.key is not None:
            await self._store.rebind(
                login.sid,
                login.anchor,
                reader=self._legacy.reader,
                key=made.key,
                until=made.deadline,
                bury_old=False,
            )
        return Kept(
            fate=Fate.RECREATED, key=made.key, until=made.deadline, cookie_value=made.cookie_value
        )

    async def end(self, sid: bytes, *, why: str, trigger: str, actor: str = "") -> Login | None:
        """End one login in both worlds. None if it is unknown; ending twice is fine.

        This process refuses it at once, the others within the bound of the feed. Raises
        StoreUnavailable.
        """
        self._revocations.take_early(self._entry(FeedKind.LOGIN, sid))
        self._anchors.forget(sid)
        login = await self._store.end(sid, why=why, trigger=trigger, actor=actor)
        if login is not None:
            self._deny(login)
            self._metrics.inc("revocations", trigger)
        return login

    async def end_session(self, tenant: str, key: str, *, why: str, trigger: str) -> Login | None:
        """Bury a legacy session, and end the login that grew from it, if one did."""
        digest = self._anchors.digest(key)
        self._revocations.take_early(self._entry(FeedKind.TOMBSTONE, digest))
        login = await self._store.end_anchor(
            tenant, digest, key=key, reader=self._legacy.reader, why=why, trigger=trigger
        )
        if login is not None:
            self._deny(login)
            self._metrics.inc("revocations", trigger)
        return login

    async def end_all(
        self, identity: Identity, *, except_sid: bytes | None, why: str, trigger: str, actor: str
    ) -> int:
        """End every login of a subject, save one; log-ins from before count no more."""
        ended = await self._store.end_all(
            identity.tenant,
            identity.subject,
            except_sid=except_sid,
            why=why,
            trigger=trigger,
            actor=actor,
        )
        self._metrics.inc("revocations", trigger, by=ended)
        return ended

    async def rebind(self, login: Login, session: LegacySession) -> Minted | None:
        """Follow a session that the application moved to a new key; return a token that knows it.

        None where another request was first.
        """
        if session.key is None:
            return None
        moved = await self._store.rebind(
            login.sid,
            login.anchor,
            reader=self._legacy.reader,
            key=session.key,
            until=session.deadline,
            bury_old=True,
        )
        self._anchors.forget(login.sid)
        if not moved:
            return None
        kept = Kept(fate=Fate.PINNED, key=session.key, until=session.deadline, session=session)
        return self._mint(login, kept)

    def _mint(self, login: Login, kept: Kept) -> Minted:
        client: Any = login.client
        hint = None
        if self._anchors.is_on and kept.key is not None and login.client != "machine":
            hint = AnchorHint(reader=self._legacy.reader, key=kept.key, until=kept.until)
        minted = self._issuer.mint(
            AccessGrant(
                identity=login.identity,
                sid=login.sid,
                client=client,
                client_id=login.client_id,
                auth_time=login.auth_time,
                amr=login.amr,
                extra=self._mapped(kept.session),
                anchor=hint,
            ),
            budget=self._access_budget if login.client == "web" else None,
        )
        self._metrics.observe("token_size_bytes", len(minted.token))
        return minted

    def _mapped(self, session: LegacySession | None) -> dict[str, Any]:
        """Return the claims that the settings map from the session: an allow-list."""
        if session is None:
            return {}
        found = {name: _walk(session.data, path) for name, path in self._tokens.claims.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _auth_time(self, session: LegacySession, now: float, *, is_fresh: bool) -> float:
        # An undated session must lose against any "log out everywhere" that came before it.
        if session.auth_time is not None:
            return session.auth_time
        if is_fresh:
            return now
        return session.created_at if session.created_at is not None else now

    def _absolute_end(self, session: LegacySession, now: float) -> float:
        if self._tokens.refresh_absolute is not None:
            return now + self._tokens.refresh_absolute
        if session.absolute_deadline is not None:
            return session.absolute_deadline
        return now + self._tokens.login_lifetime

    def _deny(self, login: Login) -> None:
        self._revocations.take_early(self._entry(FeedKind.LOGIN, login.sid))
        if login.anchor is not None:
            self._revocations.take_early(self._entry(FeedKind.TOMBSTONE, login.anchor))
        self._anchors.forget(login.sid)

    def _entry(self, kind: FeedKind, value: bytes) -> FeedEntry:
        until = self._clock.time() + self._tokens.access_ttl + self._tokens.leeway + 60
        return FeedEntry(kind=kind, value=value, expires_at=until)


def _since(login: Login | None) -> float | None:
    if login is None:
        return None
    return login.rotated_at if login.ended_at is None else login.ended_at


def _walk(data: Mapping[str, Any], path: str) -> Any:
    found: Any = data
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found
