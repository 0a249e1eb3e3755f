"""Who a request is, in order: extract, verify, read, renew, decide.

A request passes here once, before the application runs. A hot token costs a few dictionary
look-ups: no network, no database, no lock.
"""

import logging
import time
from collections import OrderedDict

from starlette.types import Scope

from crossfade.anchors import ENDED, Anchors, Fate, Kept
from crossfade.bridge import Bridge
from crossfade.clock import Clock
from crossfade.counting import RequestCounter
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
    TokenTooLarge,
)
from crossfade.events import Events
from crossfade.judge import NO_TOKEN, OUR_FAULT, Judged, TokenJudge
from crossfade.keys.roots import RootSecrets
from crossfade.legacy.base import (
    LegacySession,
    LegacySessions,
    Presented,
    SessionState,
)
from crossfade.logins import Logins
from crossfade.metrics import Metrics
from crossfade.notes import GateNotes
from crossfade.policy import SAFE_METHODS, ClientClassifier, Routes
from crossfade.principal import Principal
from crossfade.request import Authenticated
from crossfade.responses import TokenCookies, clear_legacy
from crossfade.rollout.source import Follower
from crossfade.rollout.state import Mode
from crossfade.settings import ClientKind, Settings
from crossfade.tokens.claims import VerifiedToken
from crossfade.tokens.verifier import TokenVerifier

logger = logging.getLogger("crossfade.authenticator")

IN_FLIGHT = 60.0
"""Seconds for which a request may still be on its way with what was good when it was sent."""
_OURS = frozenset({Reason.KEYS_UNAVAILABLE, Reason.REVOCATIONS_STALE, Reason.SESSION_UNKNOWN})
_READ_SESSIONS = 20_000
_ABOUT_TO_END = 2.0
"""Seconds: by the time that the application reads it, such a session may be over."""
_PRINCIPALS = 10_000


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
        self._follower = follower
        self._judge = TokenJudge(
            verifier=verifier, follower=follower, clock=clock, leeway=settings.tokens.leeway
        )
        self._counter = RequestCounter(metrics)
        self._legacy, self._anchors, self._logins, self._bridge = legacy, anchors, logins, bridge
        self._cookies, self._metrics, self._notes, self._clock = cookies, metrics, notes, clock
        self._names = CookieNames(
            access=cookies.access_name.encode(), refresh=cookies.refresh_name.encode()
        )
        self._own_names = frozenset({self._names.access, self._names.refresh})
        self._legacy_name = legacy.cookie.name.encode("latin-1")
        self._classifier = ClientClassifier(settings.clients)
        self._routes = Routes(settings.routes)
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
        self._counter.count(request, time.perf_counter() - started)
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
            header=NO_TOKEN,
            cookie=NO_TOKEN,
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
        bearer, h_token = self._judge.bearer(request.credentials)
        ambient, c_token, several = self._judge.cookies(request.credentials)
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

    async def _renew(self, request: Authenticated) -> Judged | None:
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
            return OUR_FAULT, None
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
        """Say whether a session is good, and not just about to end before the application looks.

        A client-held one is good to its last moment: made anew it would lose what it holds.
        """
        left = _ABOUT_TO_END
        if session.deadline is not None and self._legacy.server_side:
            left = session.deadline - self._clock.time()
        return session.state is SessionState.OK and left >= _ABOUT_TO_END

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
        failed = bearer.reason in _OURS or ambient.reason in _OURS
        client = request.scope.get("client")
        self._notes.note(request.client, identity, client[0] if client else "", failed=failed)


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
