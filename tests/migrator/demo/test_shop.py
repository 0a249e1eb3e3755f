"""The shop alone, as it was before Crossfade: both kinds of sessions, nothing of ours around it."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from crossfade.testing import ManualClock
from crossfade_migrator.demo.shop import USERS, create_shop
from crossfade_migrator.demo.shop_sessions import COOKIE

Visit = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture(params=["sql", "signed-cookie"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Starlette:
    return create_shop(legacy=request.param, database=tmp_path / "shop.db", secret="the shop's own")


@pytest.fixture
def sql_shop(tmp_path: Path, manual_clock: ManualClock) -> Starlette:
    return create_shop(
        database=tmp_path / "shop.db", idle=60, absolute=600, clock=manual_clock.time
    )


def browser(shop: Starlette) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(shop)
    return httpx.AsyncClient(
        transport=transport, base_url="http://shop.test", follow_redirects=True
    )


def visit(shop: Starlette, visitor: Visit) -> None:
    async def scenario() -> None:
        async with browser(shop) as client:
            await visitor(client)

    asyncio.run(scenario())


async def log_in(client: httpx.AsyncClient, user: str = "u001") -> httpx.Response:
    return await client.post("/login", data={"user": user, "password": f"pw-{user}"})


def rows(folder: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(folder / "shop.db")
    found = connection.execute("SELECT id, user_id, data FROM shop_sessions").fetchall()
    connection.close()
    return found


def test_a_customer_logs_in_shops_and_logs_out(shop: Starlette) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        assert "Hello, u001." in (await log_in(client)).text
        await client.post("/cart/add", data={"item": "lamp"})
        await client.post("/api/cart", json={"item": "chair"})
        assert (await client.get("/api/cart")).json() == {"user": "u001", "cart": ["lamp", "chair"]}
        assert "u001" in (await client.get("/account")).text
        assert "Hello, stranger." in (await client.post("/logout")).text
        assert (await client.get("/api/me")).status_code == 401
        assert COOKIE not in client.cookies

    visit(shop, customer)


def test_a_second_factor_is_asked_for_and_only_then_is_one_logged_in(shop: Starlette) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        assert "code" in (await log_in(client, "u010")).text
        assert (await client.get("/api/me")).status_code == 401
        assert (await client.post("/login/code", data={"code": "123456"})).status_code == 401
        assert "Hello, u010." in (await client.post("/login/code", data={"code": "000000"})).text

    visit(shop, customer)


@pytest.mark.parametrize(
    ("user", "password"), [("u001", "pw-u002"), ("u001", ""), ("u200", "pw-u200"), ("", "pw-")]
)
def test_a_wrong_password_logs_nobody_in(shop: Starlette, user: str, password: str) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        reply = await client.post("/login", data={"user": user, "password": password})
        assert reply.status_code == 401
        assert (await client.get("/api/me")).status_code == 401

    visit(shop, customer)


def test_a_stranger_is_sent_to_the_form_and_a_program_is_told_401(shop: Starlette) -> None:
    async def stranger(client: httpx.AsyncClient) -> None:
        assert (await client.get("/account")).url.path == "/login"
        assert (await client.get("/login/code")).url.path == "/login"
        for reply in (await client.get("/api/cart"), await client.post("/api/cart", json={})):
            assert (reply.status_code, reply.json()) == (401, {"error": "not logged in"})
        assert (await client.get("/healthz")).text == "ok"

    visit(shop, stranger)


def test_a_strangers_cart_is_kept_at_log_in(shop: Starlette) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await client.post("/cart/add", data={"item": "<lamp>"})
        assert "&lt;lamp&gt;" in (await log_in(client)).text

    visit(shop, customer)


def test_a_cart_never_goes_over_to_another_customer(shop: Starlette) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await log_in(client, "u001")
        await client.post("/cart/add", data={"item": "lamp"})
        await log_in(client, "u002")
        assert (await client.get("/api/cart")).json() == {"user": "u002", "cart": []}

    visit(shop, customer)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"item": 1}', b'{"item": ""}', b'{"item": "' + b"x" * 41 + b'"}', b"\xff"],
)
def test_what_is_no_item_stays_out_of_the_cart(shop: Starlette, body: bytes) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await log_in(client)
        assert (await client.post("/api/cart", content=body)).status_code == 400
        assert (await client.get("/api/cart")).json()["cart"] == []

    visit(shop, customer)


def test_a_log_in_gets_a_new_id_and_the_old_one_dies(sql_shop: Starlette, tmp_path: Path) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await client.post("/cart/add", data={"item": "lamp"})
        before = client.cookies[COOKIE]
        await log_in(client)
        assert before != client.cookies[COOKIE]
        assert [row[:2] for row in rows(tmp_path)] == [(client.cookies[COOKIE], "u001")]

    visit(sql_shop, customer)


def test_a_log_out_deletes_the_row(sql_shop: Starlette, tmp_path: Path) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await log_in(client)
        await client.post("/logout")
        assert rows(tmp_path) == []

    visit(sql_shop, customer)


def test_a_session_lives_while_it_is_used_up_to_its_absolute_end(
    sql_shop: Starlette, manual_clock: ManualClock
) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await log_in(client)
        for _ in range(11):
            manual_clock.advance(50)
            assert (await client.get("/api/me")).status_code == 200
        manual_clock.advance(50)
        assert (await client.get("/api/me")).status_code == 401

    visit(sql_shop, customer)


def test_an_unused_session_ends(sql_shop: Starlette, manual_clock: ManualClock) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await log_in(client)
        manual_clock.advance(61)
        assert (await client.get("/api/me")).status_code == 401

    visit(sql_shop, customer)


def test_the_cookie_is_set_only_with_a_new_id(sql_shop: Starlette) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await log_in(client)
        for reply in (await client.get("/"), await client.post("/api/cart", json={"item": "lamp"})):
            assert "set-cookie" not in reply.headers

    visit(sql_shop, customer)


def test_a_session_deleted_during_a_request_is_not_written_back(
    sql_shop: Starlette, tmp_path: Path
) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        await log_in(client)

        async def body() -> Any:
            yield b'{"item": '
            connection = sqlite3.connect(tmp_path / "shop.db")
            with connection:
                connection.execute("DELETE FROM shop_sessions")
            connection.close()
            yield b'"lamp"}'

        await client.post("/api/cart", content=body())
        assert rows(tmp_path) == []

    visit(sql_shop, customer)


def test_a_socket_knows_who_it_is_and_turns_strangers_away(shop: Starlette) -> None:
    async def customer(client: httpx.AsyncClient) -> None:
        turned_away = await say(shop, "")
        assert (turned_away[-1]["type"], turned_away[-1]["code"]) == ("websocket.close", 1008)
        await log_in(client)
        answered = await say(shop, f"{COOKIE}={client.cookies[COOKIE]}")
        assert answered[1]["text"] == '{"user":"u001","cart":0,"said":"hello"}'

    visit(shop, customer)


async def say(shop: Starlette, cookie: str) -> list[Message]:
    incoming: list[Message] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"cookie", cookie.encode())]
    scope = {"type": "websocket", "path": "/ws", "headers": headers, "query_string": b""}
    await shop(scope, receive, send)
    return sent


def test_the_shop_knows_nothing_of_crossfade() -> None:
    program = """
import sys
import crossfade_migrator.demo.shop
assert not [name for name in sys.modules if name.split(".")[0] == "crossfade"]
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert len(USERS) == 200
