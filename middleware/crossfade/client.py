"""A client that holds tokens: an httpx Auth for mobile and machine clients.

It exchanges a legacy session once, sends the access token, refreshes before its end, and goes on
with the
session wherever the service says so: before its user is selected, and after a rollback.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

import httpx

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
LEGACY_SESSION = "urn:crossfade:params:oauth:token-type:legacy-session"
_RETRY_EXCHANGE = 60.0
"""Seconds after which a client that was not selected asks again."""


@dataclass(slots=True)
class Credentials:
    """What a client holds; keep it where the platform keeps secrets.

    Attributes:
        session: the legacy session as (cookie name, value); None if it has none.
        access_token, refresh_token: None before the exchange.
        expires_at: of the access token, seconds of the client's own monotonic clock.
    """

    session: tuple[str, str] | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_at: float = 0.0


class TokenAuth(httpx.Auth):
    """Authenticate requests of one user on one device.

    Args:
        base_url: origin of the service: `https://shop.example`.
        session: the legacy session, (cookie name, value), as the log-in set it.
        refresh_token: instead, if the client has been here before.
        prefix: the endpoints' prefix.
        headers: sent with each token request; what the service knows the client's kind by.
        on_change: called with the credentials after each change, to store them.

    A request whose refresh is refused goes out as it is: its 401 is the application's to show.
    Where the service has a fault of its own, its 503 is the response: no reason to log in again.
    """

    requires_response_body = True

    def __init__(
        self,
        base_url: str,
        *,
        session: tuple[str, str] | None = None,
        refresh_token: str | None = None,
        prefix: str = "/auth",
        headers: dict[str, str] | None = None,
        on_change: Callable[[Credentials], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.credentials = Credentials(session=session, refresh_token=refresh_token)
        self._token_url = f"{base_url}{prefix}/token"
        self._headers = headers or {}
        self._on_change = on_change
        self._monotonic = monotonic
        self._asked_at = float("-inf")
        self._attempt = ""
        self._lock, self._async_lock = threading.Lock(), asyncio.Lock()

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Authenticate one request; token requests of several threads wait in line."""
        with self._lock:
            is_refused = yield from self._drive(self._prepare())
        if is_refused and not self._holds_any():
            return
        response = yield self._authorised(request)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._used(request):
            with self._lock:
                is_refused = yield from self._drive(self._recover(request))
            if not is_refused:
                yield self._authorised(request)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Authenticate one request; token requests of several tasks wait in line."""
        async with self._async_lock:
            for step in self._prepare():
                response = yield step
                await response.aread()
                self._take(response)
                if response.is_server_error and not self._holds_any():
                    return
        response = yield self._authorised(request)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._used(request):
            async with self._async_lock:
                for step in self._recover(request):
                    answer = yield step
                    await answer.aread()
                    self._take(answer)
                    if answer.is_server_error:
                        return
            yield self._authorised(request)

    def _drive(
        self, flow: Generator[httpx.Request, None, None]
    ) -> Generator[httpx.Request, httpx.Response, bool]:
        """Send token requests; true if one met a fault of the service."""
        is_refused = False
        for step in flow:
            response = yield step
            response.read()
            self._take(response)
            is_refused = response.is_server_error
        return is_refused

    def _holds_any(self) -> bool:
        return self.credentials.access_token is not None or self.credentials.session is not None

    def _prepare(self) -> Generator[httpx.Request, None, None]:
        """Yield the token request that this request needs first, if any."""
        held = self.credentials
        if held.access_token is None and held.refresh_token is None:
            if held.session is not None and self._monotonic() - self._asked_at > _RETRY_EXCHANGE:
                self._asked_at = self._monotonic()
                yield self._exchange(held.session[1])
        elif self._monotonic() >= held.expires_at and held.refresh_token is not None:
            yield self._refresh(held.refresh_token)

    def _recover(self, request: httpx.Request) -> Generator[httpx.Request, None, None]:
        """Yield a refresh after a 401, unless another request has refreshed meanwhile."""
        held = self.credentials
        if request.headers.get("authorization") != f"Bearer {held.access_token}":
            return
        if held.refresh_token is not None:
            yield self._refresh(held.refresh_token)

    def _used(self, request: httpx.Request) -> bool:
        return "authorization" in request.headers

    def _authorised(self, request: httpx.Request) -> httpx.Request:
        held = self.credentials
        if held.access_token is not None:
            request.headers["authorization"] = f"Bearer {held.access_token}"
        else:
            request.headers.pop("authorization", None)
        if held.session is not None:
            name, value = held.session
            others = [
                part.strip()
                for part in request.headers.get("cookie", "").split(";")
                if part.strip() and not part.strip().startswith(f"{name}=")
            ]
            request.headers["cookie"] = "; ".join([*others, f"{name}={value}"])
        return request

    def _exchange(self, session: str) -> httpx.Request:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": session,
            "subject_token_type": LEGACY_SESSION,
        }
        return httpx.Request("POST", self._token_url, data=form, headers=self._headers)

    def _refresh(self, refresh_token: str) -> httpx.Request:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        # The same key until it worked: a reply that was lost for minutes is then given once more,
        # where a bare repeat would look like theft.
        self._attempt = self._attempt or secrets.token_urlsafe(16)
        headers = {**self._headers, "idempotency-key": self._attempt}
        return httpx.Request("POST", self._token_url, data=form, headers=headers)

    def _take(self, response: httpx.Response) -> None:
        """Take what a token response holds. A fault of the service (5xx) changes nothing."""
        if response.is_server_error:
            return
        body = _json(response)
        held = self.credentials
        self._attempt = ""
        if response.is_success and "access_token" in body:
            held.access_token = body["access_token"]
            held.refresh_token = body.get("refresh_token", held.refresh_token)
            # A little early: a token must not run out on its way.
            held.expires_at = self._monotonic() + 0.9 * float(body.get("expires_in", 0))
            held.session = None
            if "session_cookie" in body:
                held.session = _cookie(response, body["session_cookie"])
        elif body.get("error") == "invalid_grant" and held.refresh_token is not None:
            held.access_token = held.refresh_token = None
        if self._on_change is not None:
            self._on_change(held)


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _cookie(response: httpx.Response, name: str) -> tuple[str, str] | None:
    for line in response.headers.get_list("set-cookie"):
        jar = SimpleCookie()
        try:
            jar.load(line)
        except CookieError:
            continue
        if name in jar and jar[name].value:
            return name, jar[name].value
    return None
