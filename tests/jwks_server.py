"""An issuer's JWKS endpoint on loopback: a real server whose replies a test chooses."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


class JwksServer:
    """What it answers, and how often it was asked.

    Attributes:
        document: the JSON to serve, on any path.
        status, location, padding: what is wrong with the reply at `url`.
        raw: bytes to serve there instead.
        is_dripping: it sends a byte now and then and never ends.
        gate: while it is clear, replies wait.
        requests: how many came.
    """

    def __init__(self, document: object, url: str) -> None:
        self.document = document
        self.url = url
        self.status = 200
        self.location: bytes | None = None
        self.padding = 0
        self.raw: bytes | None = None
        self.is_dripping = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests = 0
        self._arrival = asyncio.Condition()

    async def asked(self, times: int) -> None:
        """Wait until that many requests came."""
        async with asyncio.timeout(10), self._arrival:
            await self._arrival.wait_for(lambda: self.requests >= times)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._arrival:
            self.requests += 1
            self._arrival.notify_all()
        await self.gate.wait()
        body = json.dumps(self.document).encode() + b" " * self.padding
        status, headers = 200, [(b"content-type", b"application/jwk-set+json")]
        if self.url.endswith(scope["path"]):
            status, body = self.status, body if self.raw is None else self.raw
            headers += [] if self.location is None else [(b"location", self.location)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while self.is_dripping:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(document: object) -> AsyncIterator[JwksServer]:
    """Serve until the block ends. The socket listens from the start, so nothing is waited for."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = JwksServer(document, f"http://127.0.0.1:{listener.getsockname()[1]}/jwks.json")
    config = uvicorn.Config(app, lifespan="off", log_level="critical", http="h11", ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield app
    finally:
        app.gate.set()
        app.is_dripping = False
        server.should_exit = True
        await task
        listener.close()
