"""Between a login and its legacy session: which of them the application and the browser are given.

ADR 0007 tells why each line is as it is.
"""

import base64
import hashlib
from dataclasses import replace

from crossfade.anchors import ENDED, Kept
from crossfade.clock import Clock
from crossfade.decision import Effect, Verdict
from crossfade.errors import StoreUnavailable
from crossfade.legacy.base import LegacySession, LegacySessions, Presented, SessionState
from crossfade.logins import Issued
from crossfade.metrics import Metrics
from crossfade.request import Authenticated, Given, Reply
from crossfade.responses import TokenCookies, set_legacy
from crossfade.rollout.state import Mode

BY_CONTENT = "h:"
"""Begins the key of a client-held session that carries no marker of ours."""
_UNREADABLE = LegacySession(state=SessionState.UNKNOWN)


class Bridge:
    """Gives the application its session, and the browser its tokens or its session back."""

    def __init__(
        self,
        *,
        legacy: LegacySessions,
        cookies: TokenCookies,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._legacy, self._cookies = legacy, cookies
        self._metrics, self._clock = metrics, clock
        self._name = legacy.cookie.name.encode("latin-1")

    def give(self, request: Authenticated) -> tuple[list[tuple[bytes, bytes]] | None, Given]:
        """Choose the cookies that the application sees.

        Returns the cookie pairs to hand down, None if they stay as they came; and the session
        given.
        """
        presented, decision = request.presented, request.decision
        kept = request.kept
        if decision.verdict is Verdict.TOKEN and not _shows_own(request):
            if kept is not None and kept.cookie_value is not None:
                given = Given(
                    value=kept.cookie_value,
                    before=LegacySession(
                        state=SessionState.OK,
                        identity=request.principal_identity,
                        key=kept.key,
                        deadline=kept.until,
                    ),
                    is_assumed=True,
                    is_supplied=presented is None or presented.value != kept.cookie_value,
                )
                return self._pairs(request, kept.cookie_value), given
            if Effect.WITHHOLD in decision.effects or request.session.state is SessionState.OK:
                return self._pairs(request, None), Given()
        if Effect.WITHHOLD in decision.effects:
            return self._pairs(request, None), Given()
        if request.session.why == ENDED and request.restored_value is None:
            # A cookie that holds the session itself is good to the application for ever.
            return self._pairs(request, None), Given()
        before = Given(
            value=presented.value if presented else None,
            before=request.session,
            is_assumed=request.session_is_assumed,
        )
        restored = request.restored_value
        if restored is not None:
            return self._pairs(request, restored), Given(
                value=restored, before=request.session, is_assumed=True
            )
        if presented is not None and presented.has_twin and request.mode is not Mode.OFF:
            return self._pairs(request, presented.value), before
        if request.credentials.access or request.credentials.refresh:
            return self._pairs_as_came(request), before
        return None, before

    def _pairs(self, request: Authenticated, value: str | None) -> list[tuple[bytes, bytes]]:
        ours = {self._name, *request.own_cookie_names}
        pairs = [pair for pair in request.credentials.pairs if pair[0] not in ours]
        if value is not None:
            pairs.append((self._name, value.encode("latin-1")))
        return pairs

    def _pairs_as_came(self, request: Authenticated) -> list[tuple[bytes, bytes]]:
        ours = request.own_cookie_names
        return [pair for pair in request.credentials.pairs if pair[0] not in ours]

    async def read(self, presented: Presented) -> LegacySession:
        """Read a session; a store that does not answer makes it `unknown`."""
        try:
            session = await self._legacy.read(presented, self._clock.time())
        except StoreUnavailable:
            self._metrics.inc("backend_calls", "sessions", "error")
            return _UNREADABLE
        self._metrics.inc("backend_calls", "sessions", "ok")
        if session.key is None and not self._legacy.server_side:
            return replace(session, key=_key_of(presented.value))
        return session

    def deliver(self, issued: Issued, reply: Reply) -> None:
        """Put a login's tokens into a reply."""
        reply.cookies.append(self._cookies.access(issued.access.token, issued.max_age))
        if issued.refresh_token is not None:
            reply.cookies.append(self._cookies.refresh(issued.refresh_token, issued.max_age))
            reply.is_due = True

    def hand_back(self, kept: Kept) -> bytes | None:
        """Return the Set-Cookie value that gives a browser its legacy session back."""
        if kept.cookie_value is None:
            return None
        return self.set_legacy(kept.cookie_value, kept.until)

    def set_legacy(self, value: str, until: float | None) -> bytes:
        """Return the Set-Cookie value of a legacy session, ending by `until`."""
        max_age = None
        if self._legacy.cookie.max_age is not None and until is not None:
            max_age = max(1.0, until - self._clock.time())
        return set_legacy(self._legacy.cookie, value, max_age)


def _key_of(value: str) -> str:
    """Name a client-held session without a marker by its content: parallel requests agree on it."""
    digest = hashlib.sha256(value.encode("latin-1", "replace")).digest()
    return BY_CONTENT + base64.urlsafe_b64encode(digest[:18]).decode()


def _shows_own(request: Authenticated) -> bool:
    """Say whether a token user's own legacy cookie is what the application is to see."""
    session, token = request.session, request.token
    if Effect.WITHHOLD in request.decision.effects or token is None:
        return False
    if session.state in {SessionState.OK, SessionState.PARTIAL}:
        return session.identity == token.identity
    return False
