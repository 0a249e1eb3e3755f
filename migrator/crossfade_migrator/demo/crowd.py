"""The crowd: what people do with the shop all day, each in their own way and at their own pace."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from crossfade_migrator.demo.clients import ACCESS, SCRIPT, Browser, Customer, MobileApp, Street
from crossfade_migrator.demo.house import ACCESS_TTL, LEEWAY
from crossfade_migrator.demo.ledger import IDENTITY, LOGOUT
from crossfade_migrator.demo.shop_sessions import COOKIE

_PAUSE = (1.3, 2.7)
"""Seconds between two acts of one person: some hundred requests a second in all."""
Act = Awaitable[object]

_ROLL_CALL_WITHIN = 12.0


class Walker:
    """Somebody in the shop: one customer and what they do next."""

    def __init__(self, customer: Customer, act: Callable[[], Act]) -> None:
        self.customer, self.act = customer, act
        self.has_answered = asyncio.Event()


class Crowd:
    """All who are in the shop at once."""

    def __init__(self, street: Street) -> None:
        self.street, self.ledger = street, street.ledger
        self.walkers = _everybody(street)
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.walkers)

    def start(self, within: float) -> None:
        """Let everybody come in, spread over some seconds."""
        for number, walker in enumerate(self.walkers):
            wait = within * number / len(self.walkers)
            self._tasks.append(asyncio.create_task(self._walk(walker, wait)))

    async def stop(self) -> None:
        """Send everybody home. Raises what broke a client: that is a fault of the demo."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def roll_call(self) -> int:
        """Let everybody compare identity and cart once, now; return how many did."""
        for walker in self.walkers:
            walker.has_answered.clear()
        waiting = asyncio.gather(*(walker.has_answered.wait() for walker in self.walkers))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting, _ROLL_CALL_WITHIN)
        missing = [walker for walker in self.walkers if not walker.has_answered.is_set()]
        for walker in missing:
            self.ledger.breach(LOGOUT, walker.customer.name, "was not served at the roll call")
        return len(self.walkers) - len(missing)

    async def _walk(self, walker: Walker, wait: float) -> None:
        await asyncio.sleep(wait)
        while True:
            await self._next(walker)
            await asyncio.sleep(random.uniform(*_PAUSE))

    async def _next(self, walker: Walker) -> None:
        customer = walker.customer
        if not customer.is_in:
            await customer.log_in()
        elif customer.is_due_to_end or not walker.has_answered.is_set():
            if await look(customer):
                walker.has_answered.set()
        else:
            await walker.act()


async def look(customer: Customer) -> bool:
    """Look into one's cart; say whether the shop knew whose it is."""
    if isinstance(customer, MobileApp):
        return await customer.call("/api/cart")
    if isinstance(customer, Browser):
        return await customer.script("/api/cart")
    return False


def _everybody(street: Street) -> list[Walker]:
    users = iter(f"u{number:03}" for number in range(200))

    def some(count: int, name: str, acts: Callable[[Browser], Act]) -> list[Walker]:
        browsers = [Browser(street, next(users), name) for _ in range(count)]
        return [Walker(browser, _bound(acts, browser)) for browser in browsers]

    walkers = [
        *some(62, "browser", shop),
        *some(14, "tabs", shop_in_tabs),
        *some(12, "lossy", lose_replies),
        *some(8, "stale", send_stale_cookies),
        *some(10, "comer", come_and_go),
        *some(8, "live", watch_live),
    ]
    apps = [MobileApp(street, next(users), "mobile") for _ in range(40)]
    return walkers + [Walker(app, _bound(use_app, app)) for app in apps]


def _bound(act: Callable[..., Act], customer: Customer) -> Callable[[], Act]:
    return lambda: act(customer)


async def shop(browser: Browser) -> None:
    """Open a page, let its script ask, put something into the cart."""
    dice = random.random()
    if dice < 0.45:
        await browser.page()
    elif dice < 0.65:
        await browser.script("/api/cart")
    elif dice < 0.8:
        await browser.script("/api/me")
    elif dice < 0.9:
        await browser.script("/api/cart", browser.item())
    else:
        await browser.add()


async def shop_in_tabs(browser: Browser) -> None:
    """Have several tabs load at once, all with the same jar."""
    await asyncio.gather(
        browser.page(), browser.script("/api/cart"), browser.script("/api/me"), browser.page()
    )
    if browser.is_in and random.random() < 0.3:
        await asyncio.sleep(0.5)  # people look before they click
        await browser.script("/api/cart", browser.item())


async def lose_replies(browser: Browser) -> None:
    """Lose a reply now and then, a renewal's among them, and ask again."""
    if random.random() < 0.5:
        if random.random() < 0.3:
            item = browser.item()
            browser.maybe.add(item)
            headers = SCRIPT | {"origin": browser.street.origin}
            await browser.lose("POST", "/api/cart", headers=headers, json={"item": item})
        else:
            await browser.lose("GET", "/api/cart", headers=SCRIPT)
        await browser.script("/api/cart")
    else:
        await shop(browser)


async def send_stale_cookies(browser: Browser) -> None:
    """Come with cookies that are of no use: a broken access token, a session long gone."""
    if browser.has_tokens and time.monotonic() > browser.token_since + ACCESS_TTL + LEEWAY:
        await knock_with_dead_session(browser)
        await browser.script("/api/cart")
    elif browser.has_tokens and random.random() < 0.3:
        browser.http.cookies.set(ACCESS, "not-a-token", domain="127.0.0.1", path="/")
        await browser.script("/api/me")
    else:
        await shop(browser)


async def knock_with_dead_session(browser: Browser) -> None:
    """Let a background tab poll with an access token that ran out, and a session that is gone.

    The shop takes the dead cookie back. That is no log-out: the tokens beside it are alive.
    """
    jar = {name: value for name, value in browser.http.cookies.items() if name != COOKIE}
    jar[COOKIE] = "a-session-that-is-long-gone-and-forgotten"
    cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
    stranger = browser.street.client()
    await browser.street.send(
        browser.name, stranger, "GET", "/healthz", headers=SCRIPT | {"cookie": cookie}
    )


async def come_and_go(browser: Browser) -> None:
    """Log out now and then; who has logged out is a stranger, and logs in again."""
    if random.random() > 0.15:
        await shop(browser)
    else:
        await browser.log_out()


async def use_app(app: MobileApp) -> None:
    """Use the API as an app does."""
    dice = random.random()
    if dice < 0.6:
        await app.call("/api/cart")
    elif dice < 0.85:
        await app.call("/api/me")
    else:
        await app.call("/api/cart", app.item())


async def watch_live(browser: Browser) -> None:
    """Talk over a WebSocket for a while, then go on shopping."""
    if random.random() < 0.6:
        await shop(browser)
        return
    try:
        async with open_socket(browser) as socket:
            for _ in range(3):
                await socket.send("hello")
                said = json.loads(await socket.recv())
                browser.ledger.checks[IDENTITY] += 1
                if said["user"] != browser.user:
                    browser.ledger.breach(IDENTITY, browser.name, f"socket of {said['user']}")
                await asyncio.sleep(0.4)
    except InvalidStatus as refused:
        status = refused.response.status_code
        if not browser.ledger.is_faulty:
            browser.ledger.breach(LOGOUT, browser.name, f"the socket answered {status}")
        else:
            browser.ledger.counts["refused_while_faulty"] += 1
    except ConnectionClosed:
        # A socket ends with its token, and a page opens another; its person is still in.
        browser.ledger.counts["sockets_ended"] += 1
        await browser.script("/api/me")
    browser.ledger.counts["sockets"] += 1


@contextlib.asynccontextmanager
async def open_socket(browser: Browser) -> AsyncIterator[ClientConnection]:
    """Open the shop's WebSocket with the browser's cookies, and keep those it sets."""
    held = browser.held()
    cookie = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    origin = browser.street.origin
    url = origin.replace("http", "ws", 1) + "/ws"
    headers = {"cookie": cookie, "sec-fetch-site": "same-origin", "sec-fetch-mode": "websocket"}
    connecting = connect(url, origin=Origin(origin), additional_headers=headers, proxy=None)
    async with connecting as socket:
        browser.ledger.counts["requests"] += 1
        lines = socket.response.headers.get_all("set-cookie") if socket.response else []
        reply = httpx.Response(
            101,
            headers=[("set-cookie", line) for line in lines],
            request=httpx.Request("GET", f"{origin}/ws"),
        )
        browser.http.cookies.extract_cookies(reply)
        browser.note(held, reply)
        yield socket
