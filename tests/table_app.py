"""An application with the habits of Django and of session middlewares that write on every reply.

It keeps its sessions in the shop's table. It clears a cookie that it does not know, draws a new key
on `/rotate`, and lets a test hold a request back.
"""

import asyncio
import json
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossfaded import S
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


class TableApp:
    """One process of it.

    Attributes:
        arrived, gate: `/slow` sets the first and waits for the second.
        clears_unknown: answer an unknown session id by clearing the cookie, as Django does.
        resends: set the cookie again on every reply, as Flask-Session does.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float],
        *,
        clears_unknown: bool = True,
        resends: bool = False,
    ) -> None:
        self._path, self._clock = folder / "shop.db", clock
        self.arrived, self.gate = asyncio.Event(), asyncio.Event()
        self.clears_unknown, self.resends = clears_unknown, resends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("only http here")
        request = Request(scope, receive)
        key = request.cookies.get(S)
        data = self._load(key)
        response = await self._answer(request, key, data)
        if "set-cookie" not in response.headers:
            if data is None and key is not None and self.clears_unknown:
                response.delete_cookie(S)
            elif data is not None and key is not None and self.resends:
                response.set_cookie(S, key)
        await response(scope, receive, send)

    async def _answer(
        self, request: Request, key: str | None, data: dict[str, Any] | None
    ) -> Response:
        path = request.url.path
        user = None if data is None else data.get("user_id")
        response: Response = JSONResponse({"user": user, "data": data})
        if path == "/login":
            self._delete(key)
            response.set_cookie(S, self.save({"user_id": request.query_params["user"]}))
        elif path == "/logout":
            self._delete(key)
            response.delete_cookie(S)
        elif path == "/leave":
            # Like Flask-Login: the user goes, the session and its id stay.
            self.save({"left": True}, key)
            response.set_cookie(S, key or "")
        elif path == "/quiet-logout":
            self._delete(key)
        elif path == "/rotate" and data is not None:
            self._delete(key)
            response.set_cookie(S, self.save(data))
        elif path == "/slow":
            self.arrived.set()
            await self.gate.wait()
            if data is not None:
                response.set_cookie(S, self.save(data, key))
        elif path == "/crash":
            self._delete(key)
            raise RuntimeError("after the session was flushed")
        return response

    def save(self, data: dict[str, Any], key: str | None = None) -> str:
        """Write a record; return its key."""
        key = key or secrets.token_urlsafe(32)
        now = self._clock()
        user = data.get("user_id")
        self._execute(
            "INSERT OR REPLACE INTO shop_sessions VALUES (?, ?, ?, ?, ?)",
            (key, user, json.dumps(data), now, now),
        )
        return key

    def _load(self, key: str | None) -> dict[str, Any] | None:
        rows = self._execute("SELECT user_id, data FROM shop_sessions WHERE id = ?", (key,))
        return {**json.loads(rows[0][1]), "user_id": rows[0][0]} if rows else None

    def _delete(self, key: str | None) -> None:
        self._execute("DELETE FROM shop_sessions WHERE id = ?", (key,))

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()
