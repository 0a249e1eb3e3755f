"""The reader beside an application with a session table of its own: each accepts the other."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from crossfade.legacy.base import SessionState
from crossfade.legacy.sql import SqlTableSessions
from crossfade.principal import Identity
from crossfade.settings import IdentitySettings, LegacySettings, Seconds, SqlTableSettings
from crossfade.stores.engine import Database
from crossfade.testing import ManualClock
from crossfade_migrator.demo.shop import create_shop
from crossfade_migrator.demo.shop_sessions import COOKIE

IDLE, ABSOLUTE = 60.0, 600.0
Meeting = Callable[[httpx.AsyncClient, SqlTableSessions], Awaitable[None]]


@pytest.fixture
def meet(tmp_path: Path, manual_clock: ManualClock) -> Callable[[Meeting], None]:
    def run(meeting: Meeting) -> None:
        asyncio.run(_meet(tmp_path / "shop.db", manual_clock, meeting))

    return run


async def _meet(file: Path, clock: ManualClock, meeting: Meeting) -> None:
    shop = create_shop(database=file, idle=IDLE, absolute=ABSOLUTE, clock=clock.time)
    table = SqlTableSettings(
        url="",
        table="shop_sessions",
        user="user_id",
        created="created_at",
        seen="last_seen",
        idle=Seconds(IDLE),
        absolute=Seconds(ABSOLUTE),
    )
    identity = IdentitySettings(auth_time="logged_in_at", partial=("pending_user",))
    legacy = LegacySettings(framework="sql", cookie=COOKIE, sql=table, identity=identity)
    sessions = SqlTableSessions(legacy, Database(f"sqlite:///{file}", timeout=30))
    transport = httpx.ASGITransport(shop)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        try:
            await meeting(client, sessions)
        finally:
            await sessions.close()


async def log_in(client: httpx.AsyncClient, user: str) -> str:
    await client.post("/login", data={"user": user, "password": f"pw-{user}"})
    return client.cookies[COOKIE]


async def who(client: httpx.AsyncClient) -> str | None:
    user: str | None = (await client.get("/api/me")).json().get("user")
    return user


def test_the_reader_sees_whom_the_shop_sees(
    meet: Callable[[Meeting], None], manual_clock: ManualClock
) -> None:
    async def meeting(client: httpx.AsyncClient, sessions: SqlTableSessions) -> None:
        key = await log_in(client, "u001")
        session = await sessions.read_key(key, manual_clock.time())
        assert session.identity == Identity(subject="u001")
        assert session.deadline == manual_clock.time() + IDLE
        assert session.absolute_deadline == manual_clock.time() + ABSOLUTE
        await client.post("/logout")
        assert (await sessions.read_key(key, manual_clock.time())).state is SessionState.GONE

    meet(meeting)


def test_a_customer_between_password_and_code_is_partial(
    meet: Callable[[Meeting], None], manual_clock: ManualClock
) -> None:
    async def meeting(client: httpx.AsyncClient, sessions: SqlTableSessions) -> None:
        key = await log_in(client, "u010")
        session = await sessions.read_key(key, manual_clock.time())
        assert (session.state, session.identity) == (SessionState.PARTIAL, None)

    meet(meeting)


def test_the_shop_accepts_a_session_that_we_made_until_it_ends(
    meet: Callable[[Meeting], None], manual_clock: ManualClock
) -> None:
    async def meeting(client: httpx.AsyncClient, sessions: SqlTableSessions) -> None:
        now = manual_clock.time()
        made = await sessions.create(
            Identity(subject="u001"), {"cart": ["lamp"]}, deadline=now + 30, now=now
        )
        client.cookies[COOKIE] = made.cookie_value
        manual_clock.advance(29)
        assert (await client.get("/api/cart")).json() == {"user": "u001", "cart": ["lamp"]}

    meet(meeting)


def test_the_shop_ends_a_session_that_we_made_at_its_deadline(
    meet: Callable[[Meeting], None], manual_clock: ManualClock
) -> None:
    async def meeting(client: httpx.AsyncClient, sessions: SqlTableSessions) -> None:
        now = manual_clock.time()
        made = await sessions.create(Identity(subject="u001"), {}, deadline=now + 30, now=now)
        client.cookies[COOKIE] = made.cookie_value
        manual_clock.advance(30)
        assert await who(client) is None

    meet(meeting)


def test_a_pinned_session_outlives_its_idle_time_in_the_shop(
    meet: Callable[[Meeting], None], manual_clock: ManualClock
) -> None:
    async def meeting(client: httpx.AsyncClient, sessions: SqlTableSessions) -> None:
        now = manual_clock.time()
        await sessions.pin(await log_in(client, "u001"), now + 300, now)
        manual_clock.advance(299)
        assert await who(client) == "u001"

    meet(meeting)


def test_a_session_that_we_delete_is_gone_for_the_shop(meet: Callable[[Meeting], None]) -> None:
    async def meeting(client: httpx.AsyncClient, sessions: SqlTableSessions) -> None:
        await sessions.delete(await log_in(client, "u001"))
        assert await who(client) is None

    meet(meeting)
