"""What a store or a key set takes away while it is gone, and that it comes back by itself."""

import asyncio
from pathlib import Path

import pytest
from crossfaded import (
    ACCESS_TTL,
    API,
    LEEWAY,
    MOBILE,
    C,
    NoKeys,
    R,
    S,
    World,
    set_cookies,
    world,
)

from crossfade.keys.ring import KeyRing
from crossfade.stores.engine import Database

pytestmark = pytest.mark.anyio
EXPIRED = ACCESS_TTL + LEEWAY + 1
EXCHANGE = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}


# Crossfade's own database


async def test_without_sql_tokens_and_sessions_go_on(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        session = await one.user("u001")
        await one.phase("dual")
        token = await one.user("u002")
        token.drop(S)
        await token.me()
        with one.sql_down():
            assert await session.me() == "u001"
            assert await token.me() == "u002"
            assert await one.browser().me() is None


async def test_without_sql_nothing_is_issued_and_nothing_consumed(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        user = await one.user()
        await one.phase("dual")
        app = one.browser(MOBILE)
        form = EXCHANGE | {
            "subject_token": user.jar[S],
            "subject_token_type": "urn:crossfade:params:oauth:token-type:legacy-session",
        }
        tokens = (await app.post("/auth/token", data=form)).json()
        spend = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        with one.sql_down():
            assert set_cookies(await user.get("/")) == {}
            for body in (form, spend):
                reply = await app.post("/auth/token", data=body)
                assert reply.status_code == 503
                assert int(reply.headers["retry-after"]) > 0
        assert (await app.post("/auth/token", data=spend)).status_code == 200


@pytest.mark.parametrize("phase", ["prefer", "tokens"])
async def test_without_sql_an_expired_token_is_503_and_keeps_its_cookies(
    tmp_path: Path, phase: str
) -> None:
    async with world(tmp_path) as one:
        await one.phase(phase)
        user = await one.user()
        user.drop(S)
        one.clock.advance(EXPIRED)
        await one.sync()
        held = user.jar
        with one.sql_down():
            reply = await user.get("/api/me", headers=API)
            assert reply.status_code == 503
            assert set_cookies(reply) == {}
        assert user.jar == held
        assert await user.me() == "u001"


async def test_without_sql_an_expired_token_beside_its_session_is_served_by_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as one:
        await one.phase("prefer")
        user = await one.user()
        await one.later(EXPIRED)
        with one.sql_down():
            assert await user.me() == "u001"


async def test_beyond_the_lease_tokens_are_503_and_sessions_go_on(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        session = await one.user("u001")
        await one.phase("prefer")
        token, both = await one.user("u002"), await one.user("u003")
        token.drop(S)
        with one.sql_down():
            one.clock.advance(61)
            reply = await token.get("/api/me", headers=API)
            assert (reply.status_code, set_cookies(reply)) == (503, {})
            assert await session.me() == "u001"
            assert await both.me() == "u003"
        await one.sync()
        assert await token.me() == "u002"


async def test_beyond_the_lease_a_signed_session_is_not_trusted_either(tmp_path: Path) -> None:
    async with world(tmp_path, legacy="signed") as one:
        user = await one.user()
        await one.phase("dual")
        with one.sql_down():
            one.clock.advance(61)
            reply = await user.get("/account")
            assert (reply.status_code, set_cookies(reply)) == (503, {})
        await one.sync()
        assert await user.me() == "u001"


async def test_a_log_out_without_sql_holds_at_once_and_is_carried_out_later(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as one:
        await one.phase("dual")
        user, copy = await one.user(), one.browser()
        user.copy_to(copy)
        with one.sql_down():
            assert (await user.post("/logout")).status_code == 303
            assert (await copy.get("/api/me", headers=API)).status_code == 503
            copy.drop(R)
            assert await copy.me() is None
        assert (tmp_path / "crossfade.journal").exists()
        await one.chores()
        assert not (tmp_path / "crossfade.journal").exists()
        assert "login.ended" in await one.audited()
        assert await copy.me() is None


async def test_a_queued_log_out_reaches_other_processes(tmp_path: Path) -> None:
    async with world(tmp_path) as one, world(tmp_path, journal="other.journal") as other:
        await one.phase("dual")
        await other.sync()
        user = await one.user()
        copy = other.browser()
        user.copy_to(copy, C, R)
        with one.sql_down():
            await user.post("/logout")
        await one.chores()
        await other.sync()
        assert await copy.me() is None


async def test_with_tokens_enforced_a_log_in_without_sql_is_503(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("tokens")
        visitor = one.browser()
        with one.sql_down():
            reply = await visitor.log_in()
            assert (reply.status_code, set_cookies(reply)) == (503, {})
        assert (await visitor.log_in()).status_code == 303
        assert await visitor.me() == "u001"


async def test_in_dual_a_log_in_without_sql_is_a_session(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("dual")
        visitor = one.browser()
        with one.sql_down():
            await visitor.log_in()
            assert await visitor.me() == "u001"
        assert visitor.jar.keys() == {S}
        await visitor.get("/")
        assert visitor.jar.keys() == {S, C, R}


async def test_after_a_rollback_without_sql_nothing_is_lost(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("tokens")
        user = await one.user()
        await one.phase("sessions")
        with one.sql_down():
            reply = await user.get("/api/me", headers=API)
            assert set_cookies(reply) == {}
        assert await user.me() == "u001"


async def test_a_process_that_starts_without_sql_serves_sessions_and_joins_later(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as one:
        user = await one.user()
        await one.phase("dual")
        await user.get("/")
    gone = Database(f"sqlite:///{tmp_path}/crossfade.db")
    await gone.close()
    (tmp_path / "crossfade.db").rename(tmp_path / "away.db")
    url = f"sqlite:///{tmp_path}/missing/crossfade.db"
    async with world(tmp_path, settings=None, database={"url": url, "timeout": "10s"}) as one:
        again = one.browser()
        user.copy_to(again)
        assert await again.me() == "u001"
        again.drop(S)
        reply = await again.get("/api/me", headers=API)
        assert (reply.status_code, set_cookies(reply)) == (503, {})


# The session store


@pytest.mark.parametrize("phase", ["dual", "prefer", "tokens"])
async def test_without_the_session_store_token_users_are_who_they_were(
    tmp_path: Path, phase: str
) -> None:
    async with world(tmp_path) as one:
        await one.phase(phase)
        user = await one.user()
        await user.me()
        with one.sessions_down():
            for seconds in (1, 120):
                await one.later(seconds)
                reply = await user.get("/auth/session", headers=API)
                assert reply.json()["subject"] == "u001"
        assert {C, R} <= user.jar.keys()


async def test_without_the_session_store_a_refresh_works_and_ends_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("tokens")
        user = await one.user()
        await one.later(EXPIRED)
        with one.sessions_down():
            reply = await user.get("/auth/session", headers=API)
            assert reply.json()["subject"] == "u001"
        assert await user.me() == "u001"
        assert one.count("anchors", "error") == 1


async def test_without_the_session_store_session_users_are_503_and_keep_their_cookie(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as one:
        user = await one.user()
        await one.phase("dual")
        with one.sessions_down():
            reply = await user.get("/account")
            assert (reply.status_code, set_cookies(reply)) == (503, {})
            assert (await user.get("/")).status_code == 200
        assert (await user.get("/account")).status_code == 200


# Keys


async def _empty(one: World) -> None:
    one.assembly.follower.keys = KeyRing.empty()


async def test_without_keys_tokens_are_503_and_never_401(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("prefer")
        user = await one.user()
        bearer = {"authorization": f"Bearer {user.jar[C]}"}
        copy = one.browser()
        user.copy_to(copy, C, R)
        await _empty(one)
        assert (await one.browser(API).get("/api/me", headers=bearer)).status_code == 503
        reply = await copy.get("/api/me", headers=API)
        assert (reply.status_code, set_cookies(reply)) == (503, {})
        assert await user.me() == "u001"


async def test_without_keys_a_refresh_is_503_and_consumes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("dual")
        user, app = await one.user(), one.browser(MOBILE)
        spend = {"grant_type": "refresh_token", "refresh_token": user.jar[R]}
        ring = one.assembly.follower.keys
        await _empty(one)
        assert (await app.post("/auth/token", data=spend)).status_code == 503
        # Longer than any repeat would be forgiven.
        one.clock.advance(3600)
        one.assembly.follower.keys = ring
        await one.sync()
        assert (await app.post("/auth/token", data=spend)).status_code == 200


async def test_a_process_without_keys_tells_the_fleet_by_its_canary(tmp_path: Path) -> None:
    async with world(tmp_path) as one, world(tmp_path, keys=lambda _: NoKeys()) as blind:
        await one.phase("dual")
        await blind.sync()
        await one.chores()
        blind.clock.advance(6)
        await blind.chores()
        assert blind.count("canary", "failed") >= 1
        assert blind.count("canary", "ok") == 0
        assert one.count("canary", "failed") == 0
        assert (await blind.browser(API).get("/auth/health")).status_code == 503


# All at once


async def test_parallel_requests_during_an_outage_lose_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("tokens")
        user = await one.user()
        await one.later(EXPIRED)
        tabs = [one.browser() for _ in range(8)]
        for tab in tabs:
            user.copy_to(tab)
        with one.sql_down():
            replies = await asyncio.gather(*(tab.get("/api/me", headers=API) for tab in tabs))
        assert {reply.status_code for reply in replies} == {503}
        assert await asyncio.gather(*(tab.me() for tab in tabs)) == ["u001"] * 8
