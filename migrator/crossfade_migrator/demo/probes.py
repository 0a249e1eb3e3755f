"""People who test the promises: thieves, attackers, newcomers, and operators who end a login."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx
from websockets.exceptions import ConnectionClosed, WebSocketException

from crossfade.client import EXCHANGE, LEGACY_SESSION
from crossfade_migrator.context import Context
from crossfade_migrator.demo.clients import (
    ACCESS,
    MOBILE,
    REFRESH,
    Browser,
    MobileApp,
    Street,
)
from crossfade_migrator.demo.crowd import open_socket
from crossfade_migrator.demo.house import ACCESS_TTL, LEEWAY, REPLAY_WINDOW
from crossfade_migrator.demo.ledger import BOUGHT, REUSE, REVOKED, STRANGER, SUCCESSOR, Ledger
from crossfade_migrator.demo.shop_sessions import COOKIE
from crossfade_migrator.logins import list_logins, revoke

REVOKED_WITHIN = 2.0
"""Seconds after which no instance may accept what was revoked, while the feed is healthy."""
_WATCHED_FOR = 3.5
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Loot:
    """A copy of what a browser holds."""

    session: str | None
    access: str | None
    refresh: str | None

    @classmethod
    def of(cls, browser: Browser) -> "Loot":
        """Copy a browser's cookies."""
        jar = browser.http.cookies
        return cls(session=jar.get(COOKIE), access=jar.get(ACCESS), refresh=jar.get(REFRESH))

    def uses(self) -> list[Mapping[str, str]]:
        """Return the ways to try it, as request headers: each part alone, and all together."""
        parts = {COOKIE: self.session, ACCESS: self.access, REFRESH: self.refresh}
        cookies = [f"{name}={value}" for name, value in parts.items() if value]
        ways = [{"cookie": cookie} for cookie in [*cookies, "; ".join(cookies)]]
        if self.access:
            ways.append({"authorization": f"Bearer {self.access}"})
        # A new connection each: any worker may be the one that has not heard.
        return [way | {"connection": "close"} for way in ways]


async def signed_in(browser: Browser) -> bool:
    """Log a browser in and let it be given tokens; False, and noted, if it cannot be."""
    for _ in range(_TRIES):
        is_in = browser.is_in or await browser.log_in()
        if is_in and await browser.page() and browser.has_tokens:
            return True
        await asyncio.sleep(0.3)
    browser.ledger.breach(STRANGER, browser.name, "could not log in and be given tokens")
    return False


async def watch_refusal(street: Street, name: str, loot: Loot, revoked_at: float) -> None:
    """Try loot until well after its revocation; note the last time that it was accepted."""
    accepted_at = revoked_at
    while time.monotonic() < revoked_at + _WATCHED_FOR:
        for headers in loot.uses():
            sent_at = time.monotonic()
            reply = await street.send(name, street.client(), "GET", "/api/me", headers=headers)
            street.ledger.checks[REVOKED] += 1
            if reply.status_code != httpx.codes.OK:
                continue
            accepted_at = max(accepted_at, sent_at)
            if sent_at > revoked_at + REVOKED_WITHIN:
                after = f"{sent_at - revoked_at:.1f} s after its end"
                street.ledger.breach(REVOKED, name, f"{after}, with {_names(headers)}")
        await asyncio.sleep(0.05)
    street.ledger.revoke_seconds.append(accepted_at - revoked_at)


def _names(headers: Mapping[str, str]) -> str:
    """Name the credentials of a request, never their values."""
    if "authorization" in headers:
        return "a bearer token"
    return ", ".join(part.partition("=")[0].strip() for part in headers["cookie"].split(";"))


async def thief_after_log_out(street: Street, user: str) -> None:
    """Copy cookies and token, wait for the log-out, and replay the copies."""
    victim = Browser(street, user, "victim")
    if not await signed_in(victim):
        return
    loot = Loot.of(victim)
    await victim.log_out()
    await watch_refusal(street, f"thief-{user}", loot, time.monotonic())


async def operator_ends_login(street: Street, ctx: Context, user: str) -> None:
    """End a login by the operator's verb while its person browses and has a socket open."""
    victim = Browser(street, user, "revoked")
    if not await signed_in(victim):
        return
    rows = await list_logins(ctx, user)
    async with _watched_socket(victim) as closed_at:
        for row in rows:
            await revoke(ctx, row.login.sid)
        revoked_at = time.monotonic()
        await watch_refusal(street, f"revoked-{user}", Loot.of(victim), revoked_at)
        _note_socket(street.ledger, f"revoked-{user}", closed_at, revoked_at)


async def person_ends_other_login(street: Street, user: str) -> None:
    """End the login of one's other device by the service's own endpoint; one's own goes on."""
    own, lost = Browser(street, user, "own"), Browser(street, user, "lost")
    if not (await signed_in(own) and await signed_in(lost)):
        return
    async with _watched_socket(lost) as closed_at:
        reply = await own.send(
            "POST",
            "/auth/logins",
            data={"others": "true"},
            headers={"origin": street.origin, "sec-fetch-site": "same-origin"},
        )
        revoked_at = time.monotonic()
        if reply.status_code != httpx.codes.OK:
            street.ledger.breach(REVOKED, own.name, f"/auth/logins answered {reply.status_code}")
            return
        await watch_refusal(street, f"lost-{user}", Loot.of(lost), revoked_at)
        _note_socket(street.ledger, f"lost-{user}", closed_at, revoked_at)
    if not await own.page() and own.is_in:
        await own.page()


@contextlib.asynccontextmanager
async def _watched_socket(browser: Browser) -> AsyncIterator[list[float]]:
    """Keep a socket open; yields a list that holds the moment at which it was closed."""
    closed_at: list[float] = []

    async def talk() -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send("hello")
                await socket.recv()
                await asyncio.sleep(0.1)
        closed_at.append(time.monotonic())

    async with open_socket(browser) as socket:
        talking = asyncio.create_task(talk())
        try:
            yield closed_at
        finally:
            talking.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketException):
                await talking


def _note_socket(ledger: Ledger, name: str, closed_at: list[float], revoked_at: float) -> None:
    ledger.checks[REVOKED] += 1
    if not closed_at:
        ledger.breach(REVOKED, name, "its socket was never closed")
        return
    seconds = max(0.0, closed_at[0] - revoked_at)
    ledger.revoke_seconds.append(seconds)
    if seconds > REVOKED_WITHIN:
        ledger.breach(REVOKED, name, f"its socket lived for {seconds:.1f} s more")


async def thief_reuses_refresh_token(street: Street, user: str) -> None:
    """Use an old refresh token: its login ends, and the person's other login does not.

    Garbage that names the same login ends nothing.
    """
    robbed, other = MobileApp(street, user, "robbed"), Browser(street, user, "other")
    if not (await robbed.log_in() and robbed.has_tokens and await signed_in(other)):
        return
    stolen = robbed.auth.credentials.refresh_token if robbed.auth else None
    if stolen is None:
        return
    ledger = street.ledger
    garbage = stolen[:-4] + ("AAAA" if not stolen.endswith("AAAA") else "BBBB")
    if await _refresh(street, garbage) is not None:
        ledger.breach(REUSE, robbed.name, "a forged refresh token was taken")
    first = await _refresh(street, stolen)
    second = await _refresh(street, first or "")
    ledger.checks[REUSE] += 1
    if first is None or second is None:
        ledger.breach(REUSE, robbed.name, "a login ended for a forged token")
        return
    await asyncio.sleep(REPLAY_WINDOW + 0.5)  # beyond the time for which a repeat is answered again
    if await _refresh(street, stolen) is not None:
        ledger.breach(REUSE, robbed.name, "an old refresh token was taken")
    if await _refresh(street, second) is not None:
        ledger.breach(REUSE, robbed.name, "the login went on after a reuse")
    ledger.counts["reuses"] += 1
    robbed.forget()
    await other.page()


async def _refresh(street: Street, token: str) -> str | None:
    """Spend a refresh token; return the live one afterwards, None if it was refused."""
    form = {"grant_type": "refresh_token", "refresh_token": token}
    for _ in range(_TRIES):
        reply = await street.send(
            "refresher", street.client(), "POST", "/auth/token", data=form, headers=MOBILE
        )
        if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        await asyncio.sleep(0.3)
    if reply.status_code != httpx.codes.OK:
        return None
    live: str = reply.json().get("refresh_token", token)
    return live


async def refresh_in_parallel(street: Street, user: str) -> None:
    """Send one refresh token several times at once: all answers name one successor."""
    app = MobileApp(street, user, "parallel")
    if not (await app.log_in() and app.has_tokens and app.auth):
        return
    token = app.auth.credentials.refresh_token or ""
    answers = await asyncio.gather(*(_refresh(street, token) for _ in range(4)))
    street.ledger.checks[SUCCESSOR] += len(answers)
    if len(set(answers)) != 1 or answers[0] in {None, token}:
        street.ledger.breach(SUCCESSOR, app.name, f"{len(set(answers))} different answers")
    live = answers[0]
    if live is not None:
        app.auth.credentials.refresh_token = live
        await app.call("/api/me")


async def newcomers(street: Street, user: str, second: str, app_user: str) -> None:
    """Come without credentials, one with a second factor, one by app; all reach the shop."""
    ledger = street.ledger
    for browser in (Browser(street, user, "newcomer"), Browser(street, second, "newcomer")):
        reply = await browser.send("GET", "/account", headers={"accept": "text/html"})
        ledger.checks[STRANGER] += 1
        if reply.headers.get("location") != "/login":
            ledger.breach(STRANGER, browser.name, f"/account answered {reply.status_code}")
        await _must_get_in(browser.log_in, ledger, browser.name)
        await browser.add()
        await browser.log_out()
    app = MobileApp(street, app_user, "newcomer")
    ledger.checks[STRANGER] += 1
    await _must_get_in(app.log_in, ledger, app.name)


async def _must_get_in(log_in: Callable[[], Awaitable[bool]], ledger: Ledger, name: str) -> None:
    for _ in range(_TRIES):
        if await log_in():
            return
        if not ledger.is_faulty:
            break
        await asyncio.sleep(0.3)
    ledger.breach(STRANGER, name, "could not log in")


async def token_thief(street: Street, user: str) -> None:
    """Try to make more of a stolen access token than it is, until it has ended."""
    victim = Browser(street, user, "robbed")
    if not await signed_in(victim):
        return
    access = victim.http.cookies.get(ACCESS) or ""
    ledger, ends_at = street.ledger, time.monotonic() + ACCESS_TTL + LEEWAY + 0.3
    tries: list[tuple[str, str, Mapping[str, str] | None]] = [
        ("GET", "/", None),
        ("POST", "/cart/add", {"item": "loot"}),
        ("POST", "/auth/session", {"refresh_token": access}),
        ("POST", "/auth/session", {}),
        ("POST", "/auth/token", {"grant_type": "refresh_token", "refresh_token": access}),
        ("GET", "/login", None),
    ]
    bearer = {"authorization": f"Bearer {access}"}
    cookie = {"cookie": f"{ACCESS}={access}", "sec-fetch-site": "same-origin"}
    bought: list[str] = []
    while time.monotonic() < ends_at:
        method, path, form = random.choice(tries)
        headers = random.choice((bearer, bearer | MOBILE, cookie)) | {"accept": "text/html"}
        reply = await street.send(
            f"thief-{user}", street.client(), method, path, headers=headers, data=form
        )
        ledger.checks[BOUGHT] += 1
        for line in reply.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            if name == REFRESH and value:
                ledger.breach(BOUGHT, f"thief-{user}", f"{method} {path} gave a refresh token")
            if name == COOKIE and value not in {"", "null"}:
                bought.append(value)  # a stranger gets one too: what counts is whether it is good
        await asyncio.sleep(0.15)
    sessions = [{"cookie": f"{COOKIE}={value}"} for value in bought]
    for headers in (bearer, cookie, *sessions):
        reply = await street.send(
            f"thief-{user}", street.client(), "GET", "/api/me", headers=headers
        )
        if reply.status_code == httpx.codes.OK:
            ledger.breach(BOUGHT, f"thief-{user}", "was served after the token's end")
    for value in bought:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": value,
            "subject_token_type": LEGACY_SESSION,
        }
        reply = await street.send(
            f"thief-{user}", street.client(), "POST", "/auth/token", data=form, headers=MOBILE
        )
        if reply.status_code == httpx.codes.OK:
            ledger.breach(BOUGHT, f"thief-{user}", "exchanged what it was given for tokens")
