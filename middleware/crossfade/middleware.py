"""The middleware: a scope comes in, the principal is set, the reply goes out with our headers.

It is the outermost one. The application keeps its own session middleware and log-in code unchanged.
"""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossfade.anchors import claim_of
from crossfade.assembly import Assembly, assemble
from crossfade.decision import Effect, Verdict
from crossfade.errors import ConfigurationError, Reason
from crossfade.legacy.base import SessionState
from crossfade.policy import SAFE_METHODS
from crossfade.principal import credentials_of
from crossfade.request import Authenticated, Given
from crossfade.responses import (
    RawHeaders,
    cache_control,
    send_error,
    set_cache_control,
    vary,
)
from crossfade.rollout.state import Mode
from crossfade.settings import Settings
from crossfade.sockets import OpenSocket
from crossfade.tokens.revocation import Revocable

logger = logging.getLogger("crossfade")

_TAKEN = ("session", "user", "auth")
_STATUSES = {
    Verdict.UNAUTHORIZED: 401,
    Verdict.BAD_REQUEST: 400,
    Verdict.CONFLICT: 409,
    Verdict.UNAVAILABLE: 503,
}
_SOMEBODY = frozenset({Verdict.TOKEN, Verdict.SESSION, Verdict.LEGACY})
_FIRST_NEWS = 3.0
"""Seconds that the first request waits for the first news, at most."""


class CrossfadeMiddleware:
    """Accept legacy sessions and tokens side by side, as the rollout says.

    Add it last, which makes it outermost: `app.add_middleware(CrossfadeMiddleware,
    config="crossfade.toml")`,
    or wrap any ASGI application: `CrossfadeMiddleware(app, config=…)`.

    Args:
        app: the application.
        config: settings, or the path of the settings file; default as `Settings.load`.
        assembly: ready-made parts instead; for tests and unusual set-ups.

    Raises:
        ConfigurationError: at construction for wrong settings; at the first request, in one line,
        if
            another authentication or session middleware is outside of this one.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: Settings | str | Path | None = None,
        assembly: Assembly | None = None,
    ) -> None:
        self.app = app
        self._settings = config if isinstance(config, Settings) else None
        if assembly is None and self._settings is None:
            self._settings = Settings.load(config if not isinstance(config, Settings) else None)
        self.assembly = assembly or assemble(self._settings or Settings.load())
        self._pid = os.getpid()
        self._starting: asyncio.Lock | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; everything but http, websocket and lifespan passes through."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if any(key in scope for key in _TAKEN):
            raise ConfigurationError(_wrong_order(scope))
        if not self.assembly.follower.is_running or self._pid != os.getpid():
            await self._start_late()
        if kind == "http" and self.assembly.endpoints.knows(scope["path"]):
            await self.assembly.endpoints(scope, receive, send)
            return
        request = await self.assembly.authenticator.authenticate(scope)
        if kind == "http":
            await _HttpExchange(self.assembly, request, send).run(self.app, receive)
        else:
            await _SocketExchange(self.assembly, request, send).run(self.app, receive)

    async def _start_late(self) -> None:
        """Start without lifespan, and anew in a forked child: a task does not survive a fork."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._starting = None
            self.assembly = self.assembly.again()
        lock = self._starting = self._starting or asyncio.Lock()
        async with lock:
            if not self.assembly.follower.is_running:
                await self.assembly.follower.start()
        await self.assembly.follower.ready(_FIRST_NEWS)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start before the application does, and stop after it; it need not know of lifespan."""
        first = await receive()
        try:
            await self.assembly.follower.start()
        except ConfigurationError as error:
            await send({"type": "lifespan.startup.failed", "message": f"crossfade: {error}"})
            return
        messages = [first]
        has_answered = False

        async def replaying() -> Message:
            return messages.pop() if messages else await receive()

        async def noting(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            if message["type"].startswith("lifespan.shutdown"):
                # The server may cancel us once it has heard this: say goodbye to the fleet first.
                await self.assembly.close()
            await send(message)

        try:
            await self.app(scope, replaying, noting)
        except Exception:
            if has_answered:
                raise
            logger.debug("the application does not know of lifespan")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.assembly.close()
            await send({"type": "lifespan.shutdown.complete"})
        finally:
            await self.assembly.close()


def _wrong_order(scope: Scope) -> str:
    found = " and ".join(f'"{key}"' for key in _TAKEN if key in scope)
    return (
        f"the scope already holds {found}: another session or authentication middleware runs"
        " outside of CrossfadeMiddleware. Add CrossfadeMiddleware after it: the last one added is"
        " outermost"
    )


class _Exchange:
    """What http and websocket have in common: the scope that goes down, and who is in it."""

    def __init__(self, assembly: Assembly, request: Authenticated, send: Send) -> None:
        self.assembly, self.request, self.send = assembly, request, send
        self.given = Given()

    def prepare(self) -> None:
        """Write into the scope who the request is, and give the application its session."""
        request, scope = self.request, self.request.scope
        pairs, self.given = self.assembly.bridge.give(request)
        if pairs is not None:
            scope["headers"] = self.assembly.replace_cookies(request.headers, pairs)
        principal = request.principal
        if principal is not None:
            scope["user"], scope["auth"] = principal, credentials_of(principal)
        else:
            scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
        scope["crossfade"] = self.assembly.handle(request)

    def forbidden(self) -> bool:
        """Judge an unsafe request by cookie; sessions are left to the application's rules."""
        request, guard = self.request, self.assembly.csrf
        verdict = request.decision.verdict
        by_cookie = verdict is Verdict.TOKEN and request.decision.carrier == "cookie"
        by_session = verdict is Verdict.SESSION and request.mode is not Mode.OFF
        if request.method in SAFE_METHODS or not (by_cookie or by_session):
            return False
        sid = request.token.sid if request.token is not None else None
        outcome = guard.check(request.path, request.headers, sid)
        self.assembly.metrics.inc("csrf_checks", outcome)
        if outcome.is_allowed:
            return False
        return by_cookie or self.assembly.settings.csrf.session == "enforce"


class _HttpExchange(_Exchange):
    """One HTTP request: private to it, so that the middleware itself holds no state."""

    def __init__(self, assembly: Assembly, request: Authenticated, send: Send) -> None:
        super().__init__(assembly, request, send)
        self.has_started = False
        self.is_refused = False
        # With sessions alone and no login alive, the reply goes out byte for byte.
        self.is_watched = (
            request.mode is not Mode.OFF
            or request.credentials.are_ours
            or assembly.follower.may_have_logins
        )

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Refuse the request, or let the application answer it."""
        request = self.request
        cookies = [(b"set-cookie", value) for value in request.reply.cookies]
        if (status := _STATUSES.get(request.decision.verdict)) is not None:
            reason = request.decision.reason
            code = _code(status, reason)
            await send_error(self.send, status, code=code, reason=reason, headers=cookies)
            return
        if self.forbidden():
            self.assembly.metrics.inc("failures", request.client, "token", Reason.CSRF)
            await send_error(self.send, 403, headers=cookies)
            return
        self.prepare()
        if not self.is_watched:
            await app(request.scope, receive, self.send)
            return
        try:
            await app(request.scope, receive, self.observe)
        finally:
            if not self.has_started:
                await self.assembly.observer.observe_silence(request, self.given)
            await self.assembly.settle(request)

    async def observe(self, message: Message) -> None:
        """Pass the application's messages on; act at the response's start."""
        if message["type"] == "http.response.start" and not self.has_started:
            self.has_started = True
            if await self._start(message):
                return
        elif self.is_refused:
            return
        await self.send(message)

    async def _start(self, message: Message) -> bool:
        """Add what is ours to the head of the reply; true if the reply was replaced by our own."""
        request, status = self.request, message["status"]
        headers: RawHeaders = list(message.get("headers", ()))
        reply = request.reply
        if self.assembly.observer.is_telling(request, headers):
            observed = await self.assembly.observer.observe(request, self.given, status, headers)
            if observed.refuse:
                self.is_refused = True
                await send_error(self.send, 503)
                return True
            reply.cookies = _not_written(reply.cookies, headers) + observed.cookies
            reply.is_due = reply.is_due or observed.is_due
        if reply.cookies:
            _carry(headers, _newest(reply.cookies), is_due=reply.is_due)
        if request.mode is not Mode.OFF:
            self._cache_rules(headers)
        message["headers"] = headers
        return False

    def _cache_rules(self, headers: RawHeaders) -> None:
        vary(headers)
        if self.request.decision.verdict in _SOMEBODY and cache_control(headers) is None:
            headers.append((b"cache-control", b"private, no-store"))
        if Effect.HINT_REFRESH in self.request.decision.effects:
            headers.append((b"x-crossfade-refresh", b"1"))


class _SocketExchange(_Exchange):
    """One WebSocket: authenticated at the handshake, closed when its credential dies."""

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Refuse the handshake, or let the application talk until the credential dies."""
        if self.request.decision.verdict in _STATUSES or self.forbidden():
            await receive()
            await self.send({"type": "websocket.close", "code": 1008})
            return
        self.prepare()
        self.is_closed = False
        socket = self._register()
        self._receive = receive
        self._waiting: set[asyncio.Future[Any]] = set()
        closer = asyncio.create_task(self._close_when(socket.closing))
        try:
            await app(self.request.scope, self._receiving(socket), self._sending)
        except OSError:
            if not socket.closing.is_set():
                raise
        finally:
            self.assembly.sockets.leave(socket)
            for task in (closer, *self._waiting):
                task.cancel()

    def _register(self) -> OpenSocket:
        request = self.request
        claim: Revocable | None = None
        anchor: bytes | None = None
        if request.decision.verdict is Verdict.TOKEN:
            claim = request.token
        elif request.session.state is SessionState.OK:
            claim = claim_of(request.session)
            if request.session.key is not None:
                anchor = self.assembly.anchors.digest(request.session.key)
        leeway = self.assembly.settings.tokens.leeway
        socket = OpenSocket(claim=claim, anchor=anchor, until=self._ends_at(leeway))
        self.assembly.sockets.enter(socket)
        return socket

    def _ends_at(self, leeway: float) -> float | None:
        """Return when a socket ends: with its token; who holds a newer one connects again."""
        request = self.request
        if request.decision.verdict is not Verdict.TOKEN or request.token is None:
            return None
        return request.token.expires_at + leeway

    def _receiving(self, socket: OpenSocket) -> Receive:
        pending: asyncio.Task[Message] | None = None
        closing: asyncio.Task[bool] | None = None

        async def receive() -> Message:
            nonlocal pending, closing
            pending = pending or asyncio.ensure_future(self._receive())
            closing = closing or asyncio.ensure_future(socket.closing.wait())
            self._waiting = {pending, closing}
            try:
                await asyncio.wait({pending, closing}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                for task in (pending, closing):
                    task.cancel()
                raise
            if socket.closing.is_set():
                pending.cancel()
                await self._close()
                return {"type": "websocket.disconnect", "code": 1008}
            done, pending = pending, None
            if (message := done.result())["type"] == "websocket.disconnect":
                closing.cancel()
            return message

        return receive

    async def _close_when(self, closing: asyncio.Event) -> None:
        """Close from our side: an application that only sends never asks to receive."""
        await closing.wait()
        await self._close()

    async def _close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            with contextlib.suppress(RuntimeError, OSError):
                await self.send({"type": "websocket.close", "code": 1008})

    async def _sending(self, message: Message) -> None:
        if self.is_closed:
            if message["type"] == "websocket.send":
                raise OSError("the socket is closed")  # as servers do (ASGI 2.4)
            return
        if message["type"] == "websocket.close":
            self.is_closed = True
        if message["type"] == "websocket.accept" and self.request.reply.cookies:
            cookies = [(b"set-cookie", value) for value in self.request.reply.cookies]
            message["headers"] = [*message.get("headers", ()), *cookies]
        await self.send(message)


def _code(status: int, reason: Reason | None) -> str | None:
    if status == 400 and reason is Reason.IDENTITY_CONFLICT:
        return "identity_conflict"
    return None


def _not_written(cookies: list[bytes], headers: RawHeaders) -> list[bytes]:
    """Drop what was owed before the application ran and what it has set itself meanwhile."""
    names = {
        value.partition(b"=")[0].strip() for name, value in headers if name.lower() == b"set-cookie"
    }
    return [value for value in cookies if value.partition(b"=")[0] not in names]


def _newest(cookies: list[bytes]) -> list[bytes]:
    """Keep the last value of each cookie and path: a log-in may set what a row cleared."""
    found: dict[tuple[bytes, bytes], bytes] = {}
    for value in cookies:
        name = value.partition(b"=")[0]
        path = value.lower().partition(b"path=")[2].partition(b";")[0]
        found.pop((name, path), None)
        found[name, path] = value
    return list(found.values())


def _carry(headers: RawHeaders, cookies: list[bytes], *, is_due: bool) -> None:
    """Add cookies to a reply that no shared cache may keep.

    A reply marked public loses that mark if a cookie must arrive: what it replaces is spent, and a
    browser that went on with the spent one would look like a thief.
    """
    control = cache_control(headers) or b""
    if (b"public" in control or b"s-maxage" in control) and not is_due:
        return
    set_cache_control(headers, b"no-store" if b"no-store" in control else b"private, no-store")
    headers += [(b"set-cookie", value) for value in cookies]
