"""Who a request is, through the whole path: bad input, several credentials, expiry, counting."""

import pytest
from crossfaded import (
    ACCESS_TTL,
    API,
    LEEWAY,
    MOBILE,
    C,
    R,
    S,
    World,
    is_cleared,
    set_cookies,
    world,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.anyio
EXPIRED = ACCESS_TTL + LEEWAY + 1


def bearer(token: str) -> dict[str, str]:
    """Return the headers of a mobile client with a bearer."""
    return MOBILE | {"authorization": f"Bearer {token}"}


def forged(token: str) -> str:
    """Return a token whose signature does not verify."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{signature[:-8]}{'A' * 8}"


@pytest.mark.parametrize("phase", ["dual", "prefer", "drain", "tokens"])
async def test_a_bad_bearer_never_falls_back(either: World, phase: str) -> None:
    await either.phase(phase)
    user = await either.user()
    wrong = user.jar[C]
    for token in (forged(wrong), wrong[:-1], wrong + "x", "eyJ.eyJ.x", "eyJhbGciOiJub25lIn0.e30."):
        reply = await user.get("/api/me", headers=bearer(token))
        assert (reply.status_code, reply.json()["error"]) == (401, "invalid_token")
        assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert token not in reply.text
    assert await user.me() == "u001"


async def test_a_bad_access_cookie_neither_locks_out_nor_changes_who_one_is(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    user.cookies.set(C, forged(user.jar[C]), domain="test.local", path="/")
    user.drop(R)
    reply = await user.get("/api/me", headers=API)
    assert reply.json() == {"user": "u001"}
    assert is_cleared(set_cookies(reply)[C])


async def test_two_bearers_are_400(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    headers = [("authorization", f"Bearer {user.jar[C]}")] * 2
    reply = await sql.browser(API).get("/api/me", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")


async def test_a_bearer_and_a_cookie_of_different_users_are_400(sql: World) -> None:
    await sql.phase("dual")
    one, two = await sql.user("u001"), await sql.user("u002")
    headers = API | {"cookie": f"{C}={one.jar[C]}", "authorization": f"Bearer {two.jar[C]}"}
    reply = await sql.browser().get("/api/me", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (400, "identity_conflict")


async def test_of_twin_access_cookies_the_good_one_counts(sql: World) -> None:
    await sql.phase("dual")
    one, two = await sql.user("u001"), await sql.user("u002")
    good, bad, other = one.jar[C], forged(one.jar[C]), two.jar[C]
    browser = sql.browser(API)
    for twins in ((good, bad), (bad, good)):
        cookie = "; ".join(f"{C}={value}" for value in twins)
        assert (await browser.get("/api/me", headers={"cookie": cookie})).json()["user"] == "u001"
    cookie = f"{C}={good}; {C}={other}"
    assert (await browser.get("/api/me", headers={"cookie": cookie})).status_code == 400


async def test_an_empty_bearer_is_absent_and_counted(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    for text in ("Bearer", "Bearer undefined", "bearer null"):
        reply = await user.get("/api/me", headers=API | {"authorization": text})
        assert reply.json() == {"user": "u001"}
    assert sql.count("failures", "web", "token", "empty_bearer") == 3


async def test_an_api_key_is_the_applications_own_business(sql: World) -> None:
    user = await sql.user()
    await sql.phase("dual")
    for key in ("Basic dTpw", "Bearer sk_live_1", "Bearer SG.abc.def"):
        reply = await user.get("/", headers={"authorization": key})
        assert (reply.status_code, set_cookies(reply)) == (200, {})


async def test_a_revoked_bearer_is_401_whatever_comes_beside_it(sql: World) -> None:
    await sql.phase("dual")
    gone, user, other = await sql.user("u001"), await sql.user("u001"), await sql.user("u002")
    headers = bearer(gone.jar[C])
    await gone.post("/logout")
    for browser in (sql.browser(), user, other):
        assert (await browser.get("/api/me", headers=headers)).status_code == 401
    assert await user.me() == "u001"


async def test_a_just_expired_bearer_leans_on_its_own_session_and_is_told_so(sql: World) -> None:
    await sql.phase("dual")
    user, other = await sql.user("u001"), await sql.user("u002")
    token = user.jar[C]
    user.drop(C, R)
    other.drop(C, R)
    await sql.later(EXPIRED)
    reply = await user.get("/api/me", headers=bearer(token))
    assert (reply.json(), reply.headers["x-crossfade-refresh"]) == ({"user": "u001"}, "1")
    assert (await other.get("/api/me", headers=bearer(token))).status_code == 401
    assert (await sql.browser().get("/api/me", headers=bearer(token))).status_code == 401
    await sql.later(301)
    assert (await user.get("/api/me", headers=bearer(token))).status_code == 401


async def test_an_expired_bearer_is_401_once_tokens_are_enforced(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await sql.later(EXPIRED)
    reply = await sql.browser().get("/api/me", headers=bearer(user.jar[C]))
    assert reply.status_code == 401


async def test_with_tokens_off_a_bearer_is_not_looked_at(sql: World) -> None:
    user = await sql.user()
    reply = await user.get("/api/me", headers=bearer("eyJ.not.looked-at"))
    assert reply.json() == {"user": "u001"}


async def test_a_session_beside_a_token_is_read_again_with_the_next_token(sql: World) -> None:
    await sql.phase("prefer")
    user, other = await sql.user("u001"), await sql.user("u001")
    user.drop(S)
    other.copy_to(user, S)
    key = other.jar[S]
    assert await user.me() == "u001"
    sql.delete_session(key)
    await sql.later(EXPIRED)
    assert await user.me() == "u001"
    assert await user.me() == "u001"


async def test_each_request_is_counted_once(sql: World) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    before = sql.count("decisions", "web", "token", "allow")
    for _ in range(3):
        await user.me()
    assert sql.count("decisions", "web", "token", "allow") == before + 3
    assert sql.count("presented", "web", "both") >= 3
    await sql.browser(API).get("/")
    assert sql.count("decisions", "web", "none", "anonymous") >= 1


async def test_conflicts_fallbacks_and_agreement_are_counted(sql: World) -> None:
    await sql.phase("dual")
    user, other = await sql.user("u001"), await sql.user("u002")
    await user.me()
    assert sql.count("comparisons", "agree") >= 1
    user.drop(S)
    other.copy_to(user, S)
    await user.me()
    assert sql.count("identity_conflicts", "web") == 1
    await other.get("/api/me", headers=API | {"cookie": f"{S}={other.jar[S]}; {C}=garbage"})
    assert sql.count("fallbacks", "web", "token_to_session") == 1


async def test_a_bearer_beside_another_session_is_400_by_policy(tmp_path) -> None:  # type: ignore[no-untyped-def]
    async with world(tmp_path, identity_conflict="reject") as one:
        await one.phase("dual")
        user, other = await one.user("u001"), await one.user("u002")
        headers = API | {"authorization": f"Bearer {user.jar[C]}", "cookie": f"{S}={other.jar[S]}"}
        reply = await one.browser().get("/api/me", headers=headers)
        assert (reply.status_code, reply.json()["error"]) == (400, "identity_conflict")


@pytest.mark.parametrize("phase", ["sessions", "dual", "tokens"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"cookie", b"authorization", b"origin", b"sec-fetch-site", b"x-app"]),
            st.one_of(
                st.binary(max_size=120),
                st.sampled_from(
                    [b"Bearer eyJ.eyJ.x", b"shop_session=\xff", b"crossfade-access=.."]
                ),
            ),
        ),
        max_size=5,
    ),
    method=st.sampled_from(["GET", "POST"]),
)
async def test_any_headers_are_answered_and_never_by_a_500(
    sql: World, phase: str, headers: list[tuple[bytes, bytes]], method: str
) -> None:
    if str(sql.assembly.follower.state.phase) != phase:
        await sql.phase(phase)
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"item=x", "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": "/auth/token" if method == "POST" else "/api/me",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test"), *headers],
        "client": ("127.0.0.1", 1),
    }
    await sql.app(scope, receive, send)
    assert sent[0]["status"] in {200, 400, 401, 403, 503}
