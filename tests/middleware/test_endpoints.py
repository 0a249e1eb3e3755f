"""What the middleware answers itself: tokens, sessions, logins, keys, health; and bad input."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from crossfaded import (
    ACCESS_TTL,
    API,
    LEEWAY,
    MOBILE,
    NOBODY,
    Browser,
    C,
    R,
    S,
    StillClock,
    World,
    is_cleared,
    set_cookies,
    world,
)
from table_app import TableApp

pytestmark = pytest.mark.anyio
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
LEGACY = "urn:crossfade:params:oauth:token-type:legacy-session"
FORM = {"content-type": "application/x-www-form-urlencoded"}
CROSS_SITE = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}


async def exchange(app: Browser, session: str) -> httpx.Response:
    """Trade a session for tokens, as a mobile client does."""
    form = {"grant_type": EXCHANGE, "subject_token": session, "subject_token_type": LEGACY}
    return await app.post("/auth/token", data=form)


async def refresh(app: Browser, token: str, **headers: str) -> httpx.Response:
    """Spend a refresh token, as a mobile client does."""
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await app.post("/auth/token", data=form, headers=headers)


async def tokens(one: World, user: str = "u001") -> tuple[Browser, dict[str, Any]]:
    """Return a mobile client and what its exchange gave it."""
    browser = await one.user(user)
    session = browser.jar[S]
    app = one.browser(MOBILE)
    reply = await exchange(app, session)
    assert reply.status_code == 200, reply.text
    return app, reply.json()


async def me(app: Browser, access_token: str) -> int:
    """Return the status of a request with a bearer."""
    headers = {"authorization": f"Bearer {access_token}"}
    return (await app.get("/api/me", headers=headers)).status_code


# Exchange


async def test_a_session_is_traded_for_tokens_in_the_body(either: World) -> None:
    await either.phase("dual")
    app, body = await tokens(either)
    assert body["token_type"] == "Bearer"
    assert 0.9 * ACCESS_TTL < body["expires_in"] <= ACCESS_TTL
    assert len(body["refresh_token"]) == 99
    assert await me(app, body["access_token"]) == 200
    assert app.jar == {}


async def test_a_page_gets_tokens_as_cookies_its_scripts_cannot_read(sql: World) -> None:
    user = await sql.user()
    await sql.phase("dual")
    reply = await user.post("/auth/token", data={"grant_type": EXCHANGE}, headers=API)
    assert reply.status_code == 200
    assert {"access_token", "refresh_token"}.isdisjoint(reply.json())
    assert all("HttpOnly" in set_cookies(reply)[name] for name in (C, R))
    assert "no-store" in reply.headers["cache-control"]


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": EXCHANGE}, "invalid_request"),
        ({"grant_type": EXCHANGE, "subject_token": "x" * 43}, "invalid_request"),
        (
            {"grant_type": EXCHANGE, "subject_token": "x" * 43, "subject_token_type": "jwt"},
            "invalid_request",
        ),
        (
            {"grant_type": EXCHANGE, "subject_token": "x" * 43, "subject_token_type": LEGACY},
            "invalid_grant",
        ),
        (
            {"grant_type": EXCHANGE, "subject_token": "☃", "subject_token_type": LEGACY},
            "invalid_grant",
        ),
        ({"grant_type": "refresh_token"}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "garbage"}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "A" * 99}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "é" * 99}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "\ud800" * 99}, "invalid_grant"),
    ],
)
async def test_a_wrong_token_request_has_its_error_code(
    sql: World, form: dict[str, str], code: str
) -> None:
    await sql.phase("dual")
    app = sql.browser({**MOBILE, "sec-fetch-site": "none", "content-type": "application/json"})
    reply = await app.post("/auth/token", content=json.dumps(form).encode("utf-8"))
    assert (reply.status_code, reply.json()["error"]) == (400, code)
    assert reply.headers["cache-control"] == "no-store"
    assert set_cookies(reply) == {}
    assert "x" * 43 not in reply.text


@pytest.mark.parametrize("path", ["/auth/token", "/auth/session", "/auth/logins", "/auth/logout"])
@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"content-type": "application/json"}, b"{"),
        ({"content-type": "application/json"}, b"null"),
        ({"content-type": "application/json"}, b"[1, 2]"),
        ({"content-type": "application/json"}, b'"text"'),
        ({"content-type": "application/json"}, b"\xff\xfe{"),
        ({"content-type": "application/json"}, b"[" * 50_000),
        ({"content-type": "application/json"}, b'{"a": "1", "a": "2"}'),
        (FORM, b"a=1&a=2"),
        (FORM, b"a"),
        (FORM, b"\xff"),
        (FORM, b"&".join(b"a%d=1" % number for number in range(60))),
    ],
    ids=[
        "cut",
        "null",
        "array",
        "text",
        "utf-16",
        "deep",
        "twice",
        "form twice",
        "bare",
        "bytes",
        "many",
    ],
)
async def test_a_body_that_is_no_form_is_400_and_changes_nothing(
    sql: World, path: str, headers: dict[str, str], content: bytes
) -> None:
    await sql.phase("dual")
    user = await sql.user()
    reply = await user.post(path, content=content, headers=API | headers)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")
    assert await user.me() == ("u001" if path != "/auth/logout" else await user.me())


async def test_a_body_beyond_the_cap_is_413(sql: World) -> None:
    reply = await sql.browser(API).post("/auth/token", content=b"a=" + b"x" * 70_000, headers=FORM)
    assert (reply.status_code, reply.json()["error"]) == (413, "invalid_request")


async def test_other_methods_are_405_with_allow(sql: World) -> None:
    browser = sql.browser(API)
    found = {
        path: (reply.status_code, reply.headers["allow"])
        for path in ("/auth/token", "/auth/logins", "/auth/session", "/auth/health")
        for reply in [await browser.delete(path)]
    }
    assert found == {
        "/auth/token": (405, "POST"),
        "/auth/logins": (405, "GET, POST"),
        "/auth/session": (405, "GET, POST"),
        "/auth/health": (405, "GET"),
    }


async def test_only_exact_paths_are_answered(sql: World) -> None:
    browser = sql.browser()
    for path in ("/auth", "/auth/", "/auth/token/", "/auth/tokens", "/AUTH/token", "/x/auth/token"):
        assert (await browser.post(path)).status_code == 404


async def test_an_unfinished_log_in_is_not_traded(either: World) -> None:
    await either.phase("dual")
    pending = either.browser()
    await pending.log_in("u010")
    reply = await exchange(either.browser(MOBILE), pending.jar[S])
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")


async def test_a_subject_outside_of_the_cohort_is_told_to_go_on_with_the_session(
    sql: World,
) -> None:
    user = await sql.user()
    await sql.phase("dual", issue_token=NOBODY)
    reply = await exchange(sql.browser(MOBILE), user.jar[S])
    assert (reply.status_code, reply.json()["error"]) == (400, "unauthorized_client")


async def test_with_tokens_enforced_only_a_fresh_session_is_traded(tmp_path: Path) -> None:
    clock = StillClock()
    table = TableApp(tmp_path, clock.time)
    async with world(tmp_path, app=table, clock=clock) as one:
        old, new = table.save({"user_id": "u001"}), table.save({"user_id": "u002"})
        await one.phase("tokens")
        app = one.browser(MOBILE)
        assert (await exchange(app, new)).status_code == 200
        await one.later(ACCESS_TTL + 1)
        assert (await exchange(app, old)).json()["error"] == "invalid_grant"


async def test_a_session_that_was_logged_out_is_not_traded(either: World) -> None:
    await either.phase("dual")
    user = await either.user()
    session = user.jar[S]
    await user.post("/logout")
    reply = await exchange(either.browser(MOBILE), session)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")


# Refresh


async def test_a_refresh_answers_with_the_next_pair(sql: World) -> None:
    await sql.phase("dual")
    app, first = await tokens(sql)
    await sql.later(ACCESS_TTL)
    second = (await refresh(app, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert await me(app, second["access_token"]) == 200


async def test_a_lost_reply_is_answered_with_the_same_successor(sql: World) -> None:
    await sql.phase("dual")
    app, first = await tokens(sql)
    await sql.later(ACCESS_TTL)
    lost = (await refresh(app, first["refresh_token"])).json()
    again = (await refresh(app, first["refresh_token"])).json()
    assert again["refresh_token"] == lost["refresh_token"]


async def test_with_the_same_idempotency_key_a_reply_may_be_lost_for_minutes(sql: World) -> None:
    await sql.phase("dual")
    app, first = await tokens(sql)
    await sql.later(ACCESS_TTL)
    key = {"idempotency-key": "8e03978e"}
    lost = (await refresh(app, first["refresh_token"], **key)).json()
    await sql.later(5 * 60)
    again = (await refresh(app, first["refresh_token"], **key)).json()
    assert again["refresh_token"] == lost["refresh_token"]


async def test_a_spent_refresh_token_ends_its_login_alone(sql: World) -> None:
    await sql.phase("dual")
    app, first = await tokens(sql)
    other, others = await tokens(sql)
    for _ in range(2):
        await sql.later(ACCESS_TTL)
        last = (await refresh(app, (first if _ == 0 else last)["refresh_token"])).json()  # noqa: F821
    await sql.later(ACCESS_TTL)
    reply = await refresh(app, first["refresh_token"])
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")
    assert await me(app, last["access_token"]) == 401
    assert (await refresh(other, others["refresh_token"])).status_code == 200


async def test_a_page_refreshes_by_its_cookie(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    await sql.later(ACCESS_TTL + LEEWAY + 1)
    reply = await user.post("/auth/token", data={"grant_type": "refresh_token"}, headers=API)
    assert reply.status_code == 200
    assert {C, R} <= set_cookies(reply).keys()
    assert reply.json()["csrf_token"]


async def test_after_a_rollback_a_refresh_hands_the_session_back(either: World) -> None:
    await either.phase("tokens")
    app = either.browser(MOBILE)
    logged_in = await app.post("/login", data={"user": "u001", "password": "pw-u001"})
    body = (await exchange(app, logged_in.cookies[S])).json()
    app.drop(S)
    await either.phase("sessions")
    await either.later(2 * ACCESS_TTL)
    reply = await refresh(app, body["refresh_token"])
    assert reply.json()["session_cookie"] == S
    assert await app.me() == "u001"


async def test_after_a_rollback_a_page_that_refreshes_gets_its_session_and_no_error(
    sql: World,
) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await sql.phase("sessions")
    reply = await user.post("/auth/token", data={"grant_type": "refresh_token"}, headers=API)
    assert reply.status_code == 200
    assert reply.json()["session_cookie"] == S
    assert await user.me() == "u001"


# Session


async def test_a_refresh_token_buys_the_session_back_and_an_access_token_does_not(
    sql: World,
) -> None:
    await sql.phase("dual")
    app, body = await tokens(sql)
    bearer = {"authorization": f"Bearer {body['access_token']}"}
    refused = await app.post("/auth/session", headers=bearer)
    wrong = await app.post("/auth/session", data={"refresh_token": body["access_token"]})
    assert {refused.status_code, wrong.status_code} == {400}
    assert app.jar == {}
    given = await app.post("/auth/session", data={"refresh_token": body["refresh_token"]})
    assert given.json() == {"session_cookie": S, "subject": "u001"}
    assert await app.me() == "u001"


async def test_a_page_is_told_who_is_signed_in(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    body = (await user.get("/auth/session", headers=API)).json()
    assert (body["subject"], body["credential"], body["phase"]) == ("u001", "token", "prefer")
    reply = await sql.browser(API).get("/auth/session")
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")


# Logins


async def test_a_user_sees_and_ends_their_logins(sql: World) -> None:
    await sql.phase("dual")
    here, there = await sql.user(), await sql.user()
    await sql.user("u002")
    logins = (await here.get("/auth/logins", headers=API)).json()["logins"]
    assert sorted(login["is_current"] for login in logins) == [False, True]
    other = next(login["login_id"] for login in logins if not login["is_current"])
    reply = await here.post("/auth/logins", data={"login_id": other}, headers=API)
    assert reply.json() == {"ended": 1}
    assert await there.me() is None
    assert await here.me() == "u001"


async def test_nobody_ends_the_login_of_another_user(sql: World) -> None:
    await sql.phase("dual")
    user, other = await sql.user("u001"), await sql.user("u002")
    listed = (await user.get("/auth/logins", headers=API)).json()["logins"]
    form = {"login_id": listed[0]["login_id"]}
    reply = await other.post("/auth/logins", data=form, headers=API)
    assert reply.status_code == 400
    assert await user.me() == "u001"


@pytest.mark.parametrize("login_id", ["", "x", "=" * 22, "é" * 22, "A" * 22, "A" * 4000])
async def test_a_login_id_that_is_none_is_400(sql: World, login_id: str) -> None:
    await sql.phase("dual")
    user = await sql.user()
    reply = await user.post("/auth/logins", data={"login_id": login_id}, headers=API)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")


async def test_all_other_logins_end_and_this_one_stays(sql: World) -> None:
    await sql.phase("dual")
    here, there = await sql.user(), await sql.user()
    reply = await here.post("/auth/logins", data={"others": "true"}, headers=API)
    assert reply.json() == {"ended": 1, "current_ended": False}
    await sql.sync()
    assert await there.me() is None
    assert await here.me() == "u001"


async def test_logins_are_only_for_who_is_signed_in(sql: World) -> None:
    await sql.phase("dual")
    assert (await sql.browser(API).get("/auth/logins")).status_code == 401


# Log-out


@pytest.mark.parametrize("phase", ["sessions", "dual", "tokens"])
async def test_our_log_out_ends_everything_presented(sql: World, phase: str) -> None:
    await sql.phase(phase)
    user, copy = await sql.user(), sql.browser()
    user.copy_to(copy)
    reply = await user.post("/auth/logout", headers=API)
    assert reply.status_code == 204
    assert all(is_cleared(line) for line in set_cookies(reply).values())
    assert set_cookies(reply).keys() == {S, C, R}
    assert await copy.me() is None
    await sql.chores()
    assert sql.session_ids("u001") == []


async def test_our_log_out_twice_is_once(sql: World) -> None:
    await sql.phase("dual")
    user, copy = await sql.user(), sql.browser()
    user.copy_to(copy)
    assert (await user.post("/auth/logout", headers=API)).status_code == 204
    assert (await copy.post("/auth/logout", headers=API)).status_code == 204
    assert (await sql.audited()).count("login.ended") == 1


async def test_a_mobile_client_logs_out_by_its_refresh_token(sql: World) -> None:
    await sql.phase("dual")
    app, body = await tokens(sql)
    reply = await app.post("/auth/logout", data={"refresh_token": body["refresh_token"]})
    assert reply.status_code == 204
    assert (await refresh(app, body["refresh_token"])).status_code == 400
    assert await me(app, body["access_token"]) == 401


async def test_a_log_out_that_cannot_be_written_is_503_and_clears_the_cookies(sql: World) -> None:
    await sql.phase("dual")
    user, copy = await sql.user(), sql.browser()
    user.copy_to(copy, C)
    with sql.sql_down():
        reply = await user.post("/auth/logout", headers=API)
        assert reply.status_code == 503
        assert set_cookies(reply).keys() == {S, C, R}
        assert (await copy.get("/api/me")).status_code == 401


# Other sites


@pytest.mark.parametrize("path", ["/auth/token", "/auth/session", "/auth/logins", "/auth/logout"])
async def test_another_site_reaches_nothing_by_cookie(sql: World, path: str) -> None:
    await sql.phase("dual")
    user = await sql.user()
    forms = ({"grant_type": "refresh_token"}, {"grant_type": EXCHANGE}, {"others": "true"})
    for form in forms:
        reply = await user.post(path, data=form, headers=API | CROSS_SITE)
        assert reply.status_code in {400, 403}
        assert set_cookies(reply) == {}
    assert await user.me() == "u001"


@pytest.mark.parametrize("phase", ["sessions", "dual"])
async def test_another_site_logs_nobody_in_as_somebody_else(sql: World, phase: str) -> None:
    await sql.phase("dual")
    attacker = await sql.user("u002")
    session, held = attacker.jar[S], attacker.jar[R]
    await sql.phase(phase)
    victim = sql.browser()
    forms = {
        "/auth/session": {"refresh_token": held},
        "/auth/token": {
            "grant_type": EXCHANGE,
            "subject_token": session,
            "subject_token_type": LEGACY,
        },
    }
    for path, form in forms.items():
        reply = await victim.post(path, data=form, headers=API | CROSS_SITE)
        assert (reply.status_code, set_cookies(reply)) == (403, {})
    form = {"grant_type": "refresh_token", "refresh_token": held}
    assert set_cookies(await victim.post("/auth/token", data=form, headers=API | CROSS_SITE)) == {}


# Keys and health


async def test_the_keys_are_public_and_cached(sql: World) -> None:
    reply = await sql.browser(API).get("/.well-known/jwks.json")
    keys = reply.json()["keys"]
    assert [key["alg"] for key in keys] == ["ES256"]
    assert "d" not in keys[0]
    assert reply.headers["cache-control"] == "public, max-age=300"
    assert reply.headers["content-type"] == "application/jwk-set+json"


async def test_health_says_which_revision_is_run(sql: World) -> None:
    await sql.phase("dual")
    body = (await sql.browser(API).get("/auth/health")).json()
    assert (body["ready"], body["phase"], body["revision"]) == (True, "dual", 1)


async def test_a_process_without_news_is_not_healthy(sql: World) -> None:
    sql.clock.advance(61)
    assert (await sql.browser(API).get("/auth/health")).status_code == 503


async def test_the_prefix_is_a_setting(tmp_path: Path) -> None:
    async with world(tmp_path, endpoints={"prefix": "/sso/v1"}) as one:
        assert (await one.browser().get("/sso/v1/health")).status_code == 200
        assert (await one.browser().get("/auth/health")).status_code == 404
