import asyncio
from uuid import uuid4

import pytest

from crossfade.rollout.state import RolloutState
from crossfade.stores.engine import Database
from crossfade.stores.instances import GRACE, Canary, InstanceInfo, InstanceStore
from crossfade.stores.rollout import RolloutStore
from crossfade.testing import ManualClock

TTL = 30.0


def info(pid=1):
    return InstanceInfo(
        id=str(uuid4()), host="app", pid=pid, boot_id="b", version="1", kids=("k1",)
    )


async def change(database, expected=0, require=None):
    return await RolloutStore(database).append(
        expected, RolloutState.initial(), verb="test", actor="ana", require=require
    )


def test_joining_answers_the_revision_to_apply(database: Database) -> None:
    async def scenario():
        await change(database)
        store, one = InstanceStore(database), info()
        head = await store.join(one)
        (row,) = await store.live(TTL)
        return head, row

    head, row = asyncio.run(scenario())
    assert head.number == 1
    assert (row.revision, row.kids, row.name, row.canary) == (0, ("k1",), "app:1", None)
    assert not row.has_acked(head)


def test_an_ack_counts_for_that_revision_and_hash_only(database: Database) -> None:
    async def scenario():
        store, one = InstanceStore(database), info()
        head = await change(database)
        await store.join(one)
        await store.ack(one.id, head.number, "0" * 64)
        other = (await store.live(TTL))[0].has_acked(head)
        await store.ack(one.id, head.number, head.sha256)
        same = (await store.live(TTL))[0].has_acked(head)
        return other, same

    assert asyncio.run(scenario()) == (False, True)


def test_whoever_is_silent_is_flagged_and_forgotten_after_the_grace(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario():
        store = InstanceStore(database)
        await store.join(info())
        seen = []
        for seconds in (TTL, 0.1, GRACE - 0.2, 0.2):
            manual_clock.advance(seconds)
            seen.append([row.is_vanished for row in await store.live(TTL)])
        return seen

    assert asyncio.run(scenario()) == [[False], [True], [True], []]


def test_a_heartbeat_keeps_alive_and_leaves_the_last_canary(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario():
        store, one = InstanceStore(database), info()
        await store.join(one)
        await store.heartbeat(one.id, kids=["k2"], canary=Canary(ok=False, why="no key"))
        manual_clock.advance(20)
        await store.heartbeat(one.id, kids=["k2"], clock_offset=0.5)
        return (await store.live(TTL))[0]

    row = asyncio.run(scenario())
    assert (row.age, row.kids, row.clock_offset) == (0, ("k2",), 0.5)
    assert row.canary == Canary(ok=False, why="no key", age=20)


def test_a_goodbye_is_not_waited_for(database: Database) -> None:
    async def scenario():
        store, one = InstanceStore(database), info()
        await store.join(one)
        await store.leave(one.id)
        await store.leave("unknown")
        return await store.live(TTL)

    assert asyncio.run(scenario()) == []


@pytest.mark.parametrize("gone", [True, False], ids=["said goodbye", "never joined"])
def test_a_process_without_a_row_is_told_to_join_again(database: Database, gone: bool) -> None:
    async def scenario():
        store, one = InstanceStore(database), info()
        if gone:
            await store.join(one)
            await store.leave(one.id)
        return await store.ack(one.id, 1, ""), await store.heartbeat(one.id)

    assert asyncio.run(scenario()) == (False, False)


def test_either_the_change_sees_the_process_or_the_process_sees_the_change(
    database: Database,
) -> None:
    async def scenario():
        store = InstanceStore(database)
        started = asyncio.Event()

        async def look(connection, _head):
            started.set()
            await asyncio.sleep(0.2)  # the head is locked: a process that joins now must wait
            seen.extend(await store.live(TTL, connection))

        async def join_meanwhile():
            await started.wait()
            return await store.join(info())

        seen: list[object] = []
        written, joined = await asyncio.gather(change(database, require=look), join_meanwhile())
        return len(seen), joined.number == written.number

    assert asyncio.run(scenario()) == (0, True)


def test_the_databases_own_clock_serves_too(database_url: str) -> None:
    async def scenario():
        database = Database(database_url, timeout=30)
        store = InstanceStore(database)
        await store.join(info())
        rows = await store.live(TTL)
        await database.close()
        return rows

    (row,) = asyncio.run(scenario())
    assert 0 <= row.age < TTL
