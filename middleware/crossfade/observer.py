"""Observe what the application did to the session it was given, and act on it.

Only the reply tells: a log-in gets its tokens with it, a log-out ends both worlds, a new key is
followed. ADR 0003 tells why each line is as it is.
"""

import logging
from dataclasses import replace

from crossfade.anchors import Anchors
from crossfade.bridge import Bridge
from crossfade.clock import Clock
from crossfade.decision import Effect
from crossfade.errors import KeysUnavailable, NotIssued, StoreUnavailable, TokenTooLarge
from crossfade.legacy.base import LegacySession, LegacySessions, SessionState
from crossfade.logins import Issued, Logins
from crossfade.metrics import Metrics
from crossfade.observation import Meaning, Transition, Written, meaning, written
from crossfade.policy import is_document_navigation
from crossfade.request import ABSENT_SESSION, Authenticated, Given, Reply
from crossfade.responses import RawHeaders, TokenCookies, cache_control, clear_legacy
from crossfade.rollout.state import Mode
from crossfade.settings import LegacySettings
from crossfade.stores.logins import LoginStore

logger = logging.getLogger("crossfade.observer")

_LENGTH_OF_SET_COOKIE = len(b"set-cookie")
_COUNTED = {
    Meaning.LOG_IN: "log_in",
    Meaning.LOG_OUT: "log_out",
    Meaning.SWITCH: "switch",
    Meaning.ROTATED: "rotated",
    Meaning.RESURRECTED: "resurrected",
    Meaning.STALE_ATTACH: "stale_attach",
}


class Observer:
    """Reads what a reply means for its login."""

    def __init__(
        self,
        *,
        bridge: Bridge,
        legacy: LegacySessions,
        settings: LegacySettings,
        anchors: Anchors,
        logins: Logins,
        store: LoginStore,
        cookies: TokenCookies,
        metrics: Metrics,
        clock: Clock,
        upgrades_per_second: float,
        knows_dead_anchors: bool = True,
    ) -> None:
        self._bridge = bridge
        self._legacy, self._anchors, self._logins, self._store = legacy, anchors, logins, store
        self._cookies, self._metrics, self._clock = cookies, metrics, clock
        self._logout_paths = frozenset(settings.logout_paths)
        self._name = legacy.cookie.name.encode("latin-1")
        self._marks = settings.starlette is not None and settings.starlette.mark_logins
        self._budget = _Budget(upgrades_per_second, clock)
        self._knows_dead_anchors = knows_dead_anchors

    def is_telling(self, request: Authenticated, headers: RawHeaders) -> bool:
        """Say whether a response may mean anything; most do not, and are passed on at once."""
        if Effect.UPGRADE in request.decision.effects or request.is_declared_login:
            return True
        if request.path in self._logout_paths:
            return True
        return any(
            len(name) == _LENGTH_OF_SET_COOKIE and name.lower() == b"set-cookie"
            for name, _ in headers
        )

    async def observe(
        self, request: Authenticated, given: Given, status: int, headers: RawHeaders
    ) -> Reply:
        """Read a response's head, act on what it means, and change `headers` where they must.

        Never raises: what could not be done is logged, and the reply goes on unless it may not.
        """
        reply = Reply()
        now = self._clock.time()
        change = written(headers, self._legacy.cookie, now)
        after = await self._after(request, change, now)
        what = await self._meaning(request, given, change, after)
        if request.is_declared_login and what is not Meaning.LOG_OUT:
            after = replace(after or given.before, auth_time=now)
            what = Meaning.LOG_IN
        if request.path in self._logout_paths and 200 <= status < 400:
            what = Meaning.LOG_OUT
        if (label := _COUNTED.get(what)) is not None:
            self._metrics.inc("observed", label)
        match what:
            case Meaning.LOG_IN | Meaning.SWITCH if after is not None:
                await self._log_in(request, given, after, change, headers, reply, what)
            case Meaning.LOG_OUT:
                await self._log_out(request, given, reply)
            case Meaning.ROTATED if after is not None:
                await self._rotated(request, given, after, reply)
                self._hold_back(request, given, change, headers)
            case Meaning.RESURRECTED:
                await self._resurrected(request, after, change, headers, reply)
            case Meaning.STALE_ATTACH:
                _remove(headers, change)
            case _:
                if change is not None and not change.is_clear:
                    self._hold_back(request, given, change, headers)
                await self._maybe_upgrade(request, status, headers, reply, change)
        return reply

    async def observe_silence(self, request: Authenticated, given: Given) -> None:
        """Look once at a session whose request got no response: a log-out may have happened.

        Some frameworks flush the session first and are cancelled before they answer.
        """
        before = given.before
        if (
            before.state is not SessionState.OK
            or before.key is None
            or not self._legacy.server_side
        ):
            return
        now = self._clock.time()
        try:
            after = await self._legacy.read_key(before.key, now)
            lapsed = before.deadline is not None and now >= before.deadline
            has_left = after.state in {SessionState.GONE, SessionState.ANONYMOUS} and not lapsed
            if has_left and await self._is_current(request, before.key):
                self._metrics.inc("observed", "log_out")
                await self._log_out(request, given, Reply())
        except StoreUnavailable as error:
            logger.warning(
                "a request ended without a response and its session was not read: %s", error
            )

    async def _after(
        self, request: Authenticated, change: Written | None, now: float
    ) -> LegacySession | None:
        if change is None or change.value is None:
            return None
        shown = self._legacy.peek(request.scope, change.value, now)
        if shown is not None:
            return shown
        presented = self._legacy.pick({self._name: [change.value.encode("latin-1")]})
        if presented is None:
            return ABSENT_SESSION
        return await self._bridge.read(presented)

    async def _meaning(
        self,
        request: Authenticated,
        given: Given,
        change: Written | None,
        after: LegacySession | None,
    ) -> Meaning:
        if change is None:
            return Meaning.SILENT
        if change.is_clear and not self._knows_dead_anchors:
            return Meaning.LOG_OUT
        is_current = True
        if change.is_clear and given.is_assumed and given.before.key is not None:
            is_current = await self._is_current(request, given.before.key)
        return meaning(
            Transition(
                before=given.before,
                is_assumed=given.is_assumed,
                is_current_anchor=is_current,
                given=given.value,
                written=change,
                after=after,
                was_ended=self._was_ended(request, given, after),
            ),
            server_side=self._legacy.server_side,
        )

    async def _is_current(self, request: Authenticated, key: str) -> bool:
        """Say whether the login still has the session that went away, and the store its data.

        Only asked after a clear, or a request without a response: both are rare.
        """
        if request.token is None:
            return True
        try:
            login = await self._store.get(request.token.sid)
            if login is None or login.anchor is None:
                return True
            if login.anchor != self._anchors.digest(key):
                return False
            return not await self._anchors.store_lost(login)
        except StoreUnavailable:
            return True

    def _was_ended(self, request: Authenticated, given: Given, after: LegacySession | None) -> bool:
        keys = (given.before.key, after.key if after else None)
        if any(key is not None and self._anchors.is_buried(key) for key in keys):
            return True
        return request.token is not None and self._anchors.is_ended(request.token)

    async def _log_in(
        self,
        request: Authenticated,
        given: Given,
        after: LegacySession,
        change: Written | None,
        headers: RawHeaders,
        reply: Reply,
        what: Meaning,
    ) -> None:
        if what is Meaning.SWITCH and given.before.key is not None:
            await self._end_quietly(request, given)
        after = self._marked(request, after, change, headers)
        previous = request.presented_sid
        issued: Issued | None = None
        if request.client == "web":
            try:
                issued = await self._logins.open(
                    after,
                    client="web",
                    grant="login",
                    device=request.device,
                    supersedes=previous,
                    is_fresh=True,
                )
            except (NotIssued, TokenTooLarge) as error:
                logger.debug("a log-in was observed and no tokens were issued: %s", error)
            except (StoreUnavailable, KeysUnavailable) as error:
                logger.error("a log-in was observed and no tokens could be issued: %s", error)  # noqa: TRY400 - ours
                reply.refuse = request.mode is Mode.ENFORCE
        if issued is not None:
            self._bridge.deliver(issued, reply)
            if not request.state.issues_session and self._legacy.server_side:
                # From drain on the session is the login's anchor and no credential of its own.
                _remove(headers, change)
                if request.presented is not None:
                    reply.cookies += clear_legacy(self._legacy.cookie)
        elif request.credentials.are_ours:
            if previous is not None:
                await self._end_one(request, previous, "superseded")
            reply.cookies += self._cookies.clear()

    def _marked(
        self,
        request: Authenticated,
        after: LegacySession,
        change: Written | None,
        headers: RawHeaders,
    ) -> LegacySession:
        """Put a marker into a client-held session, so that one tombstone reaches all its copies."""
        if not self._marks or change is None or change.value is None:
            return after
        if request.mode is Mode.OFF:
            return after
        # A new one at each log-in: the former may be buried, and with it the copies it is to stop.
        marker = self._anchors.new_marker()
        marked = self._legacy.mark(change.value, marker, self._clock.time())
        if marked is None:
            return after
        position = change.positions[-1]
        name, value = headers[position]
        headers[position] = (
            name,
            value.replace(change.value.encode("latin-1"), marked.encode("latin-1"), 1),
        )
        return replace(after, key=marker)

    async def _log_out(self, request: Authenticated, given: Given, reply: Reply) -> None:
        """End everything that was presented, and what is linked to it, in both worlds."""
        await self._end_quietly(request, given)
        for sid in request.presented_sids:
            await self._end_one(request, sid, "logout")
        if request.credentials.are_ours:
            reply.cookies += self._cookies.clear()
        if given.is_supplied and request.presented is not None:
            reply.cookies += clear_legacy(self._legacy.cookie)

    async def _end_quietly(self, request: Authenticated, given: Given) -> None:
        key, identity = given.before.key, given.before.identity
        if key is None or identity is None:
            return
        try:
            await self._logins.end_session(identity.tenant, key, why="logout", trigger="logout")
        except StoreUnavailable as error:
            # The application has ended its session: its reply stands. This process refuses at once.
            request.journal(session=key, tenant=identity.tenant)
            logger.error("a log-out was observed and is queued: %s", error)  # noqa: TRY400 - ours

    async def _end_one(self, request: Authenticated, sid: bytes, trigger: str) -> None:
        try:
            await self._logins.end(sid, why=trigger, trigger=trigger)
        except StoreUnavailable as error:
            request.unended.append(sid)
            logger.error("a login could not be ended yet and is queued: %s", error)  # noqa: TRY400 - ours

    async def _rotated(
        self, request: Authenticated, given: Given, after: LegacySession, reply: Reply
    ) -> None:
        if given.before.identity is None or given.before.key is None:
            return
        try:
            login = await self._store.by_anchor(
                given.before.identity.tenant, self._anchors.digest(given.before.key)
            )
            if login is None:
                return
            minted = await self._logins.rebind(login, after)
        except (StoreUnavailable, KeysUnavailable, TokenTooLarge) as error:
            logger.error("a session changed its key and its login could not follow: %s", error)  # noqa: TRY400 - ours
            return
        if minted is not None and request.credentials.access:
            max_age = min(login.idle_until, login.absolute_until) - self._clock.time()
            reply.cookies.append(self._cookies.access(minted.token, max_age))

    async def _resurrected(
        self,
        request: Authenticated,
        after: LegacySession | None,
        change: Written | None,
        headers: RawHeaders,
        reply: Reply,
    ) -> None:
        _remove(headers, change)
        reply.cookies += clear_legacy(self._legacy.cookie)
        if after is not None and after.key is not None:
            try:
                await self._legacy.delete(after.key)
            except StoreUnavailable as error:
                logger.warning(
                    "a session came back after its log-out and was not deleted: %s", error
                )
        del request

    def _hold_back(
        self, request: Authenticated, given: Given, change: Written | None, headers: RawHeaders
    ) -> None:
        """Keep a session cookie that we supplied from a client that never had it.

        Otherwise a token of minutes would buy a session of weeks. A browser that proves its refresh
        secret may have it, as long as the phase hands out sessions at all; and a client-held
        session must pass, because its data lives nowhere else.
        """
        if not given.is_supplied or change is None or change.is_clear:
            return
        is_browser = request.client == "web" and request.decision.carrier == "cookie"
        may_have = request.state.issues_session or not self._legacy.server_side
        if not (is_browser and request.refresh_is_proved and may_have):
            _remove(headers, change)

    async def _maybe_upgrade(
        self,
        request: Authenticated,
        status: int,
        headers: RawHeaders,
        reply: Reply,
        change: Written | None,
    ) -> None:
        if Effect.UPGRADE not in request.decision.effects:
            return
        if (why := self._not_now(request, status, headers, change)) is not None:
            self._metrics.inc("upgrades_skipped", why)
            return
        try:
            issued = await self._logins.open(
                request.session, client="web", grant="upgrade", device=request.device
            )
        except (NotIssued, StoreUnavailable, KeysUnavailable, TokenTooLarge) as error:
            logger.info("a session was not upgraded: %s", error)
            self._metrics.inc("upgrades_skipped", "refused")
            return
        self._bridge.deliver(issued, reply)
        reply.is_due = False
        self._mark_upgraded(request, reply)

    def _mark_upgraded(self, request: Authenticated, reply: Reply) -> None:
        """Re-sign a client-held session with the key of its login, so that a log-out finds it."""
        session, presented = request.session, request.presented
        if not self._marks or presented is None or session.key is None:
            return
        marked = self._legacy.mark(presented.value, session.key, self._clock.time())
        if marked is not None:
            reply.cookies.append(self._bridge.set_legacy(marked, session.deadline))

    def _not_now(
        self, request: Authenticated, status: int, headers: RawHeaders, change: Written | None
    ) -> str | None:
        identity = request.session.identity
        if identity is None or not request.state.selects("web", identity.subject):
            return "not_selected"
        if request.client != "web" or not is_document_navigation(request.method, request.headers):
            return "not_navigation"
        if request.presented is None or request.presented.has_twin:
            return "twin"
        if request.credentials.refresh or request.credentials.access:
            return "other_login"
        if change is not None or not _can_carry_cookies(status, headers):
            return "reply"
        return None if self._budget.take() else "budget"


class _Budget:
    """How many upgrades this process makes a second: a herd must not become a stampede."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._at = rate, clock.monotonic()

    def take(self) -> bool:
        now = self._clock.monotonic()
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _can_carry_cookies(status: int, headers: RawHeaders) -> bool:
    if status == 304 or not 200 <= status < 400:
        return False
    control = cache_control(headers) or b""
    if b"public" in control or b"s-maxage" in control:
        return False
    kinds = [value for name, value in headers if name.lower() == b"content-type"]
    return not any(kind.startswith(b"text/event-stream") for kind in kinds)


def _remove(headers: RawHeaders, change: Written | None) -> None:
    if change is not None:
        doomed = set(change.positions)
        headers[:] = [header for at, header in enumerate(headers) if at not in doomed]
