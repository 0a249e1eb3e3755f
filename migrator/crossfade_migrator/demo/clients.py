"""The clients of the demo: browsers and mobile apps, and what each may expect of every reply."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any, Literal

import httpx

from crossfade.client import TokenAuth
from crossfade_migrator.demo.house import ABSOLUTE, ACCESS_TTL, IDLE
from crossfade_migrator.demo.ledger import CART, IDENTITY, LOGOUT, REVOKED, SERVER, Ledger
from crossfade_migrator.demo.shop import CODE, has_second_factor
from crossfade_migrator.demo.shop_sessions import COOKIE

ACCESS, REFRESH = "crossfade-access", "crossfade-refresh"
MOBILE = {"x-app": "shop-mobile/1"}
_NAVIGATION = {
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
    "sec-fetch-site": "same-origin",
    "accept": "text/html",
}
SCRIPT = {
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
    "sec-fetch-site": "same-origin",
    "accept": "application/json",
}
_HELLO = re.compile(r"Hello, (\w+)\.")
_SLACK = 1.5
_SERVICE_UNAVAILABLE = 503


class Street:
    """What all clients share: the shop's address, connections, and the ledger.

    The connections are a pool, as behind a load balancer: any request may reach any worker.
    """

    def __init__(
        self, origin: str, ledger: Ledger, legacy: Literal["sql", "signed-cookie"]
    ) -> None:
        self.origin, self.ledger, self.legacy = origin, ledger, legacy
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=40, keepalive_expiry=2)
        self._transport = httpx.AsyncHTTPTransport(limits=limits)

    def client(self) -> httpx.AsyncClient:
        """Return a new client with a cookie jar of its own."""
        return httpx.AsyncClient(
            transport=self._transport, base_url=self.origin, trust_env=False, timeout=20
        )

    async def send(
        self, name: str, client: httpx.AsyncClient, method: str, path: str, **options: Any
    ) -> httpx.Response:
        """Send one request and count its reply; a line that breaks is an error of the server."""
        try:
            reply = await client.request(method, path, **options)
        except httpx.TransportError as error:
            self.ledger.breach(SERVER, name, f"{method} {path}: {type(error).__name__}")
            return httpx.Response(_SERVICE_UNAVAILABLE, request=httpx.Request(method, path))
        self.ledger.reply(name, reply.status_code, may_retry="retry-after" in reply.headers)
        return reply

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


class Customer:
    """One person on one device: who they are, what is in their cart, since when they are in.

    Attributes:
        maybe: items whose reply was lost: they may be in the cart, or not, or come late.
        adopts: the shop's own end of the session has come: the cart is what it is by then.
        since: when the present session began, monotonic; `limit`: how long it may live.
    """

    kind = "web"

    def __init__(self, street: Street, user: str, name: str) -> None:
        self.street, self.ledger = street, street.ledger
        self.user, self.name = user, f"{name}-{user}"
        self.http = street.client()
        self.is_in = False
        self.cart: list[str] = []
        self.maybe: set[str] = set()
        self.adopts = False
        self.since, self.limit = 0.0, ABSOLUTE
        self.seen_at = time.monotonic()
        self._items = 0

    @property
    def has_tokens(self) -> bool:
        """Say whether the client holds a refresh token: then nothing but a log-out may end it."""
        raise NotImplementedError

    async def log_in(self) -> bool:
        """Go the whole way of the shop's log-in; say whether one is in."""
        raise NotImplementedError

    @property
    def cart_ends_at(self) -> float:
        """Return until when the shop keeps this client's cart: a record ends with its own time.

        Whoever comes back in time has it carried over; who slept through the end has a new one.
        """
        return max(self.since + self.limit, self.seen_at + ACCESS_TTL + _SLACK) - _SLACK

    @property
    def is_due_to_end(self) -> bool:
        """Say whether the shop may have ended the session by itself by now, as it always did."""
        now = time.monotonic()
        is_over = now >= self.since + self.limit - _SLACK or now >= self.seen_at + IDLE - _SLACK
        return is_over and not self.has_tokens

    def item(self) -> str:
        """Return the name of a thing that is in no cart yet."""
        self._items += 1
        return f"{random.choice(('tea', 'milk', 'lamp', 'soap'))}-{self._items}"

    def see(self, reply: httpx.Response, *, had_tokens: bool) -> bool:
        """Hold a reply against what this client may expect; say whether it was served as itself."""
        if reply.status_code == _SERVICE_UNAVAILABLE:
            return False
        who = _named_in(reply)
        self.ledger.checks[IDENTITY] += 1
        if who == self.user:
            if "cart" in reply.text[:200] and reply.headers["content-type"] == "application/json":
                self._compare(reply.json().get("cart"))
            self.seen_at = time.monotonic()
            return True
        if who is None:
            self._is_out(reply, had_tokens=had_tokens)
        else:
            self.ledger.breach(IDENTITY, self.name, f"was answered as {who}")
            self.forget()
        return False

    def _is_out(self, reply: httpx.Response, *, had_tokens: bool) -> None:
        now = time.monotonic()
        if self.is_due_to_end and not had_tokens:
            # The shop ends its sessions, with Crossfade or without.
            self.ledger.counts["sessions_expired"] += 1
        else:
            what = f"{reply.request.method} {reply.request.url.path} answered {reply.status_code}"
            self.ledger.breach(
                LOGOUT,
                self.name,
                f"{what}, {now - self.since:.1f} s after its session began"
                f"{', with tokens' if had_tokens else ''}",
            )
        self.forget()
        self.adopts = True

    def _compare(self, cart: Any) -> None:
        if not isinstance(cart, list):
            return
        certain = [item for item in cart if item not in self.maybe]
        if self.adopts:
            self.cart, self.adopts = certain, False
            return
        self.ledger.checks[CART] += 1
        if certain != self.cart:
            missing = [item for item in self.cart if item not in certain]
            self.ledger.breach(CART, self.name, f"{len(missing)} of {len(self.cart)} items missing")
            self.cart = certain

    def forget(self) -> None:
        """Be a stranger with an empty cart."""
        self.is_in = self.adopts = False
        self.cart = []

    def begin(self, limit: float = ABSOLUTE) -> None:
        """Note that a session begins now."""
        self.is_in = True
        self.since, self.limit = time.monotonic(), limit
        self.seen_at = self.since


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a browser held when it sent a request: its reply is judged by that."""

    tokens: bool
    session: str | None
    access: str | None
    cart_ends_at: float


class Browser(Customer):
    """A browser: a cookie jar, pages, forms and scripts of pages.

    Attributes:
        token_since: when it was given its present access token, monotonic.
    """

    token_since = 0.0

    @property
    def has_tokens(self) -> bool:
        """Say whether the jar holds the refresh cookie."""
        return self.http.cookies.get(REFRESH) is not None

    @property
    def cart_ends_at(self) -> float:
        """A cart that lives in the cookie goes when the browser drops the cookie."""
        if self.street.legacy == "sql":
            return super().cart_ends_at
        return self.since + self.limit - _SLACK

    def held(self) -> Held:
        """Return what the jar holds before a request."""
        return Held(
            tokens=self.has_tokens,
            session=self.http.cookies.get(COOKIE),
            access=self.http.cookies.get(ACCESS),
            cart_ends_at=self.cart_ends_at,
        )

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request and note what the reply did to the cookies."""
        held = self.held()
        reply = await self.street.send(self.name, self.http, method, path, **options)
        self.note(held, reply)
        return reply

    def note(self, held: Held, reply: httpx.Response) -> None:
        """Note what a reply did: tokens given, a session given back or begun anew."""
        now = time.monotonic()
        self.adopts = self.adopts or now >= held.cart_ends_at
        session = self.http.cookies.get(COOKIE)
        if self.http.cookies.get(ACCESS) != held.access:
            self.token_since = now
        if self.has_tokens and not held.tokens:
            self.ledger.issued("web", self.user)
        if held.tokens and not self.has_tokens and reply.request.url.path != "/logout":
            # Given back: it lives for half of a session's life at least.
            self.since, self.limit = now, ABSOLUTE / 2
            self.ledger.counts["given_back" if session else "tokens_lost"] += 1
        elif self.street.legacy != "sql" and session and session != held.session:
            self.since, self.limit = now, _age_of_session(reply)

    async def page(self, path: str = "/") -> bool:
        """Open a page; say whether the shop knew who this is."""
        had_tokens = self.has_tokens
        reply = await self.send("GET", path, headers=_NAVIGATION)
        return self.see(reply, had_tokens=had_tokens)

    async def script(self, path: str, item: str | None = None) -> bool:
        """Let the page's script ask the API, or put an item into the cart."""
        had_tokens = self.has_tokens
        if item is None:
            reply = await self.send("GET", path, headers=SCRIPT)
            return self.see(reply, had_tokens=had_tokens)
        headers = SCRIPT | {"origin": self.street.origin}
        reply = await self.send("POST", path, headers=headers, json={"item": item})
        return self._put(item, reply) and self.see(reply, had_tokens=had_tokens)

    def _put(self, item: str, reply: httpx.Response) -> bool:
        if reply.status_code in {200, 303}:
            self.cart.append(item)
        return reply.status_code != _SERVICE_UNAVAILABLE

    async def form(self, path: str, data: Mapping[str, str]) -> httpx.Response:
        """Send a form, as a browser does."""
        headers = _NAVIGATION | {"origin": self.street.origin}
        return await self.send("POST", path, headers=headers, data=data)

    async def add(self) -> bool:
        """Put something into the cart by the page's form, and look."""
        item = self.item()
        reply = await self.form("/cart/add", {"item": item})
        if not self._put(item, reply):
            return False
        return await self.script("/api/cart")

    async def log_in(self) -> bool:
        """Go the whole way: the form, the password, the code where one is asked for."""
        if (await self.send("GET", "/login", headers=_NAVIGATION)).status_code != httpx.codes.OK:
            return False
        reply = await self.form("/login", {"user": self.user, "password": f"pw-{self.user}"})
        if has_second_factor(self.user) and reply.status_code == httpx.codes.SEE_OTHER:
            reply = await self.form("/login/code", {"code": CODE})
        if reply.status_code != httpx.codes.SEE_OTHER or reply.headers["location"] != "/":
            return False
        self.begin()
        return await self.page()

    async def log_out(self) -> None:
        """Log out, and see that one is a stranger again."""
        reply = await self.form("/logout", {})
        if reply.status_code == _SERVICE_UNAVAILABLE:
            return
        if reply.status_code != httpx.codes.SEE_OTHER:
            self.ledger.breach(REVOKED, self.name, f"/logout answered {reply.status_code}")
            return
        self.forget()
        self.ledger.counts["log_outs"] += 1
        reply = await self.send("GET", "/api/me", headers=SCRIPT)
        self.ledger.checks[REVOKED] += 1
        if reply.status_code == httpx.codes.OK:
            self.ledger.breach(REVOKED, self.name, "still in after its log-out")

    async def lose(self, method: str, path: str, **options: Any) -> None:
        """Send a request and never learn its answer: the line drops, or the page is left."""
        lost = self.street.client()
        lost.cookies = httpx.Cookies(self.http.cookies)
        sending = self.street.send(self.name, lost, method, path, **options)
        try:
            await asyncio.wait_for(sending, random.choice((0.01, 5)))
        except (TimeoutError, httpx.HTTPError):
            self.ledger.counts["connections_dropped"] += 1
        self.ledger.counts["replies_lost"] += 1


class MobileApp(Customer):
    """A mobile app without a jar: TokenAuth exchanges, refreshes, and goes back to the session."""

    kind = "mobile"

    def __init__(self, street: Street, user: str, name: str) -> None:
        super().__init__(street, user, name)
        self.auth: TokenAuth | None = None
        self._started_at = 0.0

    @property
    def has_tokens(self) -> bool:
        """Say whether the app holds a refresh token."""
        return self.auth is not None and self.auth.credentials.refresh_token is not None

    @property
    def cart_ends_at(self) -> float:
        """A cart that lives in the session cookie does not follow a client without one."""
        return super().cart_ends_at if self.street.legacy == "sql" else 0.0

    async def log_in(self) -> bool:
        """Log in by the shop's own form, and start the app with the session."""
        http = self.street.client()
        form = {"user": self.user, "password": f"pw-{self.user}"}
        reply = await self.street.send(self.name, http, "POST", "/login", headers=MOBILE, data=form)
        if has_second_factor(self.user) and reply.status_code == httpx.codes.SEE_OTHER:
            reply = await self.street.send(
                self.name, http, "POST", "/login/code", headers=MOBILE, data={"code": CODE}
            )
        session = http.cookies.get(COOKIE)
        if reply.status_code != httpx.codes.SEE_OTHER or session is None:
            return False
        self.begin()
        self._start((COOKIE, session))
        return await self.call("/api/me")

    def _start(self, session: tuple[str, str]) -> None:
        self._started_at = time.monotonic()
        self.auth = TokenAuth(self.street.origin, session=session, headers=MOBILE)

    async def call(self, path: str, item: str | None = None) -> bool:
        """Ask the API; say whether the shop knew who this is."""
        had_tokens = self.has_tokens
        # An app that got no tokens asks again when it is started the next time.
        is_old = time.monotonic() - self._started_at > ACCESS_TTL
        if self.auth is not None and not had_tokens and is_old and self.auth.credentials.session:
            self._start(self.auth.credentials.session)
        body = {"json": {"item": item}} if item is not None else {}
        method = "GET" if item is None else "POST"
        ends_at = self.cart_ends_at
        reply = await self.street.send(
            self.name, self.http, method, path, headers=MOBILE, auth=self.auth, **body
        )
        self.adopts = self.adopts or time.monotonic() >= ends_at
        self._take(reply)
        if self.has_tokens and not had_tokens:
            self.ledger.issued("mobile", self.user)
        if had_tokens and not self.has_tokens:
            self.ledger.counts["tokens_lost"] += 1
        if item is not None and reply.status_code == httpx.codes.OK:
            self.cart.append(item)
        return self.see(reply, had_tokens=had_tokens)

    def _take(self, reply: httpx.Response) -> None:
        """Keep a session cookie that the shop renewed; the app has no jar for it."""
        self.http.cookies.clear()
        if self.auth is None or self.auth.credentials.session is None:
            return
        for line in reply.headers.get_list("set-cookie"):
            jar = SimpleCookie(line)
            if COOKIE in jar and jar[COOKIE].value:
                self.auth.credentials.session = (COOKIE, jar[COOKIE].value)
                if self.street.legacy != "sql":
                    self.since, self.limit = time.monotonic(), ABSOLUTE

    def forget(self) -> None:
        """Be a stranger, without credentials."""
        super().forget()
        self.auth = None


def _age_of_session(reply: httpx.Response) -> float:
    for line in reply.headers.get_list("set-cookie"):
        jar = SimpleCookie(line)
        if COOKIE in jar and jar[COOKIE]["max-age"]:
            return float(jar[COOKIE]["max-age"])
    return ABSOLUTE


def _named_in(reply: httpx.Response) -> str | None:
    """Return whom a reply is for; None for a stranger."""
    if reply.headers.get("content-type", "").startswith("application/json"):
        body = reply.json()
        return body.get("user") if isinstance(body, dict) else None
    found = _HELLO.search(reply.text)
    return found[1] if found and found[1] != "stranger" else None
