import asyncio

import pytest
from sqlalchemy import delete, select, text, update

from crossfade.stores.change import changing
from crossfade.stores.engine import Database, present
from crossfade.stores.feed import FeedEntry, FeedKind, FeedStore, publish
from crossfade.stores.schema import feed, feed_head
from crossfade.testing import ManualClock
from crossfade.tokens.revocation import FeedGap, Revocations

LATER = 1_900_000_000.0


async def say(database: Database, *values: bytes, until: float = LATER) -> None:
    async with database.write() as connection:
        entries = [FeedEntry(kind=FeedKind.LOGIN, value=v, expires_at=until) for v in values]
        await publish(connection, present(connection), entries)


def test_entries_are_numbered_without_gaps_and_dated_by_the_database(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        await say(database, b"one", b"two")
        await say(database)
        await say(database, b"three")
        page = await FeedStore(database).after(1)
        assert [(e.seq, e.value) for e in page.entries] == [(2, b"two"), (3, b"three")]
        assert {e.at for e in page.entries} == {manual_clock.time()}
        assert page.entries[0].kind is FeedKind.LOGIN
        assert page.head == await FeedStore(database).head()
        assert page.head.seq == 3

    asyncio.run(scenario())


def test_300_parallel_writers_leave_no_gap_and_a_follower_misses_none(database: Database) -> None:
    async def scenario() -> None:
        store, follower = FeedStore(database), Revocations()
        start = await store.load_all()
        follower.reset(start.entries, start.head)
        writers = asyncio.gather(*(say(database, n.to_bytes(16)) for n in range(300)))
        while follower.cursor < 300:
            page = await store.after(follower.cursor, limit=50)
            follower.apply(page.entries, page.head)
        await writers
        assert {n.to_bytes(16) for n in range(300)} <= set(follower._logins)

    asyncio.run(scenario())


def test_a_change_that_fails_takes_no_number(database: Database) -> None:
    async def scenario() -> None:
        async def fail() -> None:
            async with changing(database) as change:
                change.announce(FeedKind.LOGIN, b"x", LATER)
                await change.publish()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        await say(database, b"y")
        assert [e.seq for e in (await FeedStore(database).after(0)).entries] == [1]

    asyncio.run(scenario())


def test_a_commit_held_open_for_4_seconds_is_not_lost_by_a_polling_follower(
    postgresql_url: str,
) -> None:
    """A slow writer comes first and faster ones beside it: real time and real locks."""

    async def scenario() -> None:
        database = Database(postgresql_url, timeout=30)
        store, follower = FeedStore(database), Revocations()
        start = await store.load_all()
        follower.reset(start.entries, start.head)
        done = asyncio.Event()

        async def slow() -> None:
            async with database.write() as connection:
                await connection.execute(text("SELECT pg_sleep(2)"))
                entry = FeedEntry(kind=FeedKind.LOGIN, value=b"slow", expires_at=LATER)
                await publish(connection, present(connection), [entry])
                await connection.execute(text("SELECT pg_sleep(2)"))

        async def fast() -> int:
            number = 0
            while not done.is_set():
                await say(database, b"fast" + number.to_bytes(4))
                number += 1
                await asyncio.sleep(0.05)
            return number

        async def follow() -> None:
            while not done.is_set() or follower.cursor < (await store.head()).seq:
                page = await store.after(follower.cursor)
                follower.apply(page.entries, page.head)
                await asyncio.sleep(0.1)

        async def end() -> None:
            await slow()
            done.set()

        _, written, _ = await asyncio.gather(end(), fast(), follow())
        assert b"slow" in follower._logins
        assert len(follower._logins) == written + 1
        await database.close()

    asyncio.run(scenario())


def test_loading_all_leaves_out_what_expired_and_still_ends_at_the_head(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        store = FeedStore(database)
        assert (await store.load_all()).entries == ()
        await say(database, b"short", until=manual_clock.time() + 1)
        await say(database, b"long")
        await say(database, b"short", until=manual_clock.time() + 1)
        manual_clock.advance(1)
        page = await store.load_all()
        assert [entry.value for entry in page.entries] == [b"long"]
        assert page.head.seq == 3

    asyncio.run(scenario())


def test_entries_pruned_before_a_follower_saw_them_are_a_gap(database: Database) -> None:
    async def scenario() -> None:
        store, follower = FeedStore(database), Revocations()
        follower.reset((), await store.head())
        await say(database, b"one", b"two")
        async with database.write() as connection:
            await connection.execute(delete(feed))
        page = await store.after(0)
        with pytest.raises(FeedGap):
            follower.apply(page.entries, page.head)

    asyncio.run(scenario())


def test_a_restored_database_is_told_by_its_epoch(database: Database) -> None:
    async def scenario() -> None:
        store, follower = FeedStore(database), Revocations()
        follower.reset((), await store.head())
        async with database.write() as connection:
            await connection.execute(update(feed_head).values(epoch="another"))
        page = await store.after(0)
        with pytest.raises(FeedGap):
            follower.apply(page.entries, page.head)
        async with database.read() as connection:
            assert (await store.head(connection)).epoch == "another"

    asyncio.run(scenario())


def test_a_kind_of_a_later_version_is_read_as_text(database: Database) -> None:
    async def scenario() -> None:
        await say(database, b"?")
        async with database.write() as connection:
            await connection.execute(update(feed).values(kind="novelty"))
            assert (await connection.execute(select(feed.c.kind))).scalar_one() == "novelty"
        [entry] = (await FeedStore(database).after(0)).entries
        assert entry.kind == "novelty"

    asyncio.run(scenario())
