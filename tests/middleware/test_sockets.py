"""WebSockets: authenticated at the handshake, closed when their credential dies."""

import asyncio
import json
from pathlib import Path

import pytest
from crossfaded import (
    ACCESS_TTL,
    API,
    LEEWAY,
    NAVIGATION,
    NOBODY,
    C,
    R,
    S,
    Socket,
    World,
    world,
)

pytestmark = pytest.mark.anyio
CLOSED = {"type": "websocket.close", "code": 1008}
EXPIRED = ACCESS_TTL + LEEWAY + 1


@pytest.mark.parametrize("phase", ["sessions", "dual", "prefer", "drain", "tokens"])
async def test_a_socket_knows_its_user_in_every_phase(either: World, phase: str) -> None:
    await either.phase(phase)
    user = await either.user()
    async with Socket(either, user) as socket:
        assert await socket.user() == "u001"


async def test_a_bearer_opens_a_socket(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    async with Socket(sql, authorization=f"Bearer {user.jar[C]}", origin="") as socket:
        assert await socket.user() == "u001"


async def test_a_stranger_is_left_to_the_application(sql: World) -> None:
    await sql.phase("dual")
    async with Socket(sql) as socket:
        assert socket.is_accepted
        assert (await socket.heard())["code"] == 1008


async def test_a_bad_bearer_is_refused_at_the_handshake(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    async with Socket(sql, user, authorization=f"Bearer {user.jar[C][:-4]}AAAA") as socket:
        assert socket.opened == CLOSED


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "https://other.test", "sec-fetch-site": "same-site"},
        {"origin": "null"},
        {"origin": ""},
    ],
    ids=["origin", "cross-site", "same-site", "null", "none"],
)
async def test_another_site_opens_no_socket_by_an_access_cookie(
    sql: World, headers: dict[str, str]
) -> None:
    await sql.phase("prefer")
    user = await sql.user()
    async with Socket(sql, user, **headers) as socket:
        assert socket.opened == CLOSED


async def test_an_expired_access_cookie_is_renewed_at_the_handshake(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await sql.later(EXPIRED)
    async with Socket(sql, user) as socket:
        set_names = {value.partition(b"=")[0].decode() for _, value in socket.opened["headers"]}
        assert set_names == {C, R}
        assert await socket.user() == "u001"


@pytest.mark.parametrize("phase", ["dual", "tokens"])
async def test_a_log_out_closes_the_sockets_of_the_login(either: World, phase: str) -> None:
    await either.phase(phase)
    user, other = await either.user("u001"), await either.user("u002")
    async with Socket(either, user) as socket, Socket(either, other) as bystander:
        assert await socket.user() == "u001"
        await user.post("/logout")
        await either.sync()
        assert await socket.heard() == CLOSED
        assert await bystander.user() == "u002"
        assert len(either.assembly.sockets) == 1


async def test_a_log_out_closes_the_sockets_of_a_session_without_tokens(sql: World) -> None:
    await sql.phase("dual", issue_token=NOBODY)
    user = await sql.user()
    async with Socket(sql, user) as socket:
        assert await socket.user() == "u001"
        await user.post("/logout")
        await sql.sync()
        assert await socket.heard() == CLOSED


async def test_a_log_out_reaches_the_sockets_of_another_process(tmp_path: Path) -> None:
    async with world(tmp_path) as one, world(tmp_path) as other:
        await one.phase("dual")
        await other.sync()
        user = await one.user()
        async with Socket(other, user) as socket:
            assert await socket.user() == "u001"
            await user.post("/logout")
            await other.sync()
            assert await socket.heard() == CLOSED


async def test_a_log_out_everywhere_closes_the_sockets_of_plain_sessions_too(sql: World) -> None:
    plain = await sql.user()
    await sql.phase("dual")
    here = await sql.user()
    async with Socket(sql, plain) as socket:
        assert await socket.user() == "u001"
        await here.post("/auth/logins", data={"others": "true"}, headers=API)
        await sql.sync()
        assert await socket.heard() == CLOSED


async def test_a_socket_that_only_sends_is_closed_too(tmp_path: Path) -> None:
    sent = asyncio.Event()

    async def ticker(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await sent.wait()
            sent.clear()
            user = getattr(scope["user"], "subject", None)
            await send({"type": "websocket.send", "text": json.dumps({"user": user})})

    async with world(tmp_path, app=ticker) as one:
        await one.phase("dual")
        async with world(tmp_path) as shop:
            user = await shop.user()
        assert C in user.jar
        socket = Socket(one, user)
        async with socket:
            sent.set()
            assert (await socket.heard())["type"] == "websocket.send"
            identity = one.assembly.verifier.verify(user.jar[C].encode())
            await one.assembly.logins.end(identity.sid, why="test", trigger="operator")
            await one.sync()
            await asyncio.sleep(0)
            sent.set()
            assert await socket.heard() == CLOSED


async def test_a_bearers_socket_ends_with_its_token(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    async with Socket(sql, authorization=f"Bearer {user.jar[C]}", origin="") as socket:
        await sql.later(ACCESS_TTL - 60)
        assert await socket.user() == "u001"
        await sql.later(60 + LEEWAY + 1)
        assert await socket.heard() == CLOSED


async def test_a_renewal_closes_no_socket(sql: World) -> None:
    await sql.phase("tokens")
    user = await sql.user()
    await sql.later(ACCESS_TTL - 60)
    async with Socket(sql, user) as socket:
        reply = await user.post("/auth/token", data={"grant_type": "refresh_token"}, headers=API)
        assert reply.status_code == 200
        await sql.sync()
        assert await socket.user() == "u001"


async def test_the_first_frame_after_a_revocation_is_not_answered(sql: World) -> None:
    await sql.phase("dual")
    user = await sql.user()
    user.drop(S)
    async with Socket(sql, user) as socket:
        await user.post("/logout", headers=NAVIGATION)
        await sql.sync()
        assert await socket.user() is None
