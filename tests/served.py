"""The shop behind the middleware under a real uvicorn on loopback, on the real clock."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from crossfaded import ENVIRONMENT, SECRET, S, World, settings_of
from prometheus_client import CollectorRegistry

from crossfade.assembly import assemble
from crossfade.keys.ring import KeyState
from crossfade.stores.bootstrap import create_all
from crossfade.stores.engine import Database
from crossfade.stores.keys import KeyStore
from crossfade_migrator.demo.shop import create_shop

QUICK = {
    "rollout": {"poll": "50ms", "heartbeat": "1s", "instance_ttl": "5s", "canary": "1s"},
    "tokens": {"access_ttl": "2s", "leeway": "0.5s", "refresh_idle": "1h", "replay_window": "1s"},
}


class Served(World):
    """A world on a real server.

    Attributes:
        url: its origin.
    """

    url: str

    async def sync(self) -> None:
        """Wait until the follower runs the head."""
        head = await self.rollout.head()
        async with asyncio.timeout(10):
            while self.assembly.follower.revision < head.number:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.02)

    async def outlive_token(self) -> None:
        """Wait until every access token issued so far has ended."""
        await asyncio.sleep(2.6)


@asynccontextmanager
async def serving(
    folder: Path, *, legacy: str = "sql", tls: Any = None, **overrides: Any
) -> AsyncIterator[Served]:
    """Serve until the block ends; `tls` is a trustme certificate."""
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "https" if tls else "http"
    url = f"{scheme}://localhost:{listener.getsockname()[1]}"
    settings = settings_of(folder, legacy, **({"issuer": url} | QUICK | overrides))
    database = Database(settings.database.url, timeout=30)
    await create_all(database)
    wrapping = settings.secrets(ENVIRONMENT).wrapping
    await KeyStore(database, wrapping).add("ES256", state=KeyState.ACTIVE, actor="test")
    await database.close()
    assembly = assemble(settings, environment=ENVIRONMENT, registry=CollectorRegistry())
    kind = "sql" if legacy == "sql" else "signed-cookie"
    shop = create_shop(
        legacy=kind,  # type: ignore[arg-type]  # one of the two
        database=folder / "shop.db",
        secret=SECRET,
        secure=bool(tls),
    )
    one = Served(shop, assembly, None, folder)  # type: ignore[arg-type]  # on the real clock
    one.url = url
    config = uvicorn.Config(one.app, log_level="critical", ws="websockets-sansio")
    config.load()
    if tls:
        config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.configure_cert(config.ssl)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - uvicorn has a flag only
                await asyncio.sleep(0.02)
        yield one
    finally:
        server.should_exit = True
        await task
        listener.close()


__all__ = ["QUICK", "S", "Served", "serving"]
