"""The follower: joins before it serves, acks at once, knows the age of its news, never gives up."""

import asyncio
from pathlib import Path

import pytest
from crossfaded import StillClock, World, world

from crossfade.errors import StoreUnavailable
from crossfade.rollout.state import Mode

pytestmark = pytest.mark.anyio


async def live(one: World) -> list[tuple[int, bool | None]]:
    """Return revision and canary of each live instance."""
    rows = await one.assembly.follower._instances.live(30)
    return [(row.revision, None if row.canary is None else row.canary.ok) for row in rows]


async def test_it_joins_with_the_head_before_anything_is_served(tmp_path: Path) -> None:
    async with world(tmp_path) as first:
        await first.phase("dual")
        async with world(tmp_path) as second:
            assert second.assembly.follower.state.mode is Mode.BOTH
            assert sorted(await live(first)) == [(1, None), (1, None)]
        assert len(await live(first)) == 1


async def test_a_revision_is_acked_when_it_is_applied(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        for number, phase in enumerate(("dual", "prefer", "tokens"), 1):
            await one.phase(phase)
            assert [revision for revision, _ in await live(one)] == [number]


async def test_news_age_and_stale_news_are_known(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        follower = one.assembly.follower
        one.clock.advance(59)
        assert (follower.is_stale, round(follower.staleness)) == (False, 59)
        one.clock.advance(2)
        assert follower.is_stale
        await one.sync()
        assert not follower.is_stale


async def test_without_a_database_what_was_known_stays(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        await one.phase("prefer")
        follower = one.assembly.follower
        state, keys = follower.state, follower.keys
        with one.sql_down(), pytest.raises(StoreUnavailable):
            await one.sync()
        assert (follower.state, follower.keys) == (state, keys)


async def test_the_ring_is_the_same_object_while_nothing_changed(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        ring = one.assembly.follower.keys
        one.clock.advance(6)
        await one.sync()
        assert one.assembly.follower.keys is ring


async def test_another_epoch_of_the_feed_is_loaded_whole(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        digest = b"d" * 32
        await one.assembly.store.bury(digest)
        await one.sync()
        revocations = one.assembly.follower.revocations
        revocations.epoch = "the one before the restore"
        revocations._clear()
        await one.sync()
        assert revocations.is_buried(digest)


async def test_a_gap_in_the_feed_is_loaded_whole(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        digest = b"d" * 32
        await one.assembly.store.bury(b"e" * 32)
        await one.assembly.store.bury(digest)
        await one.sync()
        revocations = one.assembly.follower.revocations
        revocations._clear()
        revocations.cursor = -5
        await one.sync()
        assert revocations.is_buried(digest)


class Quick(StillClock):
    """A clock on which the follower sleeps a moment of the real one."""

    async def sleep(self, seconds: float) -> None:
        """Sleep 10 ms."""
        await asyncio.sleep(0.01)


async def test_the_task_outlives_an_outage_and_comes_back(tmp_path: Path) -> None:
    async with world(tmp_path, clock=Quick()) as one:
        with one.sql_down():
            await asyncio.sleep(0.1)
            assert one.assembly.follower.is_running
        before = one.assembly.follower.revision
        head = await one.rollout.head()
        await one.rollout.append(
            head.number,
            head.document,
            verb="test",
            actor="test",
            actor_kind="human",
            reason="",
            evidence={},
            require=None,
        )
        async with asyncio.timeout(10):
            while one.assembly.follower.revision == before:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.01)


async def test_the_task_outlives_a_chore_that_fails(tmp_path: Path) -> None:
    async with world(tmp_path, clock=Quick()) as one:
        with one.sessions_down():
            await asyncio.sleep(0.1)
        assert one.assembly.follower.is_running


async def test_it_says_goodbye(tmp_path: Path) -> None:
    async with world(tmp_path) as watcher:
        async with world(tmp_path):
            assert len(await live(watcher)) == 2
        assert len(await live(watcher)) == 1
