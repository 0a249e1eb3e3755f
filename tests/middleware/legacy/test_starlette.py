"""The reader against cookies of real Starlettes, and against the middleware that is installed."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from crossfade.credentials import split_cookies
from crossfade.legacy.base import LegacySession, Presented, SessionState
from crossfade.legacy.starlette import StarletteSessions
from crossfade.principal import Identity
from crossfade.settings import IdentitySettings, LegacySettings, Seconds, StarletteSettings

GOLDEN = Path(__file__).parents[2] / "golden" / "starlette"
SECRET = "an application's own secret key"
NOW = 1_800_000_000.0
DAY = 86400.0
STATES = {
    "expired": SessionState.GONE,
    "absent": SessionState.ABSENT,
    "invalid": SessionState.TAMPERED,
    # Signed by the application itself, so that nobody tampered: it is just no session.
    "neg-signed-not-json": SessionState.GONE,
    "neg-signed-json-list": SessionState.GONE,
    "neg-signed-bad-utf8": SessionState.GONE,
    "neg-future-timestamp": SessionState.GONE,
    "neg-cleared-marker-null": SessionState.ABSENT,
}


def reader(secret: str = SECRET, *, max_age: float | None = None, **own: Any) -> StarletteSessions:
    return StarletteSessions(
        LegacySettings(
            framework="starlette",
            max_age=None if max_age is None else Seconds(max_age),
            starlette=StarletteSettings(**own),
            identity=IdentitySettings(partial=("pending",)),
        ),
        secret,
    )


def read(sessions: StarletteSessions, value: str, now: float = NOW) -> LegacySession:
    return asyncio.run(sessions.read(Presented(value=value), now))


def create(sessions: StarletteSessions, data: dict[str, Any], **more: Any) -> str:
    arguments = {"identity": Identity(subject="u1"), "deadline": NOW + 90 * DAY, "now": NOW} | more
    return asyncio.run(sessions.create(data=data, **arguments)).cookie_value


def cookies(header: str) -> dict[bytes, list[bytes]]:
    named: dict[bytes, list[bytes]] = {}
    for name, value in split_cookies(header.encode("latin-1")):
        named.setdefault(name, []).append(value)
    return named


def golden_cases() -> Iterator[Any]:
    for file in sorted(GOLDEN.glob("*.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        for case in document["cases"]:
            yield pytest.param(document["config"], case, id=f"{file.stem}:{case['id']}")


@pytest.mark.parametrize(("config", "case"), list(golden_cases()))
def test_a_cookie_of_a_real_starlette_means_what_starlette_says(
    config: dict[str, Any], case: dict[str, Any]
) -> None:
    settings = LegacySettings(
        framework="starlette",
        cookie=config["session_cookie"],
        max_age=Seconds(config["max_age"] or 1),
        starlette=StarletteSettings(endless=config["max_age"] is None),
    )
    sessions = StarletteSessions(settings, config["secret_key"])
    presented = sessions.pick(cookies(case["cookie_header"]))
    session = LegacySession(state=SessionState.ABSENT)
    if presented is not None:
        session = asyncio.run(sessions.read(presented, case["at"]))
    expected = case["expect"]
    valid = SessionState.OK if expected["user_id"] else SessionState.ANONYMOUS
    by_outcome = STATES.get(expected["outcome"], valid)
    assert session.state is STATES.get(case["id"], by_outcome)
    assert (session.identity and session.identity.subject) == expected["user_id"]
    assert session.data == (expected["session"] or {})
    assert "issued_at" not in expected or session.created_at == expected["issued_at"]
    assert "expires_at" not in expected or session.deadline == expected["expires_at"]


async def show(request: Request) -> JSONResponse:
    if "set" in request.query_params:
        request.session.update(json.loads(request.query_params["set"]))
    return JSONResponse(request.session)


def framework(secret: str = SECRET, **options: Any) -> httpx.AsyncClient:
    """The real middleware around an application that shows and changes its session."""
    app = Starlette(
        routes=[Route("/", show)],
        middleware=[Middleware(SessionMiddleware, secret_key=secret, **options)],
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test")


async def shown(
    cookie: str, change: dict[str, Any] | None = None, **options: Any
) -> httpx.Response:
    async with framework(**options) as client:
        query = {} if change is None else {"set": json.dumps(change)}
        return await client.get("/", params=query, headers={"cookie": f"session={cookie}"})


def test_the_framework_accepts_what_we_make() -> None:
    cookie = create(reader(), {"cart": ["Blåhaj", 2]}, now=time.time())
    session = asyncio.run(shown(cookie)).json()
    assert session.pop("_cf")
    assert session == {"cart": ["Blåhaj", 2], "user_id": "u1"}


def test_we_accept_what_the_framework_makes() -> None:
    reply = asyncio.run(shown("", {"user_id": 7, "cart": [1]}))
    session = read(reader(), reply.cookies["session"], time.time())
    assert session.state is SessionState.OK
    assert session.identity == Identity(subject="7")
    assert session.data == {"user_id": 7, "cart": [1]}


@pytest.mark.parametrize(("margin", "accepted"), [(60.0, True), (-60.0, False)])
def test_a_made_cookie_ends_at_its_deadline_for_the_framework_too(
    margin: float, accepted: bool
) -> None:
    now = time.time()
    cookie = create(reader(), {}, now=now, deadline=now + margin)
    assert ("user_id" in asyncio.run(shown(cookie)).json()) is accepted
    assert (read(reader(), cookie, now).state is SessionState.OK) is accepted


def test_a_made_cookie_says_when_it_ends() -> None:
    made = reader().create(None, {}, deadline=NOW + 5.5, now=NOW)
    assert asyncio.run(made).deadline == NOW + 5
    endless = reader(endless=True).create(None, {}, deadline=NOW + 5, now=NOW)
    assert asyncio.run(endless).deadline is None


def test_a_made_cookie_is_never_dated_in_the_future() -> None:
    session = read(reader(), create(reader(), {}, deadline=NOW + 90 * DAY))
    assert session.created_at == NOW
    assert session.deadline == NOW + 14 * DAY


def test_a_cookie_of_one_application_is_tampered_for_another() -> None:
    session = read(reader("another secret"), create(reader(), {}))
    assert session.state is SessionState.TAMPERED
    assert session.identity is None


def test_a_configured_age_takes_the_place_of_starlettes_fortnight() -> None:
    sessions = reader(max_age=60)
    cookie = create(sessions, {})
    assert read(sessions, cookie, NOW + 60).state is SessionState.OK
    assert read(sessions, cookie, NOW + 61).state is SessionState.GONE


def test_the_marker_is_the_key_and_not_part_of_the_data() -> None:
    session = read(reader(), create(reader(), {"cart": [1]}, key="marker"))
    assert session.key == "marker"
    assert session.data == {"user_id": "u1", "cart": [1]}


def test_the_framework_carries_a_marker_through_a_change() -> None:
    cookie = create(reader(), {}, key="marker", now=time.time())
    reply = asyncio.run(shown(cookie, {"cart": [1]}))
    assert read(reader(), reply.cookies["session"], time.time()).key == "marker"


def test_marking_keeps_data_and_deadline() -> None:
    plain = create(reader(mark_logins=False), {"cart": [1]}, deadline=NOW + DAY)
    marked = reader().mark(plain, "marker", NOW)
    assert marked is not None
    before, after = read(reader(), plain), read(reader(), marked)
    assert (before.key, after.key) == (None, "marker")
    assert (before.data, before.deadline) == (after.data, after.deadline)


def test_marking_replaces_the_marker_of_an_earlier_login() -> None:
    marked = reader().mark(create(reader(), {}, key="earlier"), "later", NOW)
    assert marked is not None
    assert read(reader(), marked).key == "later"


@pytest.mark.parametrize(
    ("sessions", "data", "identity"),
    [
        (reader(), {}, None),
        (reader(mark_logins=False), {}, Identity(subject="u1")),
        (reader("another secret"), {}, Identity(subject="u1")),
    ],
    ids=["nobody", "switched off", "not ours"],
)
def test_only_an_authenticated_cookie_of_ours_is_marked(
    sessions: StarletteSessions, data: dict[str, Any], identity: Identity | None
) -> None:
    assert sessions.mark(create(reader(), data, identity=identity), "marker", NOW) is None


def test_a_half_done_log_in_is_partial_and_unmarked() -> None:
    reply = asyncio.run(shown("", {"pending": "u1"}))
    cookie = reply.cookies["session"]
    assert read(reader(), cookie, time.time()).state is SessionState.PARTIAL
    assert reader().mark(cookie, "marker", time.time()) is None


def test_peek_tells_the_state_that_the_application_left() -> None:
    left = reader().peek({"session": {"user_id": 7, "_cf": "marker", "cart": []}}, "", NOW)
    assert left is not None
    assert (left.state, left.identity, left.key) == (
        SessionState.OK,
        Identity(subject="7"),
        "marker",
    )
    assert left.deadline == NOW + 14 * DAY


def test_peek_leaves_the_applications_session_as_it_is() -> None:
    session = {"user_id": 7, "_cf": "marker"}
    reader().peek({"session": session}, "", NOW)
    assert session == {"user_id": 7, "_cf": "marker"}


@pytest.mark.parametrize("scope", [{}, {"session": None}, {"session": ["user_id"]}])
def test_peek_sees_nothing_where_the_scope_shows_no_session(scope: dict[str, Any]) -> None:
    assert reader().peek(scope, "", NOW) is None


def test_the_last_twin_is_read_and_the_other_one_known() -> None:
    presented = reader().pick({b"session": [b"first", b"last"]})
    assert presented is not None
    assert (presented.value, presented.has_twin) == ("last", True)
    same = reader().pick({b"session": [b"same", b"same"]})
    assert same is not None
    assert not same.has_twin


def test_there_is_no_record_to_read_pin_or_delete() -> None:
    async def scenario() -> None:
        sessions = reader()
        assert (await sessions.read_key("marker", NOW)).state is SessionState.GONE
        assert (await sessions.pin("marker", NOW + DAY, NOW)).state is SessionState.GONE
        await sessions.delete("marker")
        await sessions.close()
        assert sessions.cookie_value("marker") is None

    asyncio.run(scenario())


def test_a_cookie_larger_than_any_server_passes_is_refused_unread() -> None:
    session = read(reader(), create(reader(), {"blob": "x" * 70_000}))
    assert (session.state, session.why) == (
        SessionState.TAMPERED,
        "the cookie is larger than 64 KiB",
    )


@given(
    st.binary(max_size=300)
    | st.text(max_size=100).map(lambda text: text.encode("latin-1", "replace"))
)
def test_no_bytes_make_the_reader_raise_or_let_anyone_in(value: bytes) -> None:
    presented = reader().pick({b"session": [value]})
    assert presented is None or read(reader(), presented.value).identity is None


@given(st.binary(max_size=60), st.integers(0, 2**70))
def test_no_signed_content_makes_the_reader_raise(payload: bytes, signed_at: int) -> None:
    signer = reader()._signer
    dated = payload + b"." + signed_at.to_bytes(9).hex().encode()
    session = read(reader(), (dated + b"." + signer.get_signature(dated)).decode("latin-1"))
    assert session.identity is None


def test_reprs_hide_the_session() -> None:
    cookie = create(reader(), {"cart": ["secret"]}, key="marker")
    shown_text = f"{read(reader(), cookie)} {reader().pick({b'session': [cookie.encode()]})}"
    assert cookie not in shown_text
    assert "marker" not in shown_text
    assert "secret" not in shown_text
