"""The middleware around an application: order, life, what it adds to replies and leaves alone."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from crossfaded import (
    API,
    ENVIRONMENT,
    MOBILE,
    NAVIGATION,
    C,
    R,
    S,
    StillClock,
    World,
    set_cookies,
    settings_of,
    shop,
    world,
)
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from crossfade import ConfigurationError, CrossfadeMiddleware, Principal
from crossfade.assembly import Assembly, assemble

pytestmark = pytest.mark.anyio


# Order


async def test_another_session_middleware_outside_is_refused_in_one_line(sql: World) -> None:
    wrong = SessionMiddleware(sql.app, secret_key="x")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(wrong), base_url="http://test"
    ) as client:
        with pytest.raises(ConfigurationError, match="the last one added is outermost") as caught:
            await client.get("/")
    assert "\n" not in str(caught.value)
    assert '"session"' in str(caught.value)


async def test_added_before_the_session_middleware_it_is_refused_too(sql: World) -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("x"))])
    app.add_middleware(CrossfadeMiddleware, assembly=sql.assembly)
    app.add_middleware(SessionMiddleware, secret_key="x")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as c:
        with pytest.raises(ConfigurationError, match="outside"):
            await c.get("/")


def test_wrong_settings_are_refused_at_construction(tmp_path: Path) -> None:
    config = tmp_path / "crossfade.toml"
    config.write_text('schema = 1\nissuer = "x"\n')
    with pytest.raises(ConfigurationError, match="is missing"):
        CrossfadeMiddleware(Starlette(), config=config)
    with pytest.raises(ConfigurationError, match="crossfade init"):
        CrossfadeMiddleware(Starlette(), config=tmp_path / "nowhere.toml")


# Life


@asynccontextmanager
async def assembly_in(folder: Path, **overrides: Any) -> AsyncIterator[Assembly]:
    """Make the parts of a process that nobody has started."""
    async with world(folder):
        pass
    from prometheus_client import CollectorRegistry

    settings = settings_of(folder, **overrides)
    made = assemble(
        settings, clock=StillClock(), environment=ENVIRONMENT, registry=CollectorRegistry()
    )
    yield made
    await made.close()


async def test_without_lifespan_it_starts_at_the_first_request(tmp_path: Path) -> None:
    async with assembly_in(tmp_path) as made:
        app = CrossfadeMiddleware(shop(tmp_path, "sql", StillClock()), assembly=made)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            replies = await asyncio.gather(*(client.get("/healthz") for _ in range(5)))
        assert {reply.status_code for reply in replies} == {200}
        assert made.follower.is_running
        assert made.follower.revision == 0


async def lifespan(app: Any) -> list[dict[str, Any]]:
    """Run an application's lifespan from start to end; return what it sent."""
    sent: list[dict[str, Any]] = []
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for kind in ("startup", "shutdown"):
        messages.put_nowait({"type": f"lifespan.{kind}"})

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await asyncio.wait_for(app({"type": "lifespan"}, messages.get, send), 20)
    return sent


async def test_lifespan_starts_the_follower_before_the_application(tmp_path: Path) -> None:
    seen = []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[None]:
        seen.append(made.follower.is_running)
        yield
        seen.append(made.follower.is_running)

    async with assembly_in(tmp_path) as made:
        sent = await lifespan(CrossfadeMiddleware(Starlette(lifespan=own), assembly=made))
        assert [message["type"] for message in sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        assert seen == [True, True]
        assert not made.follower.is_running


async def test_an_application_that_does_not_know_lifespan_is_served_all_the_same(
    tmp_path: Path,
) -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    async with assembly_in(tmp_path) as made:
        sent = await lifespan(CrossfadeMiddleware(plain, assembly=made))
        assert [message["type"] for message in sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]


async def test_an_application_that_fails_to_start_says_so(tmp_path: Path) -> None:
    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no printer")
        yield

    async with assembly_in(tmp_path) as made:
        with pytest.raises(RuntimeError, match="no printer"):
            await lifespan(CrossfadeMiddleware(Starlette(lifespan=own), assembly=made))
        assert not made.follower.is_running


async def test_a_database_without_tables_fails_the_start_and_says_the_command(
    tmp_path: Path,
) -> None:
    async with assembly_in(tmp_path, database={"url": f"sqlite:///{tmp_path}/empty.db"}) as made:
        sent = await lifespan(CrossfadeMiddleware(Starlette(), assembly=made))
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "crossfade db upgrade" in sent[0]["message"]


async def test_a_forked_child_makes_parts_of_its_own(tmp_path: Path) -> None:
    async with assembly_in(tmp_path) as made:
        app = CrossfadeMiddleware(shop(tmp_path, "sql", StillClock()), assembly=made)
        await made.follower.start()
        reader, writer = os.pipe()
        if os.fork() == 0:
            os._exit(_answer_in_child(app, writer))
        os.close(writer)
        answer = await asyncio.to_thread(os.read, reader, 100)
        os.close(reader)
        assert answer == b"200 another"
        assert made.follower.is_running


def _answer_in_child(app: CrossfadeMiddleware, writer: int) -> int:
    """Serve one request in the child of a fork; say how it went."""
    before = app.assembly

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            reply = await client.get("/healthz")
        which = "same" if app.assembly is before else "another"
        os.write(writer, f"{reply.status_code} {which}".encode())
        os._exit(0)

    try:
        asyncio.set_event_loop(None)
        asyncio.events._set_running_loop(None)
        asyncio.run(ask())
    except BaseException as error:  # noqa: BLE001 - it must reach the parent
        os.write(writer, repr(error).encode()[:90])
    return 1


# Replies


async def test_with_sessions_alone_replies_are_those_of_the_application(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        bare = shop(tmp_path, "sql", one.clock)
        with_us, without = one.browser(), one.browser()
        without._transport = httpx.ASGITransport(bare)
        for path in ("/", "/account", "/api/me", "/nowhere", "/healthz"):
            a, b = await with_us.get(path), await without.get(path)
            assert (a.status_code, a.headers.raw, a.content) == (
                b.status_code,
                b.headers.raw,
                b.content,
            )
        a, b = await with_us.log_in(), await without.log_in()
        assert [name for name, _ in a.headers.raw] == [name for name, _ in b.headers.raw]


@pytest.mark.parametrize("phase", ["dual", "tokens"])
async def test_replies_to_somebody_are_private_and_vary(sql: World, phase: str) -> None:
    await sql.phase(phase)
    user = await sql.user()
    mine = await user.get("/api/me", headers=API)
    nobodys = await sql.browser(API).get("/")
    assert mine.headers["cache-control"] == "private, no-store"
    assert mine.headers["vary"] == "Cookie, Authorization"
    assert "cache-control" not in nobodys.headers
    assert nobodys.headers["vary"] == "Cookie, Authorization"


@pytest.mark.parametrize(
    ("control", "expected"),
    [("public, max-age=60", set()), ("s-maxage=60", set()), ("private", {C, R})],
)
async def test_no_cookie_of_ours_on_a_reply_that_others_may_keep(
    tmp_path: Path, control: str, expected: set[str]
) -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("x", headers={"cache-control": control})

    async with world(tmp_path) as shopping:
        user = await shopping.user()
    async with world(tmp_path, app=Starlette(routes=[Route("/", page)])) as one:
        await one.phase("dual")
        reply = await one.browser().get("/", headers={"cookie": f"{S}={user.jar[S]}"})
        assert set_cookies(reply).keys() == expected


async def test_a_renewed_token_must_arrive_and_its_reply_is_nobody_elses(tmp_path: Path) -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("x", headers={"cache-control": "public, max-age=60"})

    async with world(tmp_path) as shopping:
        await shopping.phase("tokens")
        user = await shopping.user()
    async with world(tmp_path, app=Starlette(routes=[Route("/", page)])) as one:
        await one.sync()
        reply = await one.browser().get("/", headers={"cookie": f"{R}={user.jar[R]}"})
        assert {C, R} <= set_cookies(reply).keys()
        assert reply.headers["cache-control"] == "private, no-store"


# What the application finds


def asking_app() -> Starlette:
    """Return an application that reads Starlette's own conventions."""

    @requires("authenticated")
    async def private(request: Request) -> Response:
        user = request.user
        assert isinstance(user, Principal)
        return JSONResponse({"user": user.identity, "by": user.credential, "client": user.client})

    async def open_(request: Request) -> Response:
        handle = request.scope["crossfade"]
        return JSONResponse(
            {"is": request.user.is_authenticated, "phase": handle.phase, "row": handle.row}
        )

    return Starlette(routes=[Route("/private", private), Route("/open", open_)])


async def test_starlettes_own_conventions_hold(tmp_path: Path) -> None:
    async with world(tmp_path) as shopping:
        await shopping.phase("prefer")
        user = await shopping.user()
    async with world(tmp_path, app=asking_app()) as one:
        await one.sync()
        assert (await one.browser(API).get("/private")).status_code == 403
        cookies = {"cookie": f"{C}={user.jar[C]}"}
        bearer = {"authorization": f"Bearer {user.jar[C]}"}
        by_cookie = await one.browser(API).get("/private", headers=cookies)
        by_bearer = await one.browser(MOBILE).get("/private", headers=bearer)
        assert by_cookie.json() == {"user": "u001", "by": "token", "client": "web"}
        assert by_bearer.json() == {"user": "u001", "by": "token", "client": "web"}
        found = (await one.browser(API).get("/open", headers=cookies)).json()
        assert found == {"is": True, "phase": "prefer", "row": "7"}


# Cross-site requests


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_site_changes_nothing_by_an_access_cookie(sql: World, site: str) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    headers = NAVIGATION | {"sec-fetch-site": site, "origin": "https://evil.example"}
    reply = await user.post("/cart/add", data={"item": "tea"}, headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (403, "csrf_failed")
    assert await user.cart() == []
    assert (await user.get("/", headers=headers)).status_code == 200


async def test_where_the_session_wins_the_applications_own_rules_stand(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    headers = NAVIGATION | {"sec-fetch-site": "cross-site"}
    assert (await user.post("/cart/add", data={"item": "tea"}, headers=headers)).status_code == 303
    assert sql.count("csrf_checks", "cross_site") == 1


async def test_our_rules_can_be_held_over_sessions_too(tmp_path: Path) -> None:
    async with world(tmp_path, csrf={"session": "enforce"}) as one:
        await one.phase("dual")
        user = await one.user()
        headers = NAVIGATION | {"sec-fetch-site": "cross-site"}
        reply = await user.post("/cart/add", data={"item": "tea"}, headers=headers)
        assert reply.status_code == 403


async def test_an_authorization_header_beside_the_cookie_does_not_exempt(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    headers = NAVIGATION | {"sec-fetch-site": "cross-site", "authorization": "Basic dTpw"}
    reply = await user.post("/cart/add", data={"item": "tea"}, headers=headers)
    assert reply.status_code == 403


async def test_an_old_browser_proves_itself_by_the_token_of_its_login(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    token = (await user.get("/auth/session", headers=API)).json()["csrf_token"]
    old = sql.browser({"accept": "text/html"})
    user.copy_to(old)
    assert (await old.put("tea")).status_code == 403
    reply = await old.post("/cart/add", data={"item": "tea"}, headers={"x-crossfade-csrf": token})
    assert reply.status_code == 303
