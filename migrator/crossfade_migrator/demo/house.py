"""Where the demo lives: a temporary folder with settings, secrets and databases, and the server."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from crossfade_migrator.context import Context
from crossfade_migrator.database import upgrade
from crossfade_migrator.demo.server import CONFIG, FAULT, VICTIM, WORKERS, ShopOptions, Without
from crossfade_migrator.demo.shop_sessions import COOKIE
from crossfade_migrator.errors import FaultFound

ACCESS_TTL = 5.0
LEEWAY = 1.0
REPLAY_WINDOW = 8.0
IDLE = 9.0
ABSOLUTE = 22.0
"""Seconds: what are minutes, hours and days elsewhere."""
_START_WITHIN = 30.0
_LOG = "server.log"

_SETTINGS = """\
# The settings of a demo: where a real shop has minutes and days, this one has seconds.
schema = 1
issuer = "{origin}"
audience = "shop"
secrets_file = "crossfade.secrets"

[database]
url = "sqlite:///crossfade.db"
timeout = "10s"

[tokens]
access_ttl = "{access_ttl:g}s"
leeway = "{leeway:g}s"
replay_window = "{replay:g}s"
refresh_idle = "10m"
refresh_absolute = "1h"

[rollout]
poll = "200ms"
heartbeat = "1s"
instance_ttl = "6s"
canary = "1s"
min_instances = {workers}

[cookies]
secure = false  # plain HTTP on this machine

[[clients]]
kind = "mobile"
header = "x-app"
matches = "shop-mobile"

[[routes]]
path = "/healthz"
no_renew = true

[legacy]
cookie = "{cookie}"
secure = false
{legacy}
"""
_SQL = """\
framework = "sql"

[legacy.identity]
partial = ["pending_user"]
auth_time = "logged_in_at"

[legacy.sql]
url = "sqlite:///shop.db"
table = "shop_sessions"
key = "id"
data = "data"
user = "user_id"
created = "created_at"
seen = "last_seen"
idle = "{idle:g}s"
absolute = "{absolute:g}s"
timeout = "10s"
"""
_SIGNED = """\
framework = "starlette"
max_age = "{absolute:g}s"

[legacy.identity]
partial = ["pending_user"]
auth_time = "logged_in_at"

[legacy.starlette]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A running shop: its folder, its address, its server process."""

    folder: Path
    origin: str
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        """Return the settings file that every verb takes."""
        return self.folder / CONFIG

    @property
    def log(self) -> Path:
        """Return the file that the server logs to."""
        return self.folder / _LOG

    def strike(self) -> None:
        """Make one worker lose its keys; which one, chance decides."""
        (self.folder / FAULT).touch()

    def mend(self) -> None:
        """Give it its keys back."""
        for name in (FAULT, VICTIM):
            (self.folder / name).unlink(missing_ok=True)


@asynccontextmanager
async def open_house(
    legacy: Literal["sql", "signed-cookie"], without: Without | None
) -> AsyncIterator[House]:
    """Write everything into a temporary folder, upgrade the database, start the server; end it all.

    Raises FaultFound if the server does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="crossfade-demo-") as name, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        folder = Path(name)
        _furnish(folder, origin, legacy, without)
        async with Context.open(folder / CONFIG, actor="demo", check_schema=False) as ctx:
            await upgrade(ctx)
        process = _start(folder, listener)
        try:
            house = House(folder=folder, origin=origin, process=process)
            await _wait_until_up(house)
            yield house
        finally:
            _stop(process)


def _furnish(
    folder: Path, origin: str, legacy: Literal["sql", "signed-cookie"], without: Without | None
) -> None:
    life = {"idle": IDLE, "absolute": ABSOLUTE}
    section = (_SQL if legacy == "sql" else _SIGNED).format(**life)
    text = _SETTINGS.format(
        origin=origin,
        access_ttl=ACCESS_TTL,
        leeway=LEEWAY,
        replay=REPLAY_WINDOW,
        workers=WORKERS,
        cookie=COOKIE,
        legacy=section,
    )
    (folder / CONFIG).write_text(text, encoding="utf-8")
    ring = folder / "crossfade.secrets"
    ring.touch(mode=0o600)
    ring.write_text(
        "".join(f'{name} = ["{secrets.token_urlsafe(48)}"]\n' for name in ("root", "wrapping")),
        encoding="utf-8",
    )
    options = ShopOptions(legacy=legacy, secret=secrets.token_urlsafe(32), without=without, **life)
    options.write(folder)
    (folder / "metrics").mkdir()


def _start(folder: Path, listener: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "crossfade_migrator.demo.server", str(folder)]
    with (folder / _LOG).open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [*command, str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            # Of all workers together: a scrape reaches only one of them.
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")},
            start_new_session=True,
        )


async def _wait_until_up(house: House) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _START_WITHIN
    seen: set[str] = set()
    while len(seen) < WORKERS:
        if house.process.poll() is not None or loop.time() > end:
            log = house.log.read_text(encoding="utf-8", errors="replace")
            raise FaultFound(f"the shop did not start: {log[-2000:]}")
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            with contextlib.suppress(httpx.HTTPError, KeyError):
                health = await client.get(f"{house.origin}/auth/health")
                seen.add(health.json()["instance"])
        await asyncio.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
    if process.stdin is not None:
        process.stdin.close()
