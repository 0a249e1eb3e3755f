"""The shop's server-side sessions, as people write them for themselves: a table and a cookie.

Nothing here knows of Crossfade. `request.session` is a dictionary whose `user_id` has a column of
its own. A session ends `idle` seconds after its last request, `absolute` seconds after its first.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "shop_session"

TABLE = """
CREATE TABLE IF NOT EXISTS shop_sessions (
    id TEXT PRIMARY KEY, user_id TEXT, data TEXT NOT NULL,
    created_at REAL NOT NULL, last_seen REAL NOT NULL
)"""
TOUCH = """
UPDATE shop_sessions SET last_seen = :now
WHERE id = :id AND last_seen > :now - :idle AND created_at > :now - :absolute
RETURNING user_id, data"""


def create_table(database: Path) -> None:
    """Make the table of the sessions, unless it is there."""
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(TABLE)


class ShopSessions:
    """ASGI middleware that loads the session, and saves it where the request changed it."""

    def __init__(
        self,
        app: ASGIApp,
        database: Path,
        idle: float,
        absolute: float,
        secure: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.database = database
        self.idle, self.absolute = idle, absolute
        self.flags = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request its session; on the reply, set the cookie if the id is a new one."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        key = HTTPConnection(scope).cookies.get(COOKIE)
        before = await self._load(key)
        scope["session"] = dict(before or {})

        async def send_and_save(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = await self._cookie(key, before, scope["session"])
                if cookie is not None:
                    MutableHeaders(scope=message).append("Set-Cookie", cookie + self.flags)
            await send(message)

        await self.app(scope, receive, send_and_save)

    async def _load(self, key: str | None) -> dict[str, Any] | None:
        if key is None:
            return None
        values = {"id": key, "idle": self.idle, "absolute": self.absolute}
        rows = await run_in_threadpool(self._execute, TOUCH, values)
        if not rows:
            return None
        user, data = rows[0]
        session: dict[str, Any] = json.loads(data)
        return session | ({"user_id": user} if user else {})

    async def _cookie(
        self, key: str | None, before: dict[str, Any] | None, after: dict[str, Any]
    ) -> str | None:
        """Return the cookie that the reply sets; an id that is known no more is taken back."""
        if after != (before or {}):
            return await self._save(key, before, after)
        return f"{COOKIE}=; Max-Age=0" if key and before is None else None

    async def _save(
        self, key: str | None, before: dict[str, Any] | None, after: dict[str, Any]
    ) -> str | None:
        """Write what changed; return the cookie if the browser needs another one."""
        if not after:
            await run_in_threadpool(
                self._execute, "DELETE FROM shop_sessions WHERE id = :id", {"id": key}
            )
            return f"{COOKIE}=; Max-Age=0"
        data = {name: value for name, value in after.items() if name != "user_id"}
        values = {"id": key, "user": after.get("user_id"), "data": json.dumps(data)}
        # Whoever logs in gets a new id, lest somebody else knew the old one.
        if before is not None and before.get("user_id") == after.get("user_id"):
            update = "UPDATE shop_sessions SET user_id = :user, data = :data WHERE id = :id"
            await run_in_threadpool(self._execute, update, values)
            return None
        await run_in_threadpool(
            self._execute, "DELETE FROM shop_sessions WHERE id = :id", {"id": key}
        )
        values["id"] = secrets.token_urlsafe(32)
        insert = "INSERT INTO shop_sessions VALUES (:id, :user, :data, :now, :now)"
        await run_in_threadpool(self._execute, insert, values)
        return f"{COOKIE}={values['id']}"

    def _execute(self, statement: str, values: dict[str, Any] | None = None) -> list[Any]:
        with closing(
            sqlite3.connect(self.database, timeout=10, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection.execute(statement, {"now": self.clock()} | (values or {})).fetchall()
