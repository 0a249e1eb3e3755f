"""What the application is given and what it does: observed, upgraded, attached, restored, ended."""

import asyncio
from pathlib import Path

import pytest
from crossfaded import (
    ACCESS_TTL,
    API,
    LEEWAY,
    MOBILE,
    NAVIGATION,
    C,
    R,
    S,
    World,
    is_cleared,
    set_cookies,
    world,
)

from crossfade.authenticator import IN_FLIGHT

pytestmark = pytest.mark.anyio
EXPIRED = ACCESS_TTL + LEEWAY + 1


# Upgrade


async def test_a_navigation_with_a_session_is_given_tokens(either: World) -> None:
    user = await either.user()
    await either.phase("dual")
    reply = await user.get("/")
    assert {C, R} <= set_cookies(reply).keys()
    assert "no-store" in reply.headers["cache-control"]
    assert await user.me() == "u001"


async def test_an_upgrade_leaves_the_session_as_it_was(sql: World) -> None:
    user = await sql.user()
    before = user.jar[S]
    await sql.phase("dual")
    await user.get("/")
    assert user.jar[S] == before
    assert sql.session_ids("u001") == [before]


@pytest.mark.parametrize(
    "headers",
    [
        API,
        {**NAVIGATION, "sec-fetch-site": "cross-site"},
        {**NAVIGATION, "sec-fetch-site": "same-site"},
        {**NAVIGATION, "sec-fetch-dest": "iframe"},
        {"accept": "text/html", "sec-fetch-mode": "", "sec-fetch-dest": "", "sec-fetch-site": ""},
    ],
    ids=["fetch", "cross-site", "same-site", "frame", "old browser"],
)
async def test_only_a_navigation_of_our_own_is_upgraded(
    sql: World, headers: dict[str, str]
) -> None:
    user = await sql.user()
    await sql.phase("dual")
    reply = await user.get("/", headers=headers)
    assert set_cookies(reply) == {}
    assert sql.count("upgrades_skipped", "not_navigation") == 1


async def test_subjects_outside_of_the_cohort_keep_their_sessions(sql: World) -> None:
    user = await sql.user()
    await sql.phase("dual", issue_token={"web": 0, "mobile": 0, "machine": 0})
    assert set_cookies(await user.get("/")) == {}
    assert await user.me() == "u001"


async def test_a_request_with_twins_of_the_session_is_not_upgraded(sql: World) -> None:
    user = await sql.user()
    await sql.phase("dual")
    cookie = f"{S}=another-id-of-somebody; {S}={user.jar[S]}"
    user.drop(S)
    reply = await user.get("/", headers={"cookie": cookie})
    assert C not in set_cookies(reply)
    assert sql.count("upgrades_skipped", "twin") == 1


async def test_a_log_in_that_is_not_finished_is_never_upgraded(either: World) -> None:
    await either.phase("dual")
    visitor = either.browser()
    await visitor.log_in("u010")
    reply = await visitor.get("/login/code")
    assert (reply.status_code, set_cookies(reply)) == (200, {})
    assert await visitor.me() is None
    assert (await visitor.post("/login/code", data={"code": "000000"})).status_code == 303
    assert {C, R} <= visitor.jar.keys()


async def test_parallel_navigations_end_in_one_login(sql: World) -> None:
    user = await sql.user()
    await sql.phase("dual")
    tabs = [sql.browser() for _ in range(12)]
    for tab in tabs:
        user.copy_to(tab)
    await asyncio.gather(*(tab.get("/") for tab in tabs))
    assert len({tab.jar[R] for tab in tabs}) == 1
    assert (await sql.audited()).count("login.opened") == 1


# Observe


async def test_a_log_in_is_observed_and_answered_with_tokens(either: World) -> None:
    await either.phase("dual")
    visitor = either.browser()
    reply = await visitor.log_in()
    assert {C, R, S} <= set_cookies(reply).keys()
    assert either.count("observed", "log_in") == 1
    assert await visitor.me() == "u001"


async def test_a_wrong_password_is_no_log_in(either: World) -> None:
    await either.phase("dual")
    visitor = either.browser()
    reply = await visitor.post("/login", data={"user": "u001", "password": "wrong"})
    assert (reply.status_code, set_cookies(reply)) == (401, {})


async def test_an_anonymous_cart_is_nothing(either: World) -> None:
    await either.phase("dual")
    visitor = either.browser()
    await visitor.put("tea")
    reply = await visitor.get("/")
    assert set_cookies(reply) == {}
    assert "tea" in reply.text
    assert visitor.jar.keys() == {S}


async def test_the_cart_of_a_visitor_goes_with_the_log_in(either: World) -> None:
    await either.phase("drain")
    visitor = either.browser()
    await visitor.put("tea")
    await visitor.log_in()
    assert await visitor.cart() == ["tea"]


@pytest.mark.parametrize("phase", ["dual", "prefer", "drain", "tokens"])
async def test_a_log_out_ends_both_worlds(either: World, phase: str) -> None:
    await either.phase(phase)
    user, thief = await either.user(), either.browser()
    user.copy_to(thief)
    reply = await user.post("/logout")
    assert is_cleared(set_cookies(reply)[C])
    assert is_cleared(set_cookies(reply)[R])
    assert await user.me() is None
    assert await thief.me() is None
    assert (await thief.get("/account")).headers["location"] == "/login"
    assert await thief.me() is None


@pytest.mark.parametrize("kept", [S, C, R])
async def test_a_copy_of_any_one_credential_dies_with_the_log_out(either: World, kept: str) -> None:
    await either.phase("dual")
    user, thief = await either.user(), either.browser()
    user.copy_to(thief, kept)
    await user.post("/logout")
    assert await thief.me() is None
    await thief.get("/")
    assert await thief.me() is None


async def test_a_copy_of_the_session_dies_with_the_log_out_after_a_rollback_too(
    either: World,
) -> None:
    await either.phase("dual")
    user, thief = await either.user(), either.browser()
    user.copy_to(thief)
    await user.post("/logout")
    await either.phase("sessions")
    await either.later(IN_FLIGHT + 1)
    assert await thief.me() is None
    assert {C, R}.isdisjoint(thief.jar)


async def test_a_log_out_without_the_session_cookie_ends_the_session_too(sql: World) -> None:
    await sql.phase("prefer")
    user, thief = await sql.user(), sql.browser()
    user.copy_to(thief, S)
    user.drop(S)
    await user.post("/logout")
    assert await thief.me() is None
    assert sql.session_ids("u001") == []


async def test_another_user_in_the_same_browser_ends_the_first_ones_login(either: World) -> None:
    await either.phase("dual")
    browser, thief = await either.user("u001"), either.browser()
    browser.copy_to(thief)
    reply = await browser.log_in("u002")
    assert {C, R} <= set_cookies(reply).keys()
    assert await browser.me() == "u002"
    assert await thief.me() is None
    assert either.count("observed", "switch") == 1


async def test_logging_in_again_on_another_device_changes_nothing_on_the_first(
    either: World,
) -> None:
    await either.phase("dual")
    first, second = await either.user(), await either.user()
    await second.post("/logout")
    assert await first.me() == "u001"
    assert await second.me() is None


async def test_a_log_in_supersedes_the_login_of_the_same_browser(sql: World) -> None:
    await sql.phase("dual")
    browser, copy = await sql.user(), sql.browser()
    browser.copy_to(copy, C)
    browser.drop(S)
    await browser.log_in("u002")
    assert await copy.me() is None
    assert await browser.me() == "u002"


async def test_a_log_in_of_a_subject_outside_of_the_cohort_clears_older_tokens(sql: World) -> None:
    await sql.phase("dual")
    browser = await sql.user("u001")
    await sql.phase("dual", issue_token={"web": 0, "mobile": 0, "machine": 0})
    reply = await browser.log_in("u002")
    assert is_cleared(set_cookies(reply)[C])
    assert await browser.me() == "u002"
    assert {C, R}.isdisjoint(browser.jar)


# Attach


@pytest.mark.parametrize("phase", ["dual", "prefer", "drain", "tokens"])
async def test_a_token_alone_finds_the_session_and_its_cart(sql: World, phase: str) -> None:
    await sql.phase(phase)
    user = await sql.user()
    await user.put("tea")
    user.drop(S)
    assert await user.cart() == ["tea"]
    await user.put("milk")
    assert await user.cart() == ["tea", "milk"]


async def test_a_token_beside_its_own_anchor_needs_no_read_of_the_session(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    await user.me()
    before = sql.count("backend_calls", "sessions", "ok")
    await user.me()
    assert sql.count("backend_calls", "sessions", "ok") == before


async def test_the_application_never_sees_our_cookies(tmp_path: Path) -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        seen.append([header for header in scope["headers"] if header[0] == b"cookie"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async with world(tmp_path, app=app) as one:
        for phase in ("sessions", "dual", "tokens"):
            await one.phase(phase)
            cookie = f"a=1; {C}=x; b=2; {R}=y; c"
            await one.browser().get("/", headers={"cookie": cookie})
    assert seen == [[(b"cookie", b"a=1; b=2; c")]] * 3


async def test_a_bearer_alone_never_gets_a_session_cookie(either: World) -> None:
    await either.phase("dual")
    user = await either.user()
    app = either.browser(MOBILE | {"authorization": f"Bearer {user.jar[C]}"})
    reply = await app.post("/cart/add", data={"item": "tea"})
    assert reply.status_code == 303
    assert set_cookies(reply) == {}


async def test_an_access_cookie_alone_never_gets_a_session_cookie(either: World) -> None:
    await either.phase("dual")
    user, thief = await either.user(), either.browser()
    user.copy_to(thief, C)
    for path in ("/", "/account", "/api/cart"):
        assert S not in set_cookies(await thief.get(path))
    assert S not in set_cookies(await thief.put("tea"))
    assert thief.jar.keys() == {C}


@pytest.mark.parametrize("phase", ["drain", "tokens"])
async def test_from_drain_on_the_session_of_a_log_in_stays_with_us(sql: World, phase: str) -> None:
    await sql.phase(phase)
    visitor = sql.browser()
    reply = await visitor.log_in()
    assert S not in set_cookies(reply)
    assert visitor.jar.keys() == {C, R}
    assert len(sql.session_ids("u001")) == 1


@pytest.mark.parametrize("phase", ["drain", "tokens"])
async def test_a_second_factor_works_where_sessions_are_withheld(either: World, phase: str) -> None:
    await either.phase(phase)
    visitor = either.browser()
    await visitor.log_in("u010")
    assert await visitor.me() is None
    await visitor.post("/login/code", data={"code": "000000"})
    assert await visitor.me() == "u010"


async def test_with_tokens_enforced_a_session_shows_the_log_in_form_and_is_kept(
    either: World,
) -> None:
    user = await either.user()
    await either.phase("tokens")
    reply = await user.get("/account")
    assert reply.headers["location"] == "/login"
    assert set_cookies(reply) == {}
    assert either.count("failures", "web", "session", "legacy_refused") == 1
    assert (await user.log_in()).status_code == 303
    assert await user.me() == "u001"


async def test_a_planted_session_of_another_user_is_withheld_and_cleared_once(sql: World) -> None:
    await sql.phase("dual")
    victim, attacker = await sql.user("u001"), await sql.user("u002")
    victim.drop(S)
    attacker.copy_to(victim, S)
    first, second = await victim.get("/"), await victim.get("/")
    assert "u001" in first.text
    assert "u001" in second.text
    assert is_cleared(set_cookies(first)[S])
    victim.drop(S)
    attacker.copy_to(victim, S)
    assert (await victim.put("tea")).status_code == 409
    assert await attacker.me() == "u002"


# The record behind a login


async def test_a_record_deleted_elsewhere_ends_the_login(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    sql.delete_session(user.jar[S])
    await sql.later(61)
    assert await user.me() is None
    assert {C, R}.isdisjoint(user.jar)


async def test_a_record_deleted_elsewhere_ends_the_login_at_the_refresh_at_the_latest(
    sql: World,
) -> None:
    await sql.phase("dual")
    user = await sql.user()
    key = user.jar[S]
    user.drop(S)
    sql.delete_session(key)
    await sql.later(EXPIRED)
    assert await user.me() is None
    assert sql.count("refresh", "rotated") == 1


async def test_a_lapsed_record_is_made_anew(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    key = sql.session_ids("u001")[0]
    await sql.later(3 * 3600)
    sql.delete_session(key)
    assert await user.me() == "u001"
    assert sql.session_ids("u001") != [key]


async def test_a_flushed_store_logs_nobody_out(sql: World) -> None:
    await sql.phase("prefer")
    users = [await sql.user(f"u00{number}") for number in range(1, 6)]
    await sql.chores()
    sql.flush_sessions()
    await sql.later(61)
    assert [await user.me() for user in users] == [f"u00{number}" for number in range(1, 6)]
    assert sql.count("anchors", "deleted") == 0


async def test_a_flushed_store_logs_nobody_out_at_the_refresh(sql: World) -> None:
    await sql.phase("dual")
    users = [await sql.user(f"u00{number}") for number in range(1, 6)]
    sql.flush_sessions()
    await sql.later(EXPIRED)
    assert [await user.me() for user in users] == [f"u00{number}" for number in range(1, 6)]


async def test_a_sleeping_browser_is_still_logged_in_after_the_sessions_idle_time(
    either: World,
) -> None:
    await either.phase("prefer")
    user = await either.user()
    await either.later(6 * 3600)
    await either.chores()
    assert await user.me() == "u001"


# Restore


@pytest.mark.parametrize("phase", ["dual", "prefer", "drain", "tokens"])
async def test_a_rollback_gives_a_sleeping_browser_its_session_back(
    either: World, phase: str
) -> None:
    await either.phase(phase)
    user = await either.user()
    await user.put("tea")
    user.drop(S)
    await either.phase("sessions")
    await either.later(3600)
    reply = await user.get("/api/me", headers=API)
    assert reply.json() == {"user": "u001"}
    assert S in user.jar
    assert {C, R}.isdisjoint(user.jar)
    assert await user.me() == "u001"
    assert either.count("restored", "web") == 1


async def test_a_rollback_keeps_the_cart_of_a_sleeping_browser(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await user.put("tea")
    await sql.phase("sessions")
    assert await user.cart() == ["tea"]


async def test_an_access_token_restores_nothing(sql: World) -> None:
    await sql.phase("tokens")
    user, thief = await sql.user(), sql.browser()
    user.copy_to(thief, C)
    await sql.phase("sessions")
    reply = await thief.get("/")
    assert set_cookies(reply) == {}
    assert await thief.me() is None


async def test_a_login_that_ended_is_not_restored(sql: World) -> None:
    await sql.phase("tokens")
    user, copy = await sql.user(), sql.browser()
    user.copy_to(copy)
    await user.post("/logout")
    await sql.phase("sessions")
    assert await copy.me() is None
    assert sql.count("restored", "web") == 0


async def test_a_log_in_under_way_is_not_replaced_by_the_former_login(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user("u001")
    await sql.phase("sessions")
    pending = sql.browser()
    await pending.log_in("u010")
    pending.copy_to(user, S)
    assert await user.me() is None
    await user.post("/login/code", data={"code": "000000"})
    assert await user.me() == "u010"


# Renewal


async def test_an_expired_token_is_renewed_inline(either: World) -> None:
    await either.phase("tokens")
    user = await either.user()
    before = user.jar[C]
    await either.later(EXPIRED)
    reply = await user.get("/api/me", headers=API)
    assert reply.json() == {"user": "u001"}
    assert {C, R} <= set_cookies(reply).keys()
    assert user.jar[C] != before


async def test_a_renewal_works_on_any_method(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await sql.later(EXPIRED)
    assert (await user.put("tea")).status_code == 303
    assert await user.cart() == ["tea"]


async def test_many_tabs_renew_to_one_successor(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await sql.later(EXPIRED)
    tabs = [sql.browser() for _ in range(12)]
    for tab in tabs:
        user.copy_to(tab)
    found = await asyncio.gather(*(tab.me() for tab in tabs))
    assert found == ["u001"] * 12
    assert len({tab.jar[R] for tab in tabs}) == 1
    assert sql.count("refresh", "rotated") == 1


async def test_a_lost_reply_of_a_renewal_is_answered_again(sql: World) -> None:
    await sql.phase("tokens")
    user, unlucky = await sql.user(), sql.browser()
    await sql.later(EXPIRED)
    user.copy_to(unlucky)
    await user.me()
    await sql.later(20)
    assert await unlucky.me() == "u001"
    assert unlucky.jar[R] == user.jar[R]


async def test_an_old_copy_of_a_refresh_token_ends_its_login_and_no_other(sql: World) -> None:
    await sql.phase("tokens")
    user, thief, other = await sql.user(), sql.browser(), await sql.user()
    user.copy_to(thief, R)
    for _ in range(2):
        await sql.later(EXPIRED)
        assert await user.me() == "u001"
    assert await thief.me() is None
    assert await user.me() is None
    assert await other.me() == "u001"


async def test_a_route_that_cannot_carry_cookies_renews_nothing(tmp_path: Path) -> None:
    routes = [{"path": "/api", "no_renew": True}]
    async with world(tmp_path, routes=routes) as one:
        await one.phase("tokens")
        user = await one.user()
        await one.later(EXPIRED)
        assert await user.me() is None
        assert set_cookies(await user.get("/api/me")) == {}
        assert (await user.get("/account")).status_code == 200


async def test_a_mobile_client_is_never_renewed_inline(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await sql.later(EXPIRED)
    reply = await user.get("/api/me", headers=MOBILE)
    assert reply.status_code == 401
    assert sql.count("refresh", "rotated") == 0
