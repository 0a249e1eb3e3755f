"""Who a request is, in order: extract, verify, read, renew, decide. The one place that counts.

A request passes here once, before the application runs. A hot token costs a few dictionary
look-ups: no network, no database, no lock.
"""

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

from starlette.types import Scope

from crossfade.anchors import ENDED, Anchors, Fate, Kept
from crossfade.bridge import Bridge, Reply
from crossfade.clock import Clock
from crossfade.credentials import Authorization, CookieNames, Credentials, Headers, extract
from crossfade.decision import (
    Decision,
    Effect,
    Evidence,
    SessionEvidence,
    TokenEvidence,
    TokenState,
    Verdict,
    decide,
)
from crossfade.errors import (
    KeysUnavailable,
    NotIssued,
    Reason,
    RefreshRejected,
    StoreUnavailable,
    TokenRejected,
    TokenTooLarge,
)
from crossfade.events import Events
from crossfade.keys.roots import RootSecrets
from crossfade.legacy.base import (
    LegacySession,
    LegacySessions,
    Presented,
    SessionState,
)
from crossfade.logins import Device, Logins
from crossfade.metrics import Metrics
from crossfade.notes import GateNotes
from crossfade.policy import SAFE_METHODS, ClientClassifier, Routes, header
from crossfade.principal import Credential, Identity, Principal
from crossfade.responses import TokenCookies, clear_legacy
from crossfade.rollout.source import Follower
from crossfade.rollout.state import Mode, RolloutState
from crossfade.settings import ClientKind, Settings
from crossfade.tokens.claims import VerifiedToken
from crossfade.tokens.refresh import RefreshToken, decode
from crossfade.tokens.verifier import COOKIE_CAP, TokenVerifier

logger = logging.getLogger("crossfade.authenticator")

IN_FLIGHT = 60.0
"""Seconds for which a request may still be on its way with what was good when it was sent."""
FORGIVEN_AFTER_EXPIRY = 300.0
"""Seconds after its end for which an expired bearer may lean on the session beside it (row 15)."""
_UNDECIDED = Decision(row="", verdict=Verdict.ANONYMOUS)
_ABSENT_SESSION = LegacySession(state=SessionState.ABSENT)
_NO_TOKEN = TokenEvidence(state=TokenState.ABSENT)
_FOREIGN = TokenEvidence(state=TokenState.FOREIGN, reason=Reason.FOREIGN)
_KEYS_GONE = TokenEvidence(state=TokenState.UNKNOWN, reason=Reason.KEYS_UNAVAILABLE)
_STALE = TokenEvidence(state=TokenState.UNKNOWN, reason=Reason.REVOCATIONS_STALE)
_OURS = frozenset({Reason.KEYS_UNAVAILABLE, Reason.REVOCATIONS_STALE, Reason.SESSION_UNKNOWN})
_READ_SESSIONS = 20_000
_ABOUT_TO_END = 0.5
"""Seconds: by the time that the application reads it, such a session may be over."""
_PRINCIPALS = 10_000


@dataclass
class Authenticated:
    """One request, decided, and all that its reply will need.

    Attributes:
        scope: as the application will see it.
        session: the presented legacy session; `session_is_assumed` if it was not read.
        token: the winning token, or the ambient one beside a winning session; None without one.
        kept: the legacy session to give the application for the token; None if none is needed.
        restored_value: the cookie of a session given back on this request.
        held: verified tokens that came, the winning one first, expired ones too.
        reply: cookies that this request already owes its client.
        queue, unended: log-outs that the database would not take, by session and by login.
        is_declared_login: the application said that its user logged in.
    """

    scope: Scope
    method: str
    path: str
    headers: Headers
    state: RolloutState
    mode: Mode
    client: ClientKind
    credentials: Credentials
    presented: Presented | None
    own_cookie_names: frozenset[bytes]
    roots: RootSecrets
    session: LegacySession = _ABSENT_SESSION
    session_is_assumed: bool = False
    token: VerifiedToken | None = None
    held: tuple[VerifiedToken, ...] = ()
    kept: Kept | None = None
    restored_value: str | None = field(default=None, repr=False)
    decision: Decision = _UNDECIDED
    principal: Principal | None = None
    reply: Reply = field(default_factory=Reply)
    queue: list[tuple[str, str]] = field(default_factory=list, repr=False)
    unended: list[bytes] = field(default_factory=list)
    is_declared_login: bool = False

    @cached_property
    def refresh(self) -> RefreshToken | None:
        """The refresh token whose tag verifies; judged only where somebody asks."""
        for value in self.credentials.refresh:
            if (token := decode(value, self.roots)) is not None:
                return token
        return None

    @property
    def presented_sids(self) -> list[bytes]:
        """The logins whose tokens this request proved to hold."""
        sids = [token.sid for token in self.held]
        if self.refresh is not None:
            sids.append(self.refresh.sid)
        return list(dict.fromkeys(sids))

    @property
    def principal_identity(self) -> Identity | None:
        """Who the request is, None if nobody."""
        return None if self.principal is None else self.principal.who

    @property
    def presented_sid(self) -> bytes | None:
        """The login that this request proved to hold, if any."""
        sids = self.presented_sids
        return sids[0] if sids else None

    @property
    def refresh_is_proved(self) -> bool:
        """Whether the client also holds the refresh secret of the winning token's login."""
        return (
            self.refresh is not None
            and self.token is not None
            and self.refresh.sid == self.token.sid
        )

    @property
    def session_is_anonymous(self) -> bool:
        """Whether a legacy session without a user was presented."""
        return self.session.state is SessionState.ANONYMOUS

    @property
    def device(self) -> Device:
        """What the client looks like, shortened."""
        client = self.scope.get("client")
        agent = header(self.headers, b"user-agent") or b""
        return Device(
            address=client[0] if client else "", agent=agent[:200].decode("latin-1", "replace")
        )

    def journal(self, *, session: str, tenant: str) -> None:
        """Queue a log-out that could not be written."""
        self.queue.append((tenant, session))


class Authenticator:
    """Turns a scope into an Authenticated request."""

    def __init__(
        self,
        *,
        settings: Settings,
        roots: RootSecrets,
        follower: Follower,
        verifier: TokenVerifier,
        legacy: LegacySessions,
        anchors: Anchors,
        logins: Logins,
        bridge: Bridge,
        cookies: TokenCookies,
        metrics: Metrics,
        notes: GateNotes,
        events: Events,
        clock: Clock,
    ) -> None:
        self._events = events
        self._settings, self._roots = settings, roots
        self._follower, self._verifier = follower, verifier
        self._legacy, self._anchors, self._logins, self._bridge = legacy, anchors, logins, bridge
        self._cookies, self._metrics, self._notes, self._clock = cookies, metrics, notes, clock
        self._names = CookieNames(
            access=cookies.access_name.encode(), refresh=cookies.refresh_name.encode()
        )
        self._own_names = frozenset({self._names.access, self._names.refresh})
        self._legacy_name = legacy.cookie.name.encode("latin-1")
        self._classifier = ClientClassifier(settings.clients)
        self._routes = Routes(settings.routes)
        self._leeway = settings.tokens.leeway
        self._application_schemes = frozenset(s.lower() for s in settings.application_schemes)
        self._rejects = settings.identity_conflict == "reject"
        self._principals = _Principals()
        self._read: OrderedDict[tuple[bytes, str], LegacySession] = OrderedDict()

    async def authenticate(self, scope: Scope) -> Authenticated:
        """Decide who a request is. Raises nothing: our own faults are verdicts too."""
        started = time.perf_counter()
        headers: Headers = scope["headers"]
        path: str = scope["path"]
        credentials = extract(headers, self._names)
        state = self._follower.state
        request = Authenticated(
            scope=scope,
            method=scope.get("method", ""),
            path=path,
            headers=headers,
            state=state,
            mode=state.mode,
            client=self._classifier.kind(path, headers),
            credentials=credentials,
            presented=self._pick(credentials),
            own_cookie_names=self._own_names,
            roots=self._roots,
        )
        if request.mode is Mode.OFF:
            await self._with_sessions_only(request)
        else:
            await self._with_both(request)
        self._count(request, time.perf_counter() - started)
        return request

    def _pick(self, credentials: Credentials) -> Presented | None:
        for name, _ in credentials.pairs:
            if name == self._legacy_name:
                return self._legacy.pick(credentials.cookies())
        return None

    async def _with_sessions_only(self, request: Authenticated) -> None:
        """Phases without tokens: sessions rule, yet a refresh token is still honoured."""
        if request.presented is not None:
            request.session = await self._read_session(request.presented)
        has_live = self._lasts(request.session)
        if request.credentials.refresh and not has_live and request.client == "web":
            await self._restore(request)
        evidence = Evidence(
            header=_NO_TOKEN,
            cookie=_NO_TOKEN,
            session=SessionEvidence(state=request.session.state, identity=request.session.identity),
        )
        request.decision = decide(evidence, Mode.OFF, "session")
        self._set_principal(request)

    async def _restore(self, request: Authenticated) -> None:
        if request.refresh is None or request.session.state is SessionState.UNKNOWN:
            return
        if request.session.state is SessionState.PARTIAL:
            return  # a log-in is under way: it must not be replaced by the former one
        try:
            login, kept = await self._logins.restore(request.refresh)
        except RefreshRejected as error:
            self._forget_refused(request, error)
            return
        except (StoreUnavailable, NotIssued) as error:
            logger.warning("a session could not be given back yet: %s", error)
            return
        cookie = self._bridge.hand_back(kept)
        if cookie is None or kept.cookie_value is None:
            return
        request.restored_value = kept.cookie_value
        request.session = LegacySession(
            state=SessionState.OK,
            identity=login.identity,
            key=kept.key,
            deadline=kept.until,
            auth_time=login.auth_time,
        )
        request.session_is_assumed = True
        request.reply.cookies += [cookie, *self._cookies.clear()]
        request.reply.is_due = True

    async def _with_both(self, request: Authenticated) -> None:
        """Phases with tokens: verify, renew, read what the table needs, decide."""
        bearer, h_token = self._judge_bearer(request.credentials)
        ambient, c_token, several = self._judge_cookies(request.credentials)
        by_cookie = bearer.state in {TokenState.ABSENT, TokenState.FOREIGN}
        may_renew = by_cookie and ambient.state not in {TokenState.OK, TokenState.UNKNOWN}
        if may_renew and request.client == "web" and not self._routes.no_renew(request.path):
            renewed = await self._renew(request)
            if renewed is not None:
                ambient, c_token = renewed
        token = h_token if bearer.state is TokenState.OK else c_token
        request.held = tuple(t for t in (h_token, c_token) if t is not None)
        request.token = token
        has_ok = bearer.state is TokenState.OK or ambient.state is TokenState.OK
        if has_ok or request.presented is not None:
            await self._look_at_session(request, token if has_ok else None)
        evidence = Evidence(
            header=bearer,
            cookie=ambient,
            session=SessionEvidence(
                state=request.session.state,
                identity=request.session.identity,
                ended_login=request.kept is not None and request.kept.fate is Fate.DELETED,
            ),
            several=several or request.credentials.authorization is Authorization.SEVERAL,
            is_unsafe=request.method not in SAFE_METHODS,
            login_required=self._routes.login_required(request.path),
        )
        request.decision = decide(
            evidence, request.mode, request.state.leader, reject_conflicts=self._rejects
        )
        if request.credentials.scheme in self._application_schemes:
            # The application knows somebody by that scheme: another user beside would confuse it.
            request.decision = Decision(row="21", verdict=Verdict.LEGACY)
        if request.decision.effects:
            await self._follow_up(request)
        self._set_principal(request)
        self._note_for_gates(request, bearer, ambient)

    def _judge_bearer(self, credentials: Credentials) -> tuple[TokenEvidence, VerifiedToken | None]:
        if credentials.bearer is not None:
            return self._judge(credentials.bearer, 8192)
        if credentials.authorization is Authorization.FOREIGN:
            return _FOREIGN, None
        return _NO_TOKEN, None

    def _judge_cookies(
        self, credentials: Credentials
    ) -> tuple[TokenEvidence, VerifiedToken | None, bool]:
        """Judge each access cookie; good ones that name different identities are `several`."""
        if not credentials.access:
            return _NO_TOKEN, None, False
        if len(credentials.access) == 1:
            return (*self._judge(credentials.access[0], COOKIE_CAP), False)
        judged = [self._judge(value, COOKIE_CAP) for value in credentials.access]
        good = [pair for pair in judged if pair[0].state is TokenState.OK]
        several = len({evidence.identity for evidence, _ in good}) > 1
        order = list(_PREFERENCE)
        best = min(judged, key=lambda pair: order.index(pair[0].state))
        return (*best, several)

    def _judge(self, text: bytes, cap: int) -> tuple[TokenEvidence, VerifiedToken | None]:
        try:
            token = self._verifier.verify(text, cap=cap)
        except TokenRejected as error:
            return TokenEvidence(state=TokenState.BAD, reason=error.reason), None
        except KeysUnavailable:
            return _KEYS_GONE, None
        evidence = self._judge_life(token)
        if evidence.state is TokenState.REVOKED:
            self._verifier.forget(text)  # and with it the key of its legacy session
        return evidence, token

    def _judge_life(self, token: VerifiedToken) -> TokenEvidence:
        """Judge what changes during a token's life: revocation, expiry, and whether we can know."""
        follower = self._follower
        if follower.revocations.is_revoked(token):
            return TokenEvidence(
                state=TokenState.REVOKED, identity=token.identity, reason=Reason.REVOKED
            )
        if follower.is_stale:
            return _STALE
        over = self._clock.time() - token.expires_at - self._leeway
        reauth = follower.revocations.reauth_since(token.identity)
        if over < 0 and (reauth is None or token.issued_at > reauth):
            return TokenEvidence(state=TokenState.OK, identity=token.identity)
        return TokenEvidence(
            state=TokenState.EXPIRED,
            identity=token.identity,
            reason=Reason.EXPIRED,
            is_forgivable=over <= FORGIVEN_AFTER_EXPIRY,
        )

    async def _renew(
        self, request: Authenticated
    ) -> tuple[TokenEvidence, VerifiedToken | None] | None:
        """Spend the refresh cookie of a browser whose access token is over; None if it has none."""
        if not request.credentials.refresh:
            return None
        if request.refresh is None:
            self._metrics.inc("refresh", "unknown")
            request.reply.cookies += self._cookies.clear()
            return None
        try:
            issued = await self._logins.renew(request.refresh)
        except RefreshRejected as error:
            self._forget_refused(request, error)
            return None
        except (StoreUnavailable, KeysUnavailable, NotIssued, TokenTooLarge) as error:
            logger.warning("tokens could not be renewed: %s", error)
            return _KEYS_GONE, None
        self._bridge.deliver(issued, request.reply)
        self._replace_session_cookie(request, issued.kept)
        token = issued.access.verified
        return TokenEvidence(state=TokenState.OK, identity=token.identity), token

    def _replace_session_cookie(self, request: Authenticated, kept: Kept) -> None:
        """Give the browser the cookie of a session that was made anew, in place of the old one.

        A client-held session has no record to attach, so a lost cookie is always made up for. A
        server-side one is handed out only where the phase does so: else the old cookie is cleared.
        """
        if not self._legacy.server_side:
            if request.presented is None:
                request.reply.cookies += [c for c in [self._bridge.hand_back(kept)] if c]
            return
        if kept.fate is Fate.DELETED or kept.cookie_value is None:
            return
        is_other = request.presented is not None and request.presented.key != kept.key
        if is_other and (kept.fate is Fate.RECREATED or request.session_is_anonymous):
            cookie = self._bridge.hand_back(kept) if request.state.issues_session else None
            request.reply.cookies += [cookie] if cookie else clear_legacy(self._legacy.cookie)

    def _forget_refused(self, request: Authenticated, error: RefreshRejected) -> None:
        """Clear the cookies of a login that is over; never those of a race that was lost.

        A late reply to a tab would else wipe what another one has just set: the successor of a
        family keyed anew, or the tokens of the log-in that followed a log-out.
        """
        if error.since is not None and self._clock.time() - error.since < IN_FLIGHT:
            return
        request.reply.cookies += self._cookies.clear()

    async def _look_at_session(self, request: Authenticated, token: VerifiedToken | None) -> None:
        """Read the legacy session only as far as the table needs it."""
        presented = request.presented
        if token is None:
            if presented is not None:
                request.session = await self._read_session(presented)
            return
        is_anchor = (
            presented is not None
            and presented.key is not None
            and token.anchor is not None
            and presented.key == token.anchor.key
        )
        if presented is not None and not is_anchor:
            request.session = await self._read_beside(presented, token)
            if (
                request.session.state is SessionState.OK
                and request.session.identity == token.identity
            ):
                return  # its own session will be shown to the application
        kept = request.kept = await self._anchors.attachable(token)
        may_replace = kept.fate is Fate.RECREATED or request.session_is_anonymous
        if may_replace and request.refresh_is_proved:
            self._replace_session_cookie(request, kept)
        is_anchor = is_anchor and kept.key in {None, presented.key if presented else None}
        if is_anchor and kept.fate is not Fate.DELETED:
            # The presented cookie is the token's own anchor: they agree by construction.
            request.session = LegacySession(
                state=SessionState.OK,
                identity=token.identity,
                key=presented.key if presented else None,
                deadline=kept.until,
            )
            request.session_is_assumed = True

    async def _read_beside(self, presented: Presented, token: VerifiedToken) -> LegacySession:
        """Read a session beside a token, once for the life of the token."""
        place = (presented.digest, token.jti)
        found = self._read.get(place)
        if found is None or self._may_have_ended(found):
            found = await self._read_session(presented)
            if found.state is SessionState.UNKNOWN:
                return found
            self._read[place] = found
            if len(self._read) > _READ_SESSIONS:
                self._read.popitem(last=False)
        return found

    def _lasts(self, session: LegacySession) -> bool:
        """Say whether a session is good, and not just about to end before the application looks."""
        is_ending = (
            session.deadline is not None and session.deadline - self._clock.time() < _ABOUT_TO_END
        )
        return session.state is SessionState.OK and not is_ending

    def _may_have_ended(self, session: LegacySession) -> bool:
        """Say whether what was read of a session may be out of date: its end has come, or ours."""
        if session.deadline is not None and self._clock.time() >= session.deadline:
            return True
        return session.state is SessionState.OK and self._anchors.is_void(session)

    async def _read_session(self, presented: Presented) -> LegacySession:
        """Read a session and hold it against what was ended."""
        follower = self._follower
        if not self._legacy.server_side and follower.is_stale and follower.mode is not Mode.OFF:
            # Only tombstones end a client-held session, and ours are too old to be trusted.
            return LegacySession(state=SessionState.UNKNOWN)
        session = await self._bridge.read(presented)
        if session.state not in {SessionState.OK, SessionState.PARTIAL}:
            return session
        if self._anchors.is_void(session):
            return LegacySession(state=SessionState.GONE, key=session.key, why=ENDED)
        return session

    async def _follow_up(self, request: Authenticated) -> None:
        """Do at once what the row demands of us, and owe the reply its cookies."""
        effects = request.decision.effects
        if Effect.END_LOGIN in effects and request.token is not None:
            try:
                await self._logins.end(request.token.sid, why="session_ended", trigger="anchor")
            except StoreUnavailable as error:
                logger.warning("a login whose session ended could not be ended yet: %s", error)
        if Effect.AUDIT in effects:
            owner = request.token.identity if request.token is not None else None
            self._events.saw(request.decision.reason, request.client, owner)
        if Effect.CLEAR_ACCESS in effects and not request.reply.cookies:
            request.reply.cookies += self._cookies.clear_access()
            if request.decision.row == "7":
                request.reply.cookies += self._cookies.clear()
        token = request.token if Effect.CLEAR_SESSION in effects else None
        if token is not None and self._anchors.clears_once(token.sid):
            request.reply.cookies += clear_legacy(self._legacy.cookie)

    def _set_principal(self, request: Authenticated) -> None:
        verdict, session, token = request.decision.verdict, request.session, request.token
        if verdict is Verdict.TOKEN and token is not None:
            request.principal = self._principals.of(token)
            request.client = _KINDS.get(token.client, "machine")
        elif verdict is Verdict.SESSION and session.identity is not None:
            request.principal = Principal(
                who=session.identity,
                credential="session",
                client=request.client,
                auth_time=session.auth_time,
            )

    def _note_for_gates(
        self, request: Authenticated, bearer: TokenEvidence, ambient: TokenEvidence
    ) -> None:
        """Note the subject for the gates, and whether a fault of ours met their token."""
        identity = request.principal_identity
        if identity is None or not identity.subject:
            return
        failed = any(
            evidence.reason in _OURS
            for evidence in (bearer, ambient)
            if evidence.reason is not None
        )
        client = request.scope.get("client")
        self._notes.note(request.client, identity, client[0] if client else "", failed=failed)

    def _count(self, request: Authenticated, seconds: float) -> None:
        """Count one request, once."""
        metrics, decision, credentials = self._metrics, request.decision, request.credentials
        verdict, client = decision.verdict, request.client
        credential: Credential = "none"
        if verdict is Verdict.TOKEN:
            credential = "token"
        elif verdict is Verdict.SESSION:
            credential = "session"
        elif request.token is not None or (credentials.bearer is not None):
            credential = "token"
        metrics.inc("decisions", client, credential, _DECISIONS[verdict])
        metrics.observe("auth_duration_seconds", seconds, credential)
        has_token = bool(credentials.bearer or credentials.access)
        metrics.inc("presented", client, _PRESENTED[has_token, request.presented is not None])
        if decision.reason is not None:
            self._count_failure(request, decision.reason)
        if credentials.authorization is Authorization.EMPTY:
            metrics.inc("failures", client, "token", Reason.EMPTY_BEARER)
        if Effect.COMPARE in decision.effects:
            metrics.inc("comparisons", "agree")
        if decision.row in _DEGRADED:
            metrics.inc("degraded_decisions", _DEGRADED[decision.row])

    def _count_failure(self, request: Authenticated, reason: Reason) -> None:
        client = request.client
        of_session = reason in _OF_SESSION
        self._metrics.inc("failures", client, "session" if of_session else "token", reason)
        if reason is Reason.IDENTITY_CONFLICT:
            self._metrics.inc("identity_conflicts", client)
            self._metrics.inc("comparisons", "differ")
        if request.decision.verdict is Verdict.SESSION and not of_session:
            self._metrics.inc("fallbacks", client, "token_to_session")
        if request.decision.verdict is Verdict.TOKEN and of_session:
            self._metrics.inc("fallbacks", client, "session_to_token")


class _Principals:
    """The principals of tokens in use; a token is the same object while it is remembered."""

    def __init__(self) -> None:
        self._young: dict[str, tuple[VerifiedToken, Principal]] = {}
        self._old: dict[str, tuple[VerifiedToken, Principal]] = {}

    def of(self, token: VerifiedToken) -> Principal:
        found = self._young.get(token.jti) or self._old.get(token.jti)
        # Compared by identity: another token must never be answered with this one's claims.
        if found is not None and found[0] is token:
            return found[1]
        principal = Principal(
            who=token.identity,
            credential="token",
            client=token.client,
            login_id=token.login_id,
            auth_time=token.auth_time,
            scopes=token.scopes,
            claims=token.claims,
        )
        if len(self._young) >= _PRINCIPALS:
            self._old, self._young = self._young, {}
        self._young[token.jti] = (token, principal)
        return principal


_KINDS: dict[str, ClientKind] = {"web": "web", "mobile": "mobile"}
_PREFERENCE = (
    TokenState.OK,
    TokenState.UNKNOWN,
    TokenState.EXPIRED,
    TokenState.REVOKED,
    TokenState.BAD,
    TokenState.ABSENT,
    TokenState.FOREIGN,
)
_OF_SESSION = frozenset(
    {
        Reason.SESSION_GONE,
        Reason.SESSION_TAMPERED,
        Reason.SESSION_UNKNOWN,
        Reason.LEGACY_REFUSED,
    }
)
_PRESENTED = {
    (False, False): "none",
    (False, True): "session",
    (True, False): "token",
    (True, True): "both",
}
# Rows that decide although a store did not answer. Row 9 covers tampered sessions as well.
_DEGRADED = {"6": "sessions", "22": "sql", "23": "sql"}
_DECISIONS = {
    Verdict.TOKEN: "allow",
    Verdict.SESSION: "allow",
    Verdict.ANONYMOUS: "anonymous",
    Verdict.LEGACY: "anonymous",
    Verdict.UNAUTHORIZED: "reject",
    Verdict.BAD_REQUEST: "reject",
    Verdict.CONFLICT: "reject",
    Verdict.UNAVAILABLE: "error",
}
