"""An application behind the middleware, in process, on a real database and a clock tests move.

The follower does not run by itself here: `sync` reads the news and `chores` does the housekeeping,
so that a test decides when a process learns what.
"""

import asyncio
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
from prometheus_client import CollectorRegistry
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from crossfade.assembly import Assembly, assemble
from crossfade.errors import StoreUnavailable
from crossfade.keys.ring import KeyRing, KeyState
from crossfade.middleware import CrossfadeMiddleware
from crossfade.rollout.state import Phase
from crossfade.settings import Settings
from crossfade.stores.bootstrap import create_all
from crossfade.stores.engine import Database
from crossfade.stores.keys import KeyStore
from crossfade.stores.rollout import RolloutStore
from crossfade.stores.schema import audit
from crossfade.testing import ManualClock
from crossfade_migrator.demo.shop import ROUTES, create_shop
from crossfade_migrator.demo.shop_sessions import create_table

SECRET = "s" * 40
ENVIRONMENT = {
    "CROSSFADE_ROOT_SECRET": "r" * 43,
    "CROSSFADE_WRAPPING_SECRET": "w" * 43,
    "SESSION_SECRET": SECRET,
}
ACCESS_TTL, LEEWAY, WINDOW = 600, 30, 60
IDLE, ABSOLUTE = 1800, 12 * 3600
NAVIGATION = {
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
    "sec-fetch-site": "same-origin",
    "accept": "text/html",
    "user-agent": "Firefox",
}
API = {"sec-fetch-mode": "cors", "sec-fetch-site": "same-origin", "accept": "application/json"}
MOBILE = {"x-app": "mobile", "accept": "application/json"}
EVERYBODY = {"web": 100_000, "mobile": 100_000, "machine": 100_000}
NOBODY = dict.fromkeys(EVERYBODY, 0)
S, C, R = "shop_session", "crossfade-access", "crossfade-refresh"


class StillClock(ManualClock):
    """A clock on which the follower sleeps for ever after its first round."""

    def __init__(self) -> None:
        super().__init__(time.time())

    async def sleep(self, seconds: float) -> None:
        """Never return: tests read the news themselves."""
        await asyncio.Event().wait()


def settings_of(
    folder: Path, legacy: str = "sql", url: str | None = None, **overrides: Any
) -> Settings:
    """Return settings for the shop in `folder`; `overrides` replace or add whole sections."""
    reader: dict[str, Any] = {
        "cookie": S,
        "secure": False,
        "identity": {"partial": ["pending_user"], "auth_time": "logged_in_at"},
    }
    if legacy == "sql":
        table = {"table": "shop_sessions", "user": "user_id", "created": "created_at"}
        times = {"seen": "last_seen", "idle": f"{IDLE}s", "absolute": f"{ABSOLUTE}s"}
        sql = {"url": f"sqlite:///{folder}/shop.db", "timeout": "10s", **table, **times}
        reader |= {"framework": "sql", "sql": sql}
    else:
        reader |= {"framework": "starlette", "max_age": f"{ABSOLUTE}s", "starlette": {}}
    document: dict[str, Any] = {
        "schema": 1,
        "issuer": "http://test",
        "audience": "shop",
        "database": {"url": url or f"sqlite:///{folder}/crossfade.db", "timeout": "10s"},
        "cookies": {"secure": False},
        "clients": [{"kind": "mobile", "header": "x-app", "matches": "mobile"}],
        "tokens": {"access_ttl": f"{ACCESS_TTL}s", "leeway": f"{LEEWAY}s", "refresh_idle": "14d"},
        "routes": [{"path": "/account", "login_required": True}],
        "journal": "crossfade.journal",
        "legacy": reader,
    }
    return Settings.from_mapping(document | overrides, base=folder)


class World:
    """One process: the application, the middleware around it, and its clock."""

    def __init__(self, app: ASGIApp, assembly: Assembly, clock: StillClock, folder: Path) -> None:
        self.assembly, self.clock, self.folder = assembly, clock, folder
        self.app = CrossfadeMiddleware(app, assembly=assembly)
        self.rollout = RolloutStore(assembly.database)
        self.browsers: list[Browser] = []

    async def phase(self, name: str, **dials: Any) -> None:
        """Put the rollout into a phase, everybody selected; `dials` of the document may differ."""
        phase = Phase(name)
        document = {
            "phase": phase,
            "stage": name,
            "salt": "salt",
            "accept_session": phase.accepts_session,
            "accept_token": phase.accepts_token,
            "issue_session": phase.issues_session,
            "issue_token": EVERYBODY if phase.accepts_token else NOBODY,
        }
        head = await self.rollout.head()
        await self.rollout.append(
            head.number,
            replace(head.document, **(document | dials)),
            verb="test",
            actor="test",
            actor_kind="human",
            reason="",
            evidence={},
            require=None,
        )
        await self.sync()

    async def sync(self) -> None:
        """Let this process learn the news."""
        await self.assembly.follower.sync()

    async def chores(self) -> None:
        """Let this process do its housekeeping once."""
        for chore in self.assembly.follower.chores:
            await chore.run()

    async def later(self, seconds: float) -> None:
        """Move time; the process keeps up with the news."""
        self.clock.advance(seconds)
        await self.sync()

    def browser(self, headers: Mapping[str, str] = NAVIGATION) -> "Browser":
        """Return a client with an empty cookie jar."""
        browser = Browser(self.app, headers)
        self.browsers.append(browser)
        return browser

    async def user(self, name: str = "u001") -> "Browser":
        """Return a browser that has logged in by the form."""
        browser = self.browser()
        reply = await browser.log_in(name)
        assert reply.status_code == 303, reply.text
        return browser

    @contextmanager
    def sql_down(self) -> Iterator[None]:
        """Take Crossfade's own database away."""
        with _unreachable(self.assembly.database):
            yield

    @contextmanager
    def sessions_down(self) -> Iterator[None]:
        """Take the application's session store away from the reader."""
        with _unreachable(self.assembly.legacy._database):  # type: ignore[attr-defined]
            yield

    def flush_sessions(self) -> None:
        """Lose all records of the session store, as an evicting or restarted one does."""
        self._execute("DELETE FROM shop_sessions")

    def delete_session(self, key: str) -> None:
        """Delete one record, as an operator or a password reset does."""
        self._execute("DELETE FROM shop_sessions WHERE id = ?", key)

    def session_ids(self, user: str) -> list[str]:
        """Return the keys of a user's records."""
        return self._execute("SELECT id FROM shop_sessions WHERE user_id = ?", user)

    def session_ids_of_nobody(self) -> list[str]:
        """Return the keys of the records without a user."""
        return self._execute("SELECT id FROM shop_sessions WHERE user_id IS NULL")

    def _execute(self, statement: str, *values: str) -> list[str]:
        connection = sqlite3.connect(self.folder / "shop.db", timeout=10, isolation_level=None)
        try:
            return [row[0] for row in connection.execute(statement, values)]
        finally:
            connection.close()

    async def audited(self) -> list[str]:
        """Return the events of the audit, in order."""
        async with self.assembly.database.read() as connection:
            return list(
                (await connection.execute(select(audit.c.event).order_by(audit.c.id))).scalars()
            )

    def count(self, name: str, *labels: str) -> float:
        """Return what a counter stands at."""
        return float(self.assembly.metrics._children[(name, *labels)]._value.get())


class Browser(httpx.AsyncClient):
    """A browser: a cookie jar, and the headers that browsers send."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        super().__init__(transport=transport, base_url="http://test", headers=dict(headers))

    async def log_in(self, user: str = "u001") -> httpx.Response:
        """Send the log-in form."""
        return await self.post("/login", data={"user": user, "password": f"pw-{user}"})

    async def me(self) -> str | None:
        """Return who the application says this is; None if nobody."""
        reply = await self.get("/api/me", headers=API)
        assert reply.status_code in {200, 401}, (reply.status_code, reply.text)
        return reply.json().get("user")

    async def cart(self) -> list[str]:
        """Return what is in the cart."""
        found: list[str] = (await self.get("/api/cart", headers=API)).json()["cart"]
        return found

    async def put(self, item: str) -> httpx.Response:  # type: ignore[override]
        """Put something into the cart."""
        return await self.post("/cart/add", data={"item": item})

    @property
    def jar(self) -> dict[str, str]:
        """The cookies by name."""
        return {cookie.name: cookie.value or "" for cookie in self.cookies.jar}

    def drop(self, *names: str) -> None:
        """Lose cookies."""
        for cookie in [cookie for cookie in self.cookies.jar if cookie.name in names]:
            self.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)

    def copy_to(self, other: "Browser", *names: str) -> None:
        """Give another browser a copy of some cookies, or of all."""
        for name, value in self.jar.items():
            if not names or name in names:
                other.cookies.set(name, value, domain="test.local", path="/")


class NoKeys:
    """A source of keys that has none."""

    async def load(self) -> KeyRing:
        """Return the empty ring."""
        return KeyRing.empty()


class ClockedSessions(SessionMiddleware):
    """Starlette's own sessions, dated by a clock that tests move."""

    def __init__(self, app: ASGIApp, clock: StillClock, **options: Any) -> None:
        super().__init__(app, **options)
        self.signer.get_timestamp = lambda: int(clock.time())  # type: ignore[method-assign]


def signed_app(routes: list[BaseRoute], clock: StillClock) -> Starlette:
    """Return an application whose sessions are signed cookies."""
    options = {"secret_key": SECRET, "session_cookie": S, "max_age": ABSOLUTE}
    return Starlette(
        routes=routes, middleware=[Middleware(ClockedSessions, clock=clock, **options)]
    )


def shop(folder: Path, legacy: str, clock: StillClock) -> Starlette:
    """Return the shop, unchanged, on the clock."""
    if legacy != "sql":
        return signed_app(list(ROUTES), clock)
    database = folder / "shop.db"
    return create_shop(database=database, idle=IDLE, absolute=ABSOLUTE, clock=clock.time)


def set_cookies(reply: httpx.Response) -> dict[str, str]:
    """Return the last Set-Cookie of a reply for each name, whole."""
    lines = reply.headers.get_list("set-cookie")
    return {line.partition("=")[0]: line for line in lines}


def is_cleared(line: str) -> bool:
    """Say whether a Set-Cookie removes its cookie."""
    return "max-age=0" in line.lower() or "1970" in line


@asynccontextmanager
async def world(
    folder: Path,
    *,
    legacy: str = "sql",
    app: ASGIApp | None = None,
    url: str | None = None,
    settings: Settings | None = None,
    clock: StillClock | None = None,
    **overrides: Any,
) -> AsyncIterator[World]:
    """Open the shop, or another application, behind the middleware; in phase sessions."""
    clock = clock or StillClock()
    arguments = {
        name: overrides.pop(name) for name in ("keys", "pins", "restores") if name in overrides
    }
    create_table(folder / "shop.db")
    if url is None and not (folder / "crossfade.db").exists():
        shutil.copy(_template(), folder / "crossfade.db")
    own = settings or settings_of(folder, legacy, url, **overrides)
    assembly = assemble(
        own, clock=clock, environment=ENVIRONMENT, registry=CollectorRegistry(), **arguments
    )
    if url is not None and not (await assembly.follower._keys.load()):
        await _first_key(assembly.database)
    one = World(app or shop(folder, legacy, clock), assembly, clock, folder)
    await assembly.follower.start()
    try:
        await asyncio.sleep(0)
        with suppress(StoreUnavailable):
            await one.chores()
        yield one
    finally:
        for browser in one.browsers:
            await browser.aclose()
        await assembly.close()


@cache
def _template() -> Path:
    """Make a database with the schema and one key once a test run."""
    folder = Path(tempfile.mkdtemp(prefix="crossfade-test-"))

    async def make() -> None:
        database = Database(f"sqlite:///{folder}/template.db", timeout=30)
        await create_all(database)
        await _first_key(database)
        await database.close()

    _run_apart(make)
    return folder / "template.db"


def _run_apart(make: Any) -> None:
    import threading

    thread = threading.Thread(target=lambda: asyncio.run(make()))
    thread.start()
    thread.join()


async def _first_key(database: Database) -> None:
    wrapping = settings_of(Path()).secrets(ENVIRONMENT).wrapping
    await KeyStore(database, wrapping).add("ES256", state=KeyState.ACTIVE, actor="test")


@contextmanager
def _unreachable(database: Database) -> Iterator[None]:
    alive = database.engine
    database.engine = create_async_engine("sqlite+aiosqlite:////nowhere/at/all.db")
    try:
        yield
    finally:
        database.engine = alive


class Socket:
    """A WebSocket client in process."""

    def __init__(self, one: World, browser: Browser | None = None, **headers: str) -> None:
        cookies = "; ".join(
            f"{name}={value}" for name, value in (browser.jar if browser else {}).items()
        )
        sent = {"host": "test", "origin": "http://test", "cookie": cookies} | headers
        self._scope = {
            "type": "websocket",
            "path": "/ws",
            "query_string": b"",
            "root_path": "",
            "subprotocols": [],
            "headers": [(k.encode(), v.encode()) for k, v in sent.items() if v],
        }
        self._app = one.app
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        """Open it; `opened` is the answer to the handshake."""
        self._task = asyncio.create_task(self._app(self._scope, self._in.get, self._out.put))
        await self._in.put({"type": "websocket.connect"})
        self.opened = await self.heard()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        await self._in.put({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait({self._task}, timeout=10)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_accepted(self) -> bool:
        """Whether the handshake succeeded."""
        return bool(self.opened["type"] == "websocket.accept")

    async def heard(self) -> dict[str, Any]:
        """Return the next message of the application."""
        message: dict[str, Any] = await asyncio.wait_for(self._out.get(), 10)
        return message

    async def say(self, text: str = "hello") -> dict[str, Any]:
        """Send a text and return the answer."""
        await self._in.put({"type": "websocket.receive", "text": text})
        return await self.heard()

    async def user(self) -> str | None:
        """Return whom the shop takes this for; None once it is closed."""
        answer = await self.say()
        if answer["type"] != "websocket.send":
            return None
        found: str | None = json.loads(answer["text"])["user"]
        return found
