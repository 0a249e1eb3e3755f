"""The life of a login: what its tokens say, when none are issued, and when it ends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crossfaded import ABSOLUTE, ACCESS_TTL, API, LEEWAY, MOBILE, C, R, S, StillClock, World, world
from table_app import TableApp

from crossfade.errors import NotIssued
from crossfade.legacy.base import LegacySession, SessionState
from crossfade.principal import Identity
from crossfade.stores.opening import LIVE_LOGINS

pytestmark = pytest.mark.anyio
TOKENS = {"access_ttl": f"{ACCESS_TTL}s", "leeway": f"{LEEWAY}s", "refresh_idle": "14d"}


def session(subject: str, **more: Any) -> LegacySession:
    """Return an authenticated session."""
    found = LegacySession(state=SessionState.OK, identity=Identity(subject=subject), key="k" * 43)
    return replace(found, **more)


def claims(one: World, token: str) -> dict[str, Any]:
    """Return what a token says."""
    return dict(one.assembly.verifier.verify(token.encode()).claims)


async def test_a_token_says_who_since_when_and_for_whom(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    said = claims(sql, user.jar[C])
    assert (said["iss"], said["aud"], said["sub"], said["client_id"]) == (
        "http://test",
        "shop",
        "u001",
        "web",
    )
    assert 0.95 * ACCESS_TTL <= said["exp"] - said["iat"] <= ACCESS_TTL
    assert said["auth_time"] <= sql.clock.time() + 60
    assert user.jar[S] not in str(said)


async def test_a_claim_is_mapped_from_the_session_and_read_anew_at_each_refresh(
    tmp_path: Path,
) -> None:
    clock = StillClock()
    app = TableApp(tmp_path, clock.time)
    mapped = {"tokens": TOKENS | {"claims": {"role": "rights.role"}}}
    async with world(tmp_path, app=app, clock=clock, **mapped) as one:
        key = app.save({"user_id": "u", "rights": {"role": "clerk"}})
        await one.phase("tokens")
        browser = one.browser(MOBILE)
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": key,
            "subject_token_type": "urn:crossfade:params:oauth:token-type:legacy-session",
        }
        body = (await browser.post("/auth/token", data=form)).json()
        assert claims(one, body["access_token"])["role"] == "clerk"
        app.save({"user_id": "u", "rights": {"role": "none"}}, key)
        await one.later(ACCESS_TTL)
        spend = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]}
        body = (await browser.post("/auth/token", data=spend)).json()
        assert claims(one, body["access_token"])["role"] == "none"


async def test_claims_that_do_not_fit_the_cookie_leave_the_user_with_the_session(
    tmp_path: Path,
) -> None:
    clock = StillClock()
    app = TableApp(tmp_path, clock.time)
    mapped = {"tokens": TOKENS | {"claims": {"roles": "roles"}}}
    async with world(tmp_path, app=app, clock=clock, **mapped) as one:
        key = app.save({"user_id": "u", "roles": ["x" * 40] * 200})
        await one.phase("dual")
        browser = one.browser()
        browser.cookies.set(S, key, domain="test.local", path="/")
        reply = await browser.get("/me")
        assert reply.json()["user"] == "u"
        assert browser.jar.keys() == {S}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (session("u", state=SessionState.PARTIAL), "session"),
        (session("u", state=SessionState.GONE), "session"),
        (session("u", identity=Identity(subject="u", actor="root")), "impersonation"),
        (session("u\0"), "identity"),
    ],
)
async def test_no_login_is_opened_for(sql: World, found: LegacySession, why: str) -> None:
    await sql.phase("dual")
    with pytest.raises(NotIssued, match=why):
        await sql.assembly.logins.open(found, client="web", grant="upgrade")


async def test_no_login_is_opened_for_a_buried_session(sql: World) -> None:
    await sql.phase("dual")
    logins = sql.assembly.logins
    await logins.end_session("", "k" * 43, why="test", trigger="logout")
    with pytest.raises(NotIssued, match="tombstoned"):
        await logins.open(session("u"), client="web", grant="upgrade")


async def test_a_login_ends_when_its_session_would_have(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    for _ in range(ABSOLUTE // 3600 - 1):
        await sql.later(3600)
        assert await user.me() == "u001"
    await sql.later(3700)
    assert await user.me() is None


async def test_an_idle_login_ends(tmp_path: Path) -> None:
    tokens = TOKENS | {"refresh_idle": "1h"}
    async with world(tmp_path, tokens=tokens) as one:
        await one.phase("tokens")
        user = await one.user()
        await one.later(3500)
        assert await user.me() == "u001"
        await one.later(3700)
        assert await user.me() is None
        assert (await user.log_in()).status_code == 303
        assert await user.me() == "u001"


async def test_without_the_bridge_no_token_names_a_session(tmp_path: Path) -> None:
    async with world(tmp_path, tokens=TOKENS | {"bridge": "off"}) as one:
        await one.phase("prefer")
        user = await one.user()
        assert "anc" not in claims(one, user.jar[C])
        user.drop(S)
        assert (await user.get("/auth/session", headers=API)).json()["subject"] == "u001"
        assert await user.me() is None


async def test_a_tokens_session_is_told_to_no_other_service(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    said = claims(sql, user.jar[C])
    assert user.jar[S] not in said["anc"]
    assert {C, R} <= user.jar.keys()


async def test_whoever_logs_in_once_too_often_gets_in_and_the_idlest_login_ends(
    sql: World,
) -> None:
    await sql.phase("tokens")
    first = await sql.user()
    for _ in range(LIVE_LOGINS - 1):
        await sql.user()
    await sql.later(1)
    last = await sql.user()
    assert await last.me() == "u001"
    await sql.sync()
    assert await first.me() is None
    assert len(await sql.assembly.store.live("", "u001")) == LIVE_LOGINS
