"""An issuer's keys over real HTTP: one fetch at a time, the last good set kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from jwks_server import JwksServer, serving
from token_factory import ring_of

from crossfade.errors import ConfigurationError, KeysUnavailable
from crossfade.keys.remote import RemoteKeys, key_set
from crossfade.testing import ManualClock

RING, KEY = ring_of("ES256")
LATER_RING, LATER_KEY = ring_of("EdDSA")


class Stage:
    """A server, a follower and the clock that both are watched with."""

    def __init__(self, server: JwksServer) -> None:
        self.server = server
        self.clock = ManualClock()
        self.keys = RemoteKeys(server.url, refresh=300, cooldown=10, timeout=2, clock=self.clock)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    async with serving(RING.jwks()) as server:
        made = Stage(server)
        try:
            yield made
        finally:
            await made.keys.aclose()


def run(scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with stage() as made:
            await scenario(made)

    asyncio.run(whole())


def spoil_status(server: JwksServer) -> None:
    server.status = 500


def spoil_redirect(server: JwksServer) -> None:
    server.status, server.location = 302, b"/elsewhere.json"


def spoil_json(server: JwksServer) -> None:
    server.raw = b"{"


def spoil_depth(server: JwksServer) -> None:
    server.raw = b"[" * 100_000


def spoil_size(server: JwksServer) -> None:
    server.padding = 300_000


def spoil_set(server: JwksServer) -> None:
    server.document = {"keys": []}


SPOILERS = [spoil_status, spoil_redirect, spoil_json, spoil_depth, spoil_size, spoil_set]


def test_a_hundred_requests_at_once_fetch_the_keys_once() -> None:
    async def scenario(made: Stage) -> None:
        await asyncio.gather(*(made.keys.ready() for _ in range(100)))
        assert made.keys.ring.kids == (KEY.kid,)
        assert made.server.requests == 1

    run(scenario)


@pytest.mark.parametrize("spoil", SPOILERS)
def test_without_a_first_set_there_are_no_keys(spoil: Callable[[JwksServer], None]) -> None:
    async def scenario(made: Stage) -> None:
        spoil(made.server)
        with pytest.raises(KeysUnavailable):
            await made.keys.ready()
        assert not made.keys.ring

    run(scenario)


@pytest.mark.parametrize("spoil", SPOILERS)
def test_the_last_good_set_is_kept(spoil: Callable[[JwksServer], None]) -> None:
    async def scenario(made: Stage) -> None:
        await made.keys.ready()
        before = made.keys.ring
        spoil(made.server)
        made.clock.advance(301)
        assert not await made.keys.reload(made.clock.monotonic())
        await made.keys.ready()
        assert made.keys.ring is before

    run(scenario)


def test_a_failing_issuer_is_asked_once_a_cooldown() -> None:
    async def scenario(made: Stage) -> None:
        made.server.status = 500
        for _ in range(20):
            with pytest.raises(KeysUnavailable):
                await made.keys.ready()
        assert made.server.requests == 1
        made.clock.advance(10)
        made.server.status = 200
        await made.keys.ready()
        assert made.server.requests == 2

    run(scenario)


def test_an_issuer_that_is_not_there_gives_no_keys() -> None:
    async def scenario() -> None:
        keys = RemoteKeys("http://127.0.0.1:1/jwks.json", timeout=2)
        with pytest.raises(KeysUnavailable):
            await keys.ready()
        await keys.aclose()

    asyncio.run(scenario())


def test_an_issuer_that_hangs_is_given_up() -> None:
    async def scenario(made: Stage) -> None:
        made.server.gate.clear()
        keys = RemoteKeys(made.server.url, timeout=0.05)
        with pytest.raises(KeysUnavailable):
            await keys.ready()
        await keys.aclose()

    run(scenario)


def test_an_issuer_that_drips_is_given_up() -> None:
    async def scenario(made: Stage) -> None:
        made.server.is_dripping = True
        keys = RemoteKeys(made.server.url, timeout=0.2)
        with pytest.raises(KeysUnavailable):
            await keys.ready()
        await keys.aclose()

    run(scenario)


def test_a_slow_fetch_is_not_joined_by_a_second_one() -> None:
    async def scenario(made: Stage) -> None:
        made.server.gate.clear()
        first = asyncio.create_task(made.keys.ready())
        await made.server.asked(1)
        made.clock.advance(11)
        second = asyncio.create_task(made.keys.ready())
        await asyncio.sleep(0)
        made.server.gate.set()
        await asyncio.gather(first, second)
        assert made.server.requests == 1

    run(scenario)


def test_an_old_set_serves_while_the_new_one_is_fetched() -> None:
    async def scenario(made: Stage) -> None:
        await made.keys.ready()
        made.server.document = LATER_RING.jwks()
        made.server.gate.clear()
        made.clock.advance(301)
        await made.keys.ready()
        assert made.keys.ring.kids == (KEY.kid,)
        await made.server.asked(2)
        made.server.gate.set()
        assert await made.keys.reload(made.clock.monotonic())
        assert made.keys.ring.kids == (LATER_KEY.kid,)
        assert made.server.requests == 2

    run(scenario)


def test_a_set_read_anew_without_change_stays_the_same_object() -> None:
    async def scenario(made: Stage) -> None:
        await made.keys.ready()
        before = made.keys.ring
        made.clock.advance(301)
        assert await made.keys.reload(made.clock.monotonic())
        assert made.keys.ring is before

    run(scenario)


def test_unknown_kids_make_one_fetch_a_cooldown() -> None:
    async def scenario(made: Stage) -> None:
        await made.keys.ready()
        made.clock.advance(10)
        asked_at = made.clock.monotonic()
        assert all(await asyncio.gather(*(made.keys.reload(asked_at) for _ in range(50))))
        made.clock.advance(1)
        assert not await made.keys.reload(made.clock.monotonic())
        assert made.server.requests == 2

    run(scenario)


def test_a_waiter_that_gives_up_leaves_the_fetch_to_the_others() -> None:
    async def scenario(made: Stage) -> None:
        made.server.gate.clear()
        first, second = (asyncio.create_task(made.keys.ready()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        made.server.gate.set()
        await second
        assert first.cancelled() or first.cancelling()
        assert made.keys.ring

    run(scenario)


def test_keys_of_no_use_are_left_out_of_a_set() -> None:
    others: list[Any] = [{"kty": "oct", "k": "AA"}, "text", None, {"kty": "EC", "kid": "x"}]
    assert key_set({"keys": [*others, *RING.jwks()["keys"]]}).kids == (KEY.kid,)


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": [1]}])
def test_what_is_no_key_set_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="key set"):
        key_set(document)


@pytest.mark.parametrize("url", ["file:///etc/keys", "ftp://x/y", "shop.example", ""])
def test_keys_come_over_http_only(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        RemoteKeys(url)
