"""Look at the application itself: is the middleware outermost, does a route of its own collide."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from crossfade.endpoints import JWKS_PATH
from crossfade.middleware import CrossfadeMiddleware
from crossfade.settings import Settings
from crossfade_migrator.doctor import Finding

PREFIXES = ("/auth", "/crossfade", "/_crossfade", "/auth/crossfade")
ENDPOINTS = ("token", "session", "logout", "logins", "health")
"""What the middleware answers under its prefix; a test holds it to the library."""


def examine_application(reference: str, settings: Settings) -> Iterator[Finding]:
    """Import `module:attribute` and yield what is to be said about it."""
    try:
        app = load(reference)
    except Exception as error:  # noqa: BLE001 - importing runs the user's own code
        text = f"{reference} cannot be imported: {type(error).__name__}: {error}"
        mend = "write module:attribute, as for uvicorn, and run it in the application's folder"
        yield Finding(check="application", level="fault", text=text, mend=mend)
        return
    yield _order(app)
    yield _collisions(app.app if isinstance(app, CrossfadeMiddleware) else app, settings)


def load(reference: str) -> Any:
    """Import `module:attribute` from the current folder or the environment."""
    module, _, attribute = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = import_module(module)
    for name in (attribute or "app").split("."):
        found = getattr(found, name)
    return found


def _order(app: Any) -> Finding:
    """Hold the middleware to its place: outermost, so that it sees what the others set and read."""
    if isinstance(app, CrossfadeMiddleware):
        return Finding(check="order", level="ok", text="the middleware is outermost")
    stack = [entry.cls for entry in getattr(app, "user_middleware", ())]
    if CrossfadeMiddleware not in stack:
        return Finding(
            check="order",
            level="fault",
            text="the application does not carry CrossfadeMiddleware",
            mend='app.add_middleware(CrossfadeMiddleware, config="crossfade.toml")',
        )
    if outside := stack[: stack.index(CrossfadeMiddleware)]:
        names = ", ".join(cls.__name__ for cls in outside)
        return Finding(
            check="order",
            level="fault",
            text=f"{names} stands outside of CrossfadeMiddleware",
            mend="add CrossfadeMiddleware last: the last one added is outermost",
        )
    return Finding(check="order", level="ok", text="the middleware is outermost")


def _collisions(app: Any, settings: Settings) -> Finding:
    paths = _own_paths(app)
    prefix = settings.endpoints.prefix
    taken = sorted(_endpoints(prefix) & paths)
    if not taken:
        return Finding(
            check="routes", level="ok", text=f"nothing of the application is at {prefix}/…"
        )
    free = next((p for p in PREFIXES if not (_endpoints(p) - {JWKS_PATH}) & paths), None)
    mend = f'set `endpoints.prefix = "{free}"`' if free else "choose another `endpoints.prefix`"
    if taken == [JWKS_PATH]:
        mend = "two issuers cannot share that path: move the application's"
    return Finding(
        check="routes",
        level="fault",
        text=f"the application answers itself at {', '.join(taken)}",
        mend=mend,
    )


def _endpoints(prefix: str) -> set[str]:
    return {f"{prefix}/{name}" for name in ENDPOINTS} | {JWKS_PATH}


def _own_paths(app: Any, root: str = "") -> set[str]:
    """Return the literal paths of the application's routes, those below mounts included."""
    paths: set[str] = set()
    for route in getattr(app, "routes", None) or ():
        path = root + str(getattr(route, "path", ""))
        if getattr(route, "routes", None):
            paths |= _own_paths(route, path)
        else:
            paths.add(path)
    return paths
