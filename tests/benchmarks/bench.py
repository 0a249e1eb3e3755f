"""What a request costs, in one run against the bare application, in process. Run by `make bench`.

Quote the ratios, not the times: they depend on the machine. Each figure is the best of several
rounds, and all cases take turns in each, so that a busy machine is unfair to all of them alike.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[1]))

from crossfaded import ABSOLUTE, IDLE, Browser, C, S, World, world

from crossfade.principal import Identity
from crossfade.tokens.anchor import AnchorHint
from crossfade.tokens.claims import AccessGrant
from crossfade_migrator.demo.shop_sessions import ShopSessions

ROUNDS, EACH, SLOW = 15, 400, 60
Case = Callable[[], Awaitable[None]]


async def page(request: Request) -> Response:
    """Answer as little as possible."""
    return PlainTextResponse("ok")


def bare() -> Starlette:
    """Return the application without anything."""
    return Starlette(routes=[Route("/", page)])


def reading(folder: Path, clock: Callable[[], float]) -> Starlette:
    """Return the application with a session middleware that reads its record on each request."""
    sessions = Middleware(
        ShopSessions, database=folder / "shop.db", idle=IDLE, absolute=ABSOLUTE, clock=clock
    )
    return Starlette(routes=[Route("/", page)], middleware=[sessions])


def asking(app: Any, *headers: tuple[bytes, bytes]) -> Case:
    """Return a case: one request with these headers."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def ask() -> None:
        await app(
            {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "path": "/",
                "raw_path": b"/",
                "root_path": "",
                "scheme": "http",
                "query_string": b"",
                "headers": [(b"host", b"test"), (b"accept", b"*/*"), *headers],
                "client": ("127.0.0.1", 50000),
                "server": ("127.0.0.1", 80),
            },
            receive,
            send,
        )

    return ask


def mint(one: World, key: str | None, number: int) -> str:
    """Return an access token of another login each time."""
    now = one.clock.time()
    hint = None if key is None else AnchorHint(reader="sql", key=key, until=None)
    grant = AccessGrant(
        identity=Identity(subject="u001"),
        sid=number.to_bytes(16),
        client="web",
        client_id="web",
        auth_time=now,
        anchor=hint,
    )
    return one.assembly.logins._issuer.mint(grant).token


async def cases(one: World, signed: World, folder: Path) -> dict[str, tuple[Case, int]]:
    """Return every case by name, with how often it runs in a round."""
    plain, user = bare(), await one.user()
    await one.phase("prefer")
    await user.get("/")
    wrapped, with_reads = one.app, reading(folder, one.clock.time)
    wrapped.app = plain
    hot = f"Bearer {mint(one, None, 1)}".encode()
    many = iter([f"Bearer {mint(one, None, n)}".encode() for n in range(2, 4000)])

    # The minter has verified each of them: what it remembers must go.
    one.assembly.verifier._cache.clear()

    async def cold() -> None:
        await asking(wrapped, (b"authorization", next(many)))()

    session = f"{S}={user.jar[S]}".encode()
    both = f"{S}={user.jar[S]}; {C}={user.jar[C]}".encode()
    held = await signed_session(signed)
    return {
        "bare": (asking(plain), EACH),
        "no credential": (asking(wrapped), EACH),
        "hot token": (asking(wrapped, (b"authorization", hot)), EACH),
        "cold token": (cold, SLOW),
        "token and its anchor": (asking(wrapped, (b"cookie", both)), EACH),
        "session": (asking(wrapped, (b"cookie", session)), SLOW),
        "the shop's own read": (asking(with_reads, (b"cookie", session)), SLOW),
        "signed session": (asking(signed.app, (b"cookie", held)), EACH),
        "anonymous, off": (asking(signed.app), EACH),
    }


async def signed_session(one: World) -> bytes:
    """Return the cookie of a signed session, with the middleware around the bare application."""
    user: Browser = await one.user()
    one.app.app = bare()
    await one.phase("dual", issue_token={"web": 0, "mobile": 0, "machine": 0})
    return f"{S}={user.jar[S]}".encode()


async def measure(found: dict[str, tuple[Case, int]]) -> dict[str, float]:
    """Return microseconds a request for each case."""
    best = dict.fromkeys(found, float("inf"))
    for _ in range(ROUNDS):
        for name, (case, times) in found.items():
            started = time.perf_counter()
            for _ in range(times):
                await case()
            best[name] = min(best[name], (time.perf_counter() - started) / times * 1e6)
    return best


def verifying(one: World) -> dict[str, float]:
    """Return microseconds of a bare signature check, PyJWT's decode, and ours without cache."""
    token = mint(one, None, 1)
    ring = one.assembly.follower.keys
    key = ring.get(ring.kids[0])
    assert key is not None
    signed, _, signature = token.encode().rpartition(b".")
    proof = jwt.utils.base64url_decode(signature)
    options: dict[str, Any] = {"require": ["exp", "iat", "nbf", "sub", "aud", "iss"]}
    public = jwt.PyJWK(dict(key.public_jwk)).key

    def decode() -> None:
        jwt.decode(
            token,
            public,
            ["ES256"],
            audience="shop",
            issuer="http://test",
            options=options,  # type: ignore[arg-type]
            leeway=30,
        )

    def ours() -> None:
        one.assembly.verifier._verify(token.encode())

    runs = {"bare": lambda: key.verify(signed, proof), "PyJWT": decode, "ours": ours}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            for _ in range(SLOW):
                run()
            best[name] = min(best[name], (time.perf_counter() - started) / SLOW * 1e6)
    return best


def report(found: dict[str, float], checks: dict[str, float]) -> None:
    """Print each figure beside its budget."""
    floor = found["bare"]
    cold = found["cold token"] - found["hot token"]
    print(f"{'request':<24}{'µs':>9}{'+µs':>9}{'x bare':>8}   budget")  # noqa: T201 - its output
    budgets = {
        "hot token": "+10 µs",
        "cold token": "1.5 x the bare check (ES256), see below",
        "token and its anchor": "no read: as a hot token",
        "session": "1.2 x the framework's own read",
    }
    for name, cost in found.items():
        budget = budgets.get(name, "")
        print(f"{name:<24}{cost:9.1f}{cost - floor:9.1f}{cost / floor:8.2f}   {budget}")  # noqa: T201
    own = found["the shop's own read"] - floor
    print(f"\nsession / the shop's own read  {(found['session'] - floor) / own:5.2f}   budget 1.2")  # noqa: T201
    print(f"{'ES256':<24}{'µs':>9}{'x bare':>17}")  # noqa: T201
    for name, cost in (checks | {"ours, in a request": cold}).items():
        print(f"{name:<24}{cost:9.1f}{cost / checks['bare']:17.2f}")  # noqa: T201


async def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "signed").mkdir()
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(world(folder))
            signed = await stack.enter_async_context(world(folder / "signed", legacy="signed"))
            found = await cases(one, signed, folder)
            # The first rounds warm what is kept: prepared statements, caches, branches.
            for case, _ in found.values():
                await case()
            report(await measure(found), verifying(one))


if __name__ == "__main__":
    asyncio.run(main())
