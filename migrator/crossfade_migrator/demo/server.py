"""The demo's server: the shop with its one new line, in two worker processes.

`python -m crossfade_migrator.demo.server FOLDER FD` serves on a socket that is open already, and
ends when its standard input does: no server outlives a demo that was killed.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.routing import Route

from crossfade.assembly import Assembly, assemble
from crossfade.keys.ring import KeyRing
from crossfade.metrics import MetricsApp
from crossfade.middleware import CrossfadeMiddleware
from crossfade.settings import CONFIG_VARIABLE, Settings
from crossfade.stores.engine import Database
from crossfade.stores.keys import KeyStore
from crossfade_migrator.demo.shop import create_shop

Without = Literal["pinning", "restore", "dead-anchor"]
WORKERS = 2
CONFIG, SHOP, FAULT, VICTIM = "crossfade.toml", "shop.json", "fault", "fault.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopOptions:
    """How the shop runs: its kind of sessions, their life in seconds, and its own secret.

    Attributes:
        without: a part of Crossfade that is switched off, to show that the demo needs it.
    """

    legacy: Literal["sql", "signed-cookie"]
    idle: float
    absolute: float
    secret: str
    without: Without | None = None

    def write(self, folder: Path) -> None:
        """Leave the options where the workers find them."""
        document = {name: getattr(self, name) for name in self.__slots__}
        path = folder / SHOP
        path.touch(mode=0o600)
        path.write_text(json.dumps(document), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ShopOptions":
        """Read them back."""
        document: dict[str, Any] = json.loads((folder / SHOP).read_text(encoding="utf-8"))
        return cls(**document)


class FaultyKeys:
    """The key source of a worker that may lose its keys: a real fault, switched by a file."""

    def __init__(self, keys: KeyStore, folder: Path) -> None:
        self._keys, self._folder = keys, folder

    async def load(self) -> KeyRing:
        """Return the fleet's keys, or none while this worker is the one with the fault."""
        return KeyRing.empty() if self._is_struck() else await self._keys.load()

    def _is_struck(self) -> bool:
        if not (self._folder / FAULT).exists():
            return False
        try:
            # O_EXCL: the first worker that looks has the fault, and keeps it.
            with (self._folder / VICTIM).open("x", encoding="utf-8") as victim:
                victim.write(str(os.getpid()))
        except FileExistsError:
            return (self._folder / VICTIM).read_text(encoding="utf-8") == str(os.getpid())
        return True


def create_app() -> Starlette:
    """Return the shop with the middleware; called once in each worker."""
    settings = Settings.load()
    options = ShopOptions.read(settings.base)
    app = create_shop(
        legacy=options.legacy,
        database=settings.base / "shop.db",
        idle=options.idle,
        absolute=options.absolute,
        secret=options.secret,
    )
    app.router.routes.append(Route("/metrics", MetricsApp()))
    # An application of your own says: app.add_middleware(CrossfadeMiddleware, config=PATH)
    app.add_middleware(CrossfadeMiddleware, assembly=assembled(settings, options))
    return app


def assembled(settings: Settings, options: ShopOptions) -> Assembly:
    """Put the parts together as the middleware does, with the demo's faults within reach."""
    wrapping = settings.secrets().wrapping

    def keys(database: Database) -> FaultyKeys:
        return FaultyKeys(KeyStore(database, wrapping), settings.base)

    return assemble(
        settings,
        keys=keys,
        environment=os.environ | {"SESSION_SECRET": options.secret},
        pins=options.without != "pinning",
        restores=options.without != "restore",
        knows_dead_anchors=options.without != "dead-anchor",
    )


def main() -> None:
    """Serve until the parent goes."""
    import uvicorn

    folder, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    os.environ[CONFIG_VARIABLE] = str(folder / CONFIG)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    uvicorn.run(
        "crossfade_migrator.demo.server:create_app",
        factory=True,
        fd=descriptor,
        workers=WORKERS,
        log_level="critical",  # the clients count errors; who hangs up is none
        access_log=False,
        ws="websockets-sansio",
        timeout_graceful_shutdown=3,
        timeout_worker_healthcheck=60,
    )


def _end_with_parent() -> None:
    # Not sys.stdin: a thread that waits in it breaks the end of the interpreter.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
