"""The legacy session under a login: which one is attached, and what voids one."""

from pathlib import Path

import msgspec
import pytest
from crossfaded import ACCESS_TTL, API, LEEWAY, C, R, S, StillClock, World, settings_of, world
from table_app import TableApp

from crossfade.tokens.claims import VerifiedToken

pytestmark = pytest.mark.anyio


def verified(one: World, token: str) -> VerifiedToken:
    """Return what an access token proves."""
    return one.assembly.verifier.verify(token.encode())


async def test_an_anchor_is_read_once_a_minute(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    token = verified(sql, user.jar[C])
    anchors = sql.assembly.anchors
    await anchors.attachable(token)
    first = len(anchors._looked_up)
    for _ in range(5):
        await anchors.attachable(token)
    assert len(anchors._looked_up) == first
    sql.clock.advance(61)
    await anchors.attachable(token)
    assert len(anchors._looked_up) == first + 1


async def test_nothing_is_attached_past_the_anchors_deadline_without_asking(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("tokens")
        user = await one.user()
        await one.later(3 * 3600)
        assert await user.me() == "u001"
        assert len(one.session_ids("u001")) >= 1


async def test_a_buried_anchor_is_not_attached(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    token = verified(sql, user.jar[C])
    assert token.anchor is not None
    digest = sql.assembly.anchors.digest(token.anchor.key)
    await sql.assembly.store.bury(digest)
    await sql.sync()
    kept = await sql.assembly.anchors.attachable(token)
    assert kept.cookie_value is None


async def test_a_rebind_in_another_process_is_followed_at_once(tmp_path: Path) -> None:
    clock = StillClock()
    app = TableApp(tmp_path, clock.time)
    async with (
        world(tmp_path, app=app, clock=clock) as one,
        world(tmp_path, app=app, clock=clock) as other,
    ):
        await one.phase("prefer")
        await other.sync()
        user, tab = one.browser(), other.browser()
        await user.post("/login?user=u")
        user.copy_to(tab, C, R)
        assert (await tab.get("/me", headers=API)).json()["user"] == "u"
        await user.post("/rotate")
        await other.sync()
        assert (await tab.get("/me", headers=API)).json()["user"] == "u"
        assert "login.ended" not in await one.audited()


async def test_a_session_made_anew_is_attached_everywhere_and_keeps_what_is_put_in(
    tmp_path: Path,
) -> None:
    clock = StillClock()
    overrides = {
        "tokens": {
            "access_ttl": f"{ACCESS_TTL}s",
            "leeway": f"{LEEWAY}s",
            "refresh_idle": "14d",
            "refresh_absolute": "30d",
        }
    }
    async with (
        world(tmp_path, clock=clock, **overrides) as one,
        world(tmp_path, clock=clock, **overrides) as other,
    ):
        await one.phase("tokens")
        await other.sync()
        user, tab = await one.user(), other.browser()
        await user.put("tea")
        # Close to the session's absolute end the login goes on under a new key.
        await one.later(12 * 3600 - 1000)
        await other.sync()
        assert await user.cart() == ["tea"]
        user.copy_to(tab)
        assert await tab.cart() == ["tea"]
        await one.later(ACCESS_TTL + LEEWAY + 1)
        assert await user.cart() == ["tea"]
        await other.sync()
        user.copy_to(tab)
        await tab.put("milk")
        assert await user.cart() == ["tea", "milk"]


async def test_a_session_that_tells_no_time_is_good_until_its_user_logs_out_everywhere(
    tmp_path: Path,
) -> None:
    base = settings_of(tmp_path)
    assert base.legacy.sql is not None
    table = msgspec.structs.replace(base.legacy.sql, created=None, absolute=None)
    identity = msgspec.structs.replace(base.legacy.identity, auth_time=None)
    legacy = msgspec.structs.replace(base.legacy, sql=table, identity=identity)
    settings = msgspec.structs.replace(base, legacy=legacy)
    async with world(tmp_path, settings=settings) as one:
        user = await one.user()
        for phase in ("sessions", "dual"):
            await one.phase(phase)
            assert await user.me() == "u001"
        await one.later(5)
        await one.assembly.store.end_all("", "u001", why="test", trigger="operator")
        await one.sync()
        assert await user.me() is None


async def test_a_log_out_everywhere_voids_older_sessions_and_not_newer_ones(sql: World) -> None:
    old = await sql.user()
    await sql.phase("dual")
    await sql.later(5)
    await sql.assembly.store.end_all("", "u001", why="test", trigger="operator")
    await sql.sync()
    assert await old.me() is None
    new = await sql.user()
    assert await new.me() == "u001"


async def test_the_sentinel_lives_in_the_store_and_is_nobody(sql: World) -> None:
    await sql.chores()
    keys = sql.session_ids_of_nobody()
    assert len(keys) == 1
    visitor = sql.browser()
    visitor.cookies.set(S, keys[0], domain="test.local", path="/")
    assert await visitor.me() is None


async def test_another_users_session_is_cleared_once_a_login(sql: World) -> None:
    anchors = sql.assembly.anchors
    assert [anchors.clears_once(b"1"), anchors.clears_once(b"1"), anchors.clears_once(b"2")] == [
        True,
        False,
        True,
    ]
