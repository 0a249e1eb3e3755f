"""What the middleware answers itself, on exact paths: tokens, sessions, logins, keys, health.

Requests and errors follow RFC 6749 (token endpoint), RFC 8693 (exchange) and RFC 7517 (keys).
Whatever a cookie authenticates is held to the CSRF rules, and nothing here is ever cached, the
keys apart.
"""

import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from crossfade.anchors import Anchors
from crossfade.authenticator import Authenticator
from crossfade.bridge import Bridge
from crossfade.calls import Call, Refused, read_form
from crossfade.clock import Clock
from crossfade.credentials import Authorization
from crossfade.csrf import CsrfGuard, CsrfOutcome
from crossfade.decision import Verdict
from crossfade.errors import (
    KeysUnavailable,
    NotIssued,
    RefreshRejected,
    StoreUnavailable,
    TokenTooLarge,
)
from crossfade.keys.roots import RootSecrets
from crossfade.legacy.base import LegacySession, LegacySessions, SessionState
from crossfade.logins import Issued, Logins
from crossfade.policy import header
from crossfade.request import Authenticated, Reply
from crossfade.responses import TokenCookies, clear_legacy, send_error, send_json
from crossfade.rollout.source import Follower
from crossfade.rollout.state import Mode
from crossfade.settings import Settings
from crossfade.stores.logins import LoginStore
from crossfade.tokens.refresh import RefreshToken, decode

logger = logging.getLogger("crossfade.endpoints")

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
LEGACY_SESSION = "urn:crossfade:params:oauth:token-type:legacy-session"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWKS_PATH = "/.well-known/jwks.json"
_JWKS_MAX_AGE = 300


Handler = Callable[[Call], Awaitable[Mapping[str, Any] | None]]


class Endpoints:
    """Answers on exact paths; everything else belongs to the application."""

    def __init__(
        self,
        *,
        settings: Settings,
        roots: RootSecrets,
        follower: Follower,
        authenticator: Authenticator,
        bridge: Bridge,
        anchors: Anchors,
        logins: Logins,
        store: LoginStore,
        legacy: LegacySessions,
        cookies: TokenCookies,
        csrf: CsrfGuard,
        clock: Clock,
    ) -> None:
        self._settings, self._roots, self._follower = settings, roots, follower
        self._authenticator, self._bridge, self._anchors = authenticator, bridge, anchors
        self._logins, self._store, self._legacy = logins, store, legacy
        self._cookies, self._csrf, self._clock = cookies, csrf, clock
        prefix = settings.endpoints.prefix
        self._handlers: dict[str, dict[str, Handler]] = {
            f"{prefix}/token": {"POST": self._token},
            f"{prefix}/session": {"GET": self._whoami, "POST": self._session},
            f"{prefix}/logins": {"GET": self._list, "POST": self._end},
            f"{prefix}/logout": {"POST": self._logout},
            f"{prefix}/health": {"GET": self._health},
            JWKS_PATH: {"GET": self._jwks},
        }

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths that are answered here; `doctor` looks for collisions with them."""
        return tuple(self._handlers)

    def knows(self, path: str) -> bool:
        """Say whether this exact path is answered here."""
        return path in self._handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        handlers = self._handlers[scope["path"]]
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = handlers.get(method)
        if handler is None:
            allow = ", ".join(sorted(handlers)).encode()
            error = {"error": "invalid_request", "error_description": "Use another method."}
            await send_json(send, 405, error, [(b"allow", allow)])
            return
        if handler in {self._jwks, self._health}:
            await self._public(handler, scope, receive, send)
            return
        request = await self._authenticator.authenticate(scope)
        call = Call(scope=scope, receive=receive, request=request)
        call.cookies += request.reply.cookies
        await self._answer(handler, call, send)

    async def _public(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
        # No credentials are looked at: a probe must not depend on what a client carries.
        body = await handler(Call(scope=scope, receive=receive, request=None))  # type: ignore[arg-type]  # unused there
        if handler == self._jwks:
            payload = json.dumps(body, separators=(",", ":")).encode()
            control = f"public, max-age={_JWKS_MAX_AGE}".encode()
            headers = [
                (b"content-type", b"application/jwk-set+json"),
                (b"cache-control", control),
                (b"content-length", str(len(payload)).encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": payload})
            return
        is_ready = bool(body and body["ready"])
        await send_json(send, 200 if is_ready else 503, body)

    async def _answer(self, handler: Handler, call: Call, send: Send) -> None:
        try:
            body = await handler(call)
        except Refused as refusal:
            error = {"error": refusal.code, "error_description": refusal.description}
            extra = [(b"www-authenticate", b"Bearer")] if refusal.status == 401 else []
            await send_json(send, refusal.status, error, [*extra, *_set_cookies(call.cookies)])
            return
        except (StoreUnavailable, KeysUnavailable) as error:
            logger.error("%s: %s", call.scope["path"], error)  # noqa: TRY400 - our store, no trace needed
            await send_error(send, 503, headers=_set_cookies(call.cookies))
            return
        status = 204 if body is None else 200
        await send_json(send, status, body, _set_cookies(call.cookies))

    async def _token(self, call: Call) -> Mapping[str, Any]:
        form = await read_form(call)
        grant = form.get("grant_type")
        if grant == EXCHANGE:
            return await self._exchange(call, form)
        if grant == "refresh_token":
            return await self._refresh(call, form)
        if grant is None:
            raise Refused(400, "invalid_request", "grant_type is missing.")
        raise Refused(400, "unsupported_grant_type", f"Use {EXCHANGE} or refresh_token.")

    async def _exchange(self, call: Call, form: Mapping[str, str]) -> Mapping[str, Any]:
        """Trade a legacy session for tokens (RFC 8693)."""
        request = call.request
        value = form.get("subject_token")
        if value is not None and form.get("subject_token_type") != LEGACY_SESSION:
            raise Refused(400, "invalid_request", f"subject_token_type must be {LEGACY_SESSION}.")
        self._forbid_cross_site(call, is_by_cookie=value is None)
        if value is None:
            session = request.session
            if request.presented is None or request.presented.has_twin:
                raise Refused(400, "invalid_request", "Send one session cookie, or subject_token.")
        else:
            session = await self._session_of(value)
        self._check_exchangeable(session)
        try:
            issued = await self._logins.open(
                session, client=request.client, grant="exchange", device=request.device
            )
        except NotIssued as refusal:
            raise Refused(400, *_NOT_ISSUED.get(refusal.why, _NOT_ISSUED["session"])) from refusal
        except TokenTooLarge as error:
            raise Refused(
                400, "invalid_request", "The session's claims do not fit a token."
            ) from error
        return self._grant(call, issued, to_cookies=request.client == "web")

    async def _session_of(self, value: str) -> LegacySession:
        name = self._legacy.cookie.name.encode("latin-1")
        presented = self._legacy.pick({name: [value.encode("latin-1", "replace")]})
        if presented is None:
            return LegacySession(state=SessionState.ABSENT)
        session = await self._bridge.read(presented)
        if session.state is SessionState.OK and self._anchors.is_void(session):
            return LegacySession(state=SessionState.GONE)
        return session

    def _check_exchangeable(self, session: LegacySession) -> None:
        if session.state is SessionState.UNKNOWN:
            raise StoreUnavailable("sessions")
        if session.state is SessionState.PARTIAL:
            raise Refused(400, "invalid_grant", "The log-in is not finished: finish it first.")
        if session.state is not SessionState.OK:
            raise Refused(400, "invalid_grant", "The session is not valid: log in again.")
        if self._follower.mode is Mode.ENFORCE and not self._is_new(session):
            # Sessions authenticate nobody any more; one just made is a log-in in progress.
            raise Refused(400, "invalid_grant", "The session is too old here: log in again.")

    def _is_new(self, session: LegacySession) -> bool:
        began = session.auth_time if session.auth_time is not None else session.created_at
        return began is not None and self._clock.time() - began <= self._settings.tokens.access_ttl

    async def _refresh(self, call: Call, form: Mapping[str, str]) -> Mapping[str, Any]:
        """Spend a refresh token from the body, or the browser's cookie."""
        request, sent = call.request, form.get("refresh_token")
        self._forbid_cross_site(call, is_by_cookie=sent is None)
        if sent is None:
            if request.reply.is_due:
                # The cookie was spent on the way in, and its successor goes out with this reply.
                return self._described(request)
            token = request.refresh
        else:
            token = decode(sent, self._roots)
        if token is None:
            raise Refused(400, "invalid_grant", "The refresh token is not valid: log in again.")
        key = header(request.headers, b"idempotency-key")
        issued = await self._renew(token, None if key is None else key[:255].decode("latin-1"))
        body = self._grant(call, issued, to_cookies=sent is None)
        if not self._follower.state.phase.accepts_token:
            # Also while a rollback still accepts tokens: not all instances narrow in one instant.
            body = {**body, **await self._with_session(call, issued, token)}
        return body

    async def _renew(self, token: RefreshToken, idempotency_key: str | None) -> Issued:
        try:
            return await self._logins.renew(token, idempotency_key=idempotency_key)
        except RefreshRejected as error:
            raise Refused(
                400, "invalid_grant", "The refresh token has ended: log in again."
            ) from error
        except NotIssued as error:
            raise Refused(
                400, "invalid_grant", "No tokens for this login: log in again."
            ) from error

    async def _with_session(
        self, call: Call, issued: Issued, token: RefreshToken
    ) -> Mapping[str, Any]:
        """Hand the legacy session out too: in this phase it is what authenticates."""
        live = token if issued.refresh_token is None else decode(issued.refresh_token, self._roots)
        if live is None:
            return {}
        return await self._hand_back(call, live)

    def _grant(self, call: Call, issued: Issued, *, to_cookies: bool) -> Mapping[str, Any]:
        """Answer with tokens (RFC 6749 5.1); a browser gets cookies that scripts cannot read."""
        body: dict[str, Any] = {
            "token_type": "Bearer",
            "expires_in": issued.access.expires_in,
            "issued_token_type": ACCESS_TOKEN,
        }
        if to_cookies:
            reply = Reply()
            self._bridge.deliver(issued, reply)
            call.cookies += reply.cookies
            body["csrf_token"] = self._csrf.token(issued.login.sid)
            return body
        body["access_token"] = issued.access.token
        if issued.refresh_token is not None:
            body["refresh_token"] = issued.refresh_token
            body["refresh_expires_in"] = int(issued.max_age)
        return body

    def _described(self, request: Authenticated) -> Mapping[str, Any]:
        token = request.token
        if token is None:
            # No tokens in this phase: its session was given back on the way in.
            subject = "" if request.principal is None else request.principal.subject
            return {"session_cookie": self._legacy.cookie.name, "subject": subject}
        left = max(0, int(token.expires_at - self._clock.time()))
        return {
            "token_type": "Bearer",
            "expires_in": left,
            "issued_token_type": ACCESS_TOKEN,
            "csrf_token": self._csrf.token(token.sid),
        }

    async def _session(self, call: Call) -> Mapping[str, Any]:
        """Give the legacy session back for a refresh token; an access token does not buy one."""
        form = await read_form(call)
        sent = form.get("refresh_token")
        self._forbid_cross_site(call, is_by_cookie=sent is None)
        token = call.request.refresh if sent is None else decode(sent, self._roots)
        if token is None:
            raise Refused(400, "invalid_grant", "The refresh token is not valid: log in again.")
        return await self._hand_back(call, token)

    async def _hand_back(self, call: Call, token: RefreshToken) -> Mapping[str, Any]:
        try:
            login, kept = await self._logins.restore(token)
        except RefreshRejected as error:
            raise Refused(
                400, "invalid_grant", "The refresh token has ended: log in again."
            ) from error
        cookie = self._bridge.hand_back(kept)
        if cookie is None:
            raise StoreUnavailable("sessions")
        call.cookies.append(cookie)
        return {"session_cookie": self._legacy.cookie.name, "subject": login.identity.subject}

    async def _whoami(self, call: Call) -> Mapping[str, Any]:
        """Tell a page who is signed in, until when, and the CSRF token of its login."""
        request = self._signed_in(call)
        principal = request.principal
        assert principal is not None  # noqa: S101 - just checked
        body: dict[str, Any] = {
            "subject": principal.subject,
            "credential": principal.credential,
            "client": principal.client,
            "phase": request.state.phase,
        }
        if request.decision.verdict is Verdict.TOKEN and request.token is not None:
            body["expires_at"] = request.token.expires_at
            body["csrf_token"] = self._csrf.token(request.token.sid)
        return body

    async def _list(self, call: Call) -> Mapping[str, Any]:
        request = self._signed_in(call)
        identity = request.principal_identity
        assert identity is not None  # noqa: S101 - just checked
        rows = await self._store.live(identity.tenant, identity.subject)
        current = request.presented_sid
        return {
            "logins": [
                {
                    "login_id": _text(row.login.sid),
                    "client": row.login.client,
                    "created_at": int(row.login.created_at),
                    "last_seen_at": int(row.login.rotated_at),
                    "address": row.address,
                    "agent": row.agent,
                    "is_current": row.login.sid == current,
                }
                for row in rows
            ]
        }

    async def _end(self, call: Call) -> Mapping[str, Any]:
        """End one login of the subject by its id, or all others."""
        request = self._signed_in(call)
        self._forbid_cross_site(call)
        form = await read_form(call)
        identity = request.principal_identity
        assert identity is not None  # noqa: S101 - just checked
        if form.get("others") == "true":
            ended = await self._logins.end_all(
                identity,
                except_sid=request.presented_sid,
                why="ended_by_user",
                trigger="user",
                actor=identity.subject,
            )
            # A session without a login of its own is older than the log-out, and ends with it.
            return {"ended": ended, "current_ended": request.presented_sid is None}
        sid = _sid(form.get("login_id", ""))
        rows = await self._store.live(identity.tenant, identity.subject)
        if sid is None or sid not in {row.login.sid for row in rows}:
            raise Refused(400, "invalid_request", "No such login: GET this path lists them.")
        await self._logins.end(sid, why="ended_by_user", trigger="user")
        return {"ended": 1}

    async def _logout(self, call: Call) -> None:
        """End all that was presented and what is linked to it; the cookies go in any case."""
        request, form = call.request, await read_form(call)
        token = decode(form.get("refresh_token", ""), self._roots)
        self._forbid_cross_site(call, is_by_cookie=token is None)
        call.cookies = [*self._cookies.clear(), *clear_legacy(self._legacy.cookie)]
        sids = [*request.presented_sids, *([] if token is None else [token.sid])]
        for sid in dict.fromkeys(sids):
            await self._logins.end(sid, why="logout", trigger="logout")
        await self._end_presented_session(request)

    async def _end_presented_session(self, request: Authenticated) -> None:
        session = request.session
        if request.presented is None or session.identity is None:
            return
        key = session.key or request.presented.key
        if key is None:
            return
        await self._logins.end_session(session.identity.tenant, key, why="logout", trigger="logout")
        await self._legacy.delete(key)

    async def _jwks(self, call: Call) -> Mapping[str, Any]:
        del call
        return self._follower.keys.jwks()

    async def _health(self, call: Call) -> Mapping[str, Any]:
        """Say which revision this process runs and whether its news are fresh; nothing secret."""
        del call
        follower = self._follower
        return {
            "ready": not follower.is_stale and bool(follower.keys),
            "revision": follower.revision,
            "phase": follower.state.phase,
            "instance": follower.instance_id,
        }

    def _signed_in(self, call: Call) -> Authenticated:
        request = call.request
        if request.decision.verdict is Verdict.UNAVAILABLE:
            raise StoreUnavailable("sql")
        if request.principal is None:
            raise Refused(401, "invalid_token", "Log in first.")
        return request

    def _forbid_cross_site(self, call: Call, *, is_by_cookie: bool = True) -> None:
        """Hold a request by cookie to the CSRF rules; a bearer speaks for itself.

        So does a token in the body, but not for another site's page: that would sign its visitor in
        here as somebody else.
        """
        request = call.request
        if request.decision.verdict is Verdict.TOKEN and request.decision.carrier == "header":
            return
        is_bearer = request.credentials.authorization is Authorization.BEARER
        is_by_cookie = is_by_cookie and not (is_bearer and not request.credentials.pairs)
        sid = request.token.sid if request.token is not None else request.presented_sid
        outcome = self._csrf.check(request.path, request.headers, sid)
        if not outcome.is_allowed and (is_by_cookie or outcome is CsrfOutcome.CROSS_SITE):
            raise Refused(
                403, "csrf_failed", "The request did not come from this site's own pages."
            )


_NOT_ISSUED = {
    "not_selected": (
        "unauthorized_client",
        "Tokens are not issued to this user yet: go on with the session and try again later.",
    ),
    "impersonation": ("unauthorized_client", "No tokens are issued while a user is impersonated."),
    "tombstoned": ("invalid_grant", "The session has ended: log in again."),
    "not_before": (
        "invalid_grant",
        "The session is from before a log-out everywhere: log in again.",
    ),
    "conflict": ("invalid_grant", "The session belongs to another login: log in again."),
    "cap": ("invalid_grant", "Too many logins: end one first."),
    "session": ("invalid_grant", "The session cannot be exchanged: log in again."),
}


def _set_cookies(values: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"set-cookie", value) for value in values]


def _text(sid: bytes) -> str:
    return base64.urlsafe_b64encode(sid).rstrip(b"=").decode()


def _sid(text: str) -> bytes | None:
    try:
        raw: bytes = base64.urlsafe_b64decode(text.encode("ascii") + b"==")
    except (binascii.Error, UnicodeEncodeError):
        return None
    return raw if _text(raw) == text else None
