"""TokenAuth against a real server: exchange, refresh, rollback, faults; in threads and in tasks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from crossfaded import MOBILE, NOBODY, S
from served import Served, serving

from crossfade import TokenAuth

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as one:
        await one.phase("dual")
        yield one


async def session_of(one: Served, user: str = "u001") -> tuple[str, str]:
    """Log in by the form, as an app's web view does; return the cookie."""
    async with httpx.AsyncClient(base_url=one.url) as client:
        reply = await client.post(
            "/login", data={"user": user, "password": f"pw-{user}"}, headers=MOBILE
        )
        return S, reply.cookies[S]


class Hand:
    """A client's own clock, which a test moves: the token is near its end."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def client_of(one: Served, **options: object) -> tuple[httpx.AsyncClient, TokenAuth]:
    """Return a client that authenticates as u001."""
    auth = TokenAuth(one.url, session=await session_of(one), headers=MOBILE, **options)  # type: ignore[arg-type]
    return httpx.AsyncClient(base_url=one.url, auth=auth, headers=MOBILE), auth


async def who(client: httpx.AsyncClient) -> str | None:
    """Return who the shop says this is."""
    reply = await client.get("/api/me")
    assert reply.status_code in {200, 401}, reply.text
    user: str | None = reply.json().get("user")
    return user


async def test_it_exchanges_once_and_refreshes_before_the_end(served: Served) -> None:
    hand = Hand()
    client, auth = await client_of(served, monotonic=hand)
    async with client:
        assert await who(client) == "u001"
        first = auth.credentials.access_token
        assert first
        assert await who(client) == "u001"
        assert auth.credentials.access_token == first
        hand.now += 2
        assert await who(client) == "u001"
        assert auth.credentials.access_token != first
    assert served.count("issued", "access", "exchange") == 1
    assert served.count("refresh", "rotated") == 1


async def test_it_goes_on_with_the_session_until_its_user_is_selected(served: Served) -> None:
    await served.phase("dual", issue_token=NOBODY)
    client, auth = await client_of(served)
    async with client:
        assert await who(client) == "u001"
        assert auth.credentials.access_token is None
        assert auth.credentials.session is not None


async def test_it_crosses_a_rollback_and_comes_back(served: Served) -> None:
    await served.phase("tokens")
    client, auth = await client_of(served)
    async with client:
        assert await who(client) == "u001"
        await served.phase("sessions")
        assert await who(client) == "u001"
        assert auth.credentials.session is not None
        await served.phase("tokens")
        assert await who(client) == "u001"


async def test_tasks_that_share_it_refresh_once(served: Served) -> None:
    hand = Hand()
    client, _ = await client_of(served, monotonic=hand)
    async with client:
        await who(client)
        hand.now += 2
        assert await asyncio.gather(*(who(client) for _ in range(8))) == ["u001"] * 8
    assert served.count("refresh", "rotated") == 1


async def test_threads_that_share_it_refresh_once(served: Served) -> None:
    hand = Hand()
    session = await session_of(served)
    auth = TokenAuth(served.url, session=session, headers=MOBILE, monotonic=hand)

    def ask() -> str:
        with httpx.Client(base_url=served.url, auth=auth, headers=MOBILE) as client:
            return str(client.get("/api/me").json()["user"])

    assert await asyncio.to_thread(ask) == "u001"
    hand.now += 2
    assert await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(4))) == ["u001"] * 4
    assert served.count("refresh", "rotated") == 1


async def test_a_login_that_was_ended_is_a_401_for_the_application_to_show(served: Served) -> None:
    client, auth = await client_of(served)
    async with client:
        assert await who(client) == "u001"
        await served.assembly.logins.end_all(
            (await served.assembly.store.live("", "u001"))[0].login.identity,
            except_sid=None,
            why="test",
            trigger="operator",
            actor="test",
        )
        await asyncio.sleep(0.3)
        assert (await client.get("/api/me")).status_code == 401
        assert auth.credentials.access_token is None


async def test_a_fault_of_the_service_changes_nothing_that_it_holds(served: Served) -> None:
    hand = Hand()
    client, auth = await client_of(served, monotonic=hand)
    async with client:
        assert await who(client) == "u001"
        held = auth.credentials.refresh_token
        hand.now += 2
        with served.sql_down():
            assert (await client.get("/api/me")).status_code in {200, 503}
            assert auth.credentials.refresh_token == held
        assert await who(client) == "u001"


async def test_what_it_holds_is_told_on_each_change_and_is_enough_to_begin_again(
    served: Served,
) -> None:
    kept: list[str | None] = []
    client, _ = await client_of(served, on_change=lambda held: kept.append(held.refresh_token))
    async with client:
        await who(client)
    again = TokenAuth(served.url, refresh_token=kept[-1], headers=MOBILE)
    async with httpx.AsyncClient(base_url=served.url, auth=again, headers=MOBILE) as client:
        assert await who(client) == "u001"


async def test_nothing_it_holds_is_shown(served: Served) -> None:
    client, auth = await client_of(served)
    async with client:
        await who(client)
    held = auth.credentials
    assert held.access_token
    assert held.access_token not in repr(held)
