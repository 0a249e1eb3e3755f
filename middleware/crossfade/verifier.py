"""For other services: verify Crossfade's access tokens with the issuer's published keys alone.

    verifier = Verifier(issuer="https://shop.example", audience="stock", jwks_url=...)
    app = TokenMiddleware(app, verifier=verifier)

It needs the base dependencies only: no database, no settings file.
"""

import json

import httpx
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import ASGIApp, Receive, Scope, Send

from crossfade.clock import Clock, SystemClock
from crossfade.errors import KeysUnavailable, Reason, TokenRejected
from crossfade.keys.remote import RemoteKeys
from crossfade.principal import Principal, credentials_of
from crossfade.tokens.claims import VerifiedToken
from crossfade.tokens.verifier import TokenVerifier

RETRY_AFTER = 5
"""Seconds after which a client may ask again when the keys are not there."""
_UNKNOWN = 256
_EMPTY = frozenset({"", "null", "undefined"})  # what scripts send when they hold no token


class Verifier:
    """Verifies access tokens of one issuer.

    Revocation before expiry is not seen here: an access token lives minutes.

    Args:
        issuer: `iss`, exactly.
        audience: what this service is called in `aud`.
        jwks_url: the issuer's `/.well-known/jwks.json`.
        leeway: seconds of clock difference forgiven.
        refresh: seconds after which the keys are read anew.
        cooldown: least seconds between reads that unknown keys or failures cause.
        timeout: seconds that reading the keys may take.
        client: an HTTP client of your own, say with a private certificate authority.
        clock: for tests.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwks_url: str,
        leeway: float = 30.0,
        refresh: float = 300.0,
        cooldown: float = 10.0,
        timeout: float = 5.0,
        client: httpx.AsyncClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._leeway = leeway
        self._keys = RemoteKeys(
            jwks_url,
            refresh=refresh,
            cooldown=cooldown,
            timeout=timeout,
            client=client,
            clock=self._clock,
        )
        self._tokens = TokenVerifier(
            issuer=issuer,
            audience=audience,
            keys=lambda: self._keys.ring,
            clock=self._clock,
            leeway=leeway,
        )
        # Headers whose `kid` the issuer does not have, and how long that is taken for granted.
        self._unknown: dict[bytes, float] = {}
        self._cooldown = cooldown

    async def verify(self, token: str) -> VerifiedToken:
        """Return what a token proves.

        Raises:
            TokenRejected: with its reason; `expired` too.
            KeysUnavailable: no keys yet, or a new `kid` that cannot be asked for right now: answer
                503, for the token may well be good.
        """
        asked_at = self._clock.monotonic()
        await self._keys.ready()
        text = token.encode("utf-8", "replace")
        try:
            verified = self._tokens.verify(text)
        except TokenRejected as error:
            if error.reason is not Reason.UNKNOWN_KID:
                raise
            verified = await self._with_new_keys(text, error, asked_at)
        if verified.expires_at + self._leeway <= self._clock.time():
            raise TokenRejected(Reason.EXPIRED)
        return verified

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._keys.aclose()

    async def _with_new_keys(
        self, token: bytes, refusal: TokenRejected, asked_at: float
    ) -> VerifiedToken:
        header = token.partition(b".")[0]
        if self._unknown.get(header, asked_at) > asked_at:
            raise refusal
        if not await self._keys.reload(asked_at):
            raise KeysUnavailable("a key that is not known yet") from refusal
        try:
            return self._tokens.verify(token)
        except TokenRejected as error:
            if error.reason is Reason.UNKNOWN_KID:
                self._remember(header, asked_at + self._cooldown)
            raise

    def _remember(self, header: bytes, until: float) -> None:
        if len(self._unknown) >= _UNKNOWN:
            self._unknown.clear()
        self._unknown[header] = until


class TokenMiddleware:
    """Plain ASGI: puts the bearer's user into the scope, as Starlette's own middleware would.

    Without an Authorization header, or with another scheme, the request goes on as nobody's, and
    the application's `@requires` decides. A bearer that proves nothing is answered 401 here
    (RFC 6750 3), two of them 400, and 503 says that the keys are not there.

    Args:
        app: the application.
        verifier: shared by all requests.
    """

    def __init__(self, app: ASGIApp, *, verifier: Verifier) -> None:
        self._app = app
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        bearers = _bearers(scope)
        if len(bearers) > 1:
            await _answer(scope, send, 400, "invalid_request")
            return
        scope = {**scope, "user": UnauthenticatedUser(), "auth": AuthCredentials()}
        if bearers:
            try:
                principal = _principal(await self._verifier.verify(bearers[0]))
            except TokenRejected:
                await _answer(scope, send, 401, "invalid_token")
                return
            except KeysUnavailable:
                await _answer(scope, send, 503, "temporarily_unavailable")
                return
            scope |= {"user": principal, "auth": credentials_of(principal)}
        await self._app(scope, receive, send)


def _bearers(scope: Scope) -> list[str]:
    """Return what stands behind `Bearer`, the scheme in any case (RFC 9110 11.1)."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    parts = [value.decode("latin-1").strip(" \t").partition(" ") for value in values]
    tokens = [token.strip(" \t") for scheme, _, token in parts if scheme.lower() == "bearer"]
    return [token for token in tokens if token not in _EMPTY]


def _principal(verified: VerifiedToken) -> Principal:
    return Principal(
        who=verified.identity,
        credential="token",
        client=verified.client,
        login_id=verified.login_id,
        auth_time=verified.auth_time,
        scopes=verified.scopes,
        claims=verified.claims,
    )


async def _answer(scope: Scope, send: Send, status: int, error: str) -> None:
    """Refuse a request; a WebSocket without the denial extension is closed, which is a 403."""
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": error})
            return
        kind = "websocket.http.response"
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", str(RETRY_AFTER).encode()))
    else:
        headers.append((b"www-authenticate", f'Bearer error="{error}"'.encode()))
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
