"""What a response means, row by row, and what real habits of frameworks lead to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from crossfaded import (
    ACCESS_TTL,
    API,
    LEEWAY,
    NAVIGATION,
    Browser,
    C,
    R,
    S,
    StillClock,
    World,
    is_cleared,
    set_cookies,
    signed_app,
    world,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from table_app import TableApp

from crossfade.legacy.base import CookieAttributes, LegacySession, SessionState
from crossfade.observation import Meaning, Transition, Written, meaning, written
from crossfade.principal import Identity

U, V = Identity(subject="u"), Identity(subject="v")
COOKIE = CookieAttributes(name="sid")
NOW = 1_800_000_000.0


def session(text: str | None) -> LegacySession | None:
    """Read `ok u`, `anonymous`, `gone`; None stays None."""
    if text is None:
        return None
    state, _, who = text.partition(" ")
    return LegacySession(state=SessionState(state), identity={"u": U, "v": V}.get(who))


def change(text: str | None) -> Written | None:
    """Read `clear`, or a value; None: no Set-Cookie."""
    if text is None:
        return None
    return Written(value=None if text == "clear" else text, positions=(0,))


# before, written, after -> with sessions in a store, in the cookie. The given value is K.
ROWS = [
    ("ok u", None, None, "silent", "silent"),
    ("absent", None, None, "silent", "silent"),
    ("ok u", "clear", None, "log_out", "log_out"),
    ("absent", "clear", None, "clear_of_nothing", "clear_of_nothing"),
    ("anonymous", "clear", None, "clear_of_nothing", "clear_of_nothing"),
    ("gone", "clear", None, "clear_of_nothing", "clear_of_nothing"),
    ("partial u", "clear", None, "clear_of_nothing", "clear_of_nothing"),
    ("absent", "N", "ok u", "log_in", "log_in"),
    ("gone", "N", "ok u", "log_in", "log_in"),
    ("anonymous", "K", "ok u", "log_in", "log_in"),
    ("partial u", "N", "ok u", "log_in", "log_in"),
    ("ok u", "N", "ok v", "switch", "switch"),
    ("ok u", "K", "ok v", "switch", "switch"),
    ("ok u", "K", "ok u", "silent", "silent"),
    ("ok u", "N", "ok u", "rotated", "changed"),
    ("ok u", "N", "anonymous", "log_out", "log_out"),
    ("ok u", "K", "anonymous", "log_out", "log_out"),
    ("ok u", "K", "gone", "log_out", "log_out"),
    ("ok u", "N", "partial u", "silent", "silent"),
    ("ok u", "N", "partial v", "log_out", "log_out"),
    ("ok u", "N", "unknown", "silent", "silent"),
    ("absent", "N", "anonymous", "silent", "silent"),
    ("absent", "N", "partial u", "silent", "silent"),
    ("ok u", "N", None, "silent", "silent"),
]


@pytest.mark.parametrize(("before", "wrote", "after", "stored", "held"), ROWS)
def test_each_transition_has_one_meaning(
    before: str, wrote: str | None, after: str | None, stored: str, held: str
) -> None:
    transition = Transition(
        before=session(before) or LegacySession(state=SessionState.ABSENT),
        given="K",
        written=change(wrote),
        after=session(after),
    )
    assert meaning(transition, server_side=True) == stored
    assert meaning(transition, server_side=False) == held


def told(before: str, wrote: str | None, after: str | None, **more: Any) -> Meaning:
    """Say what a transition on a store means."""
    first = session(before)
    assert first is not None
    transition = Transition(
        before=first, given="K", written=change(wrote), after=session(after), **more
    )
    return meaning(transition, server_side=True)


def test_a_clear_of_a_key_that_the_login_left_behind_is_stale() -> None:
    assert told("ok u", "clear", None, is_assumed=True, is_current_anchor=False) == "stale_attach"
    assert told("ok u", "clear", None, is_assumed=True, is_current_anchor=True) == "log_out"


def test_a_session_that_was_ended_meanwhile_is_resurrected_not_logged_in() -> None:
    assert told("ok u", "K", "ok u", was_ended=True) == "resurrected"
    assert told("ok u", "N", "ok u", was_ended=True) == "resurrected"
    assert told("anonymous", "K", "ok u", was_ended=True) == "log_in"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("sid=abc; Path=/", "abc"),
        ("sid=; Path=/", "clear"),
        ('sid=""; Path=/', "clear"),
        ("sid=''", "clear"),
        ("sid=null; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=1209600", "clear"),
        ("sid=abc; Max-Age=0", "clear"),
        ("sid=abc; max-age=-1", "clear"),
        ("sid=abc; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "abc"),
        ("sid=abc; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "clear"),
        ("sid=abc; Expires=soon", "abc"),
        ("sid_x=abc", None),
        ("xsid=abc", None),
        ("other=sid=abc", None),
    ],
)
def test_a_set_cookie_is_read_as_browsers_read_it(header: str, expected: str | None) -> None:
    found = written([(b"Set-Cookie", header.encode())], COOKIE, NOW)
    assert (found and (found.value or "clear")) == expected


def test_the_last_of_several_set_cookies_counts() -> None:
    headers = [(b"set-cookie", b"sid=a"), (b"vary", b"Cookie"), (b"SET-COOKIE", b"sid=; Max-Age=0")]
    found = written(headers, COOKIE, NOW)
    assert found == Written(value=None, positions=(0, 2))


# Habits of frameworks, through the whole path


@asynccontextmanager
async def table(folder: Path, **habits: bool) -> AsyncIterator[tuple[World, TableApp]]:
    """Run the application with Django's habits, in phase dual."""
    clock = StillClock()
    app = TableApp(folder, clock.time, **habits)
    overrides = {"tokens": {"access_ttl": f"{ACCESS_TTL}s", "leeway": f"{LEEWAY}s"}}
    async with world(folder, app=app, clock=clock, **overrides) as one:
        await one.phase("dual")
        yield one, app


async def logged_in(one: World, user: str = "u") -> Browser:
    """Return a browser with a session and tokens."""
    browser = one.browser()
    assert {C, R} <= set_cookies(await browser.post(f"/login?user={user}")).keys()
    return browser


async def who(browser: Browser, path: str = "/me") -> str | None:
    """Return who the application says this is."""
    user: str | None = (await browser.get(path, headers=API)).json()["user"]
    return user


@pytest.mark.anyio
async def test_a_new_key_for_the_same_user_is_the_same_login(tmp_path: Path) -> None:
    async with table(tmp_path) as (one, _):
        user, copy = await logged_in(one), one.browser()
        user.copy_to(copy, S)
        old = user.jar[S]
        await user.post("/rotate")
        assert user.jar[S] != old
        assert await who(user) == "u"
        assert await who(copy) is None
        audited = await one.audited()
        assert ("login.opened" in audited, "login.rebound" in audited) == (True, True)
        assert "login.ended" not in audited


@pytest.mark.anyio
async def test_after_a_rotation_an_older_token_still_finds_the_session(tmp_path: Path) -> None:
    async with table(tmp_path) as (one, _):
        user, tab = await logged_in(one), one.browser()
        user.copy_to(tab, C, R)
        assert await who(tab) == "u"
        await user.post("/rotate")
        await one.sync()
        assert await who(tab) == "u"
        assert await who(user) == "u"
        assert "login.ended" not in await one.audited()


@pytest.mark.anyio
async def test_a_clear_on_a_stale_key_does_not_log_out(tmp_path: Path) -> None:
    async with table(tmp_path) as (one, app):
        user, tab = await logged_in(one), one.browser()
        user.copy_to(tab)
        task = asyncio.create_task(who(tab, "/slow"))
        await app.arrived.wait()
        await user.post("/rotate")
        app.gate.set()
        await task
        await one.sync()
        assert await who(user) == "u"
        assert "login.ended" not in await one.audited()


@pytest.mark.anyio
async def test_a_slow_reply_does_not_bring_a_session_back(tmp_path: Path) -> None:
    async with table(tmp_path) as (one, app):
        user, tab = await logged_in(one), one.browser()
        user.copy_to(tab)
        key = user.jar[S]
        task = asyncio.create_task(tab.get("/slow", headers=API))
        await app.arrived.wait()
        await user.post("/logout")
        app.gate.set()
        reply = await task
        assert is_cleared(set_cookies(reply)[S])
        assert key not in one.session_ids("u")
        assert one.count("observed", "resurrected") == 1


@pytest.mark.anyio
async def test_a_user_who_leaves_the_session_is_logged_out_and_may_return(tmp_path: Path) -> None:
    async with table(tmp_path, clears_unknown=False) as (one, _):
        user = await logged_in(one)
        key = user.jar[S]
        reply = await user.post("/leave")
        assert is_cleared(set_cookies(reply)[C])
        assert user.jar[S] == key
        assert await who(user) is None
        assert (await user.get("/me")).json()["data"]["left"] is True
        await user.post("/login?user=u")
        assert await who(user) == "u"


@pytest.mark.anyio
async def test_a_log_out_whose_client_is_gone_still_ends_the_login(tmp_path: Path) -> None:
    async with table(tmp_path) as (one, _):
        user, copy = await logged_in(one), one.browser()
        user.copy_to(copy, C, R)
        with pytest.raises(RuntimeError, match="flushed"):
            await user.post("/crash")
        assert await who(copy) is None
        assert "login.ended" in await one.audited()


@pytest.mark.anyio
async def test_a_request_that_dies_on_a_stale_key_ends_nothing(tmp_path: Path) -> None:
    async with table(tmp_path) as (one, app):
        user, tab = await logged_in(one), one.browser()
        user.copy_to(tab)
        task = asyncio.create_task(tab.get("/slow", headers=API))
        await app.arrived.wait()
        await user.post("/rotate")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await who(user) == "u"
        assert "login.ended" not in await one.audited()


@pytest.mark.anyio
async def test_a_cookie_that_is_sent_again_on_every_reply_is_nothing(tmp_path: Path) -> None:
    async with table(tmp_path, resends=True) as (one, _):
        user = await logged_in(one)
        for _ in range(3):
            assert await who(user) == "u"
        assert (await one.audited()).count("login.opened") == 1
        assert one.count("observed", "log_in") == 1


@pytest.mark.anyio
async def test_an_access_cookie_alone_is_not_sent_the_session_again(tmp_path: Path) -> None:
    async with table(tmp_path, resends=True) as (one, _):
        user, thief = await logged_in(one), one.browser()
        user.copy_to(thief, C)
        for path in ("/me", "/rotate"):
            reply = await thief.post(path, headers={"sec-fetch-site": "same-origin"})
            assert S not in set_cookies(reply)
        assert S not in thief.jar
        await one.sync()
        assert await who(user) == "u"


@pytest.mark.anyio
async def test_a_flushed_store_behind_an_application_that_clears_logs_nobody_out(
    tmp_path: Path,
) -> None:
    async with table(tmp_path) as (one, _):
        user, tab = await logged_in(one), one.browser()
        user.copy_to(tab, C, R)
        await who(tab)
        one.flush_sessions()
        await who(tab)
        await one.later(61)
        assert await who(tab) == "u"
        assert "login.ended" not in await one.audited()


@pytest.mark.anyio
async def test_a_log_out_without_a_sign_is_known_by_its_path(tmp_path: Path) -> None:
    legacy = {"logout_paths": ["/quiet-logout"]}
    async with world_with_legacy(tmp_path, legacy) as one:
        user, copy = await logged_in(one), one.browser()
        user.copy_to(copy)
        reply = await user.post("/quiet-logout")
        assert is_cleared(set_cookies(reply)[C])
        assert await who(copy) is None


@asynccontextmanager
async def world_with_legacy(folder: Path, legacy: dict[str, Any]) -> AsyncIterator[World]:
    """Run the table application with other settings of its sessions."""
    import msgspec
    from crossfaded import settings_of

    base = settings_of(folder)
    own = msgspec.structs.replace(base.legacy, **{k: tuple(v) for k, v in legacy.items()})
    clock = StillClock()
    app = TableApp(folder, clock.time, clears_unknown=False)
    settings = msgspec.structs.replace(base, legacy=own)
    async with world(folder, app=app, clock=clock, settings=settings) as one:
        await one.phase("dual")
        yield one


async def _pop_login(request: Request) -> Response:
    request.session["user_id"] = request.query_params["user"]
    return JSONResponse({})


async def _pop_logout(request: Request) -> Response:
    request.session.pop("user_id", None)
    return JSONResponse({})


async def _pop_me(request: Request) -> Response:
    return JSONResponse({"user": request.session.get("user_id")})


POPPING = [
    Route("/login", _pop_login, methods=["POST"]),
    Route("/logout", _pop_logout, methods=["POST"]),
    Route("/me", _pop_me),
]


@pytest.mark.anyio
async def test_an_old_signed_cookie_stays_dead_after_the_next_log_in(tmp_path: Path) -> None:
    clock = StillClock()
    app = signed_app(list(POPPING), clock)
    async with world(tmp_path, legacy="signed", app=app, clock=clock) as one:
        await one.phase("dual")
        user, thief = await logged_in(one), one.browser()
        user.copy_to(thief, S)
        await user.post("/logout")
        assert await who(thief) is None
        await user.post("/login?user=u")
        assert await who(user) == "u"
        assert await who(thief) is None


@pytest.mark.anyio
async def test_a_signed_cookie_from_before_its_last_change_dies_with_the_log_out(
    signed: World,
) -> None:
    await signed.phase("dual")
    user, thief = await signed.user(), signed.browser()
    user.copy_to(thief, S)
    await user.put("tea")
    await user.post("/logout", headers=NAVIGATION)
    assert await thief.me() is None
