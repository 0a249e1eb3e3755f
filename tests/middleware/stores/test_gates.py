import asyncio

from hypothesis import given
from hypothesis import strategies as st

from crossfade.stores.engine import Database
from crossfade.stores.gates import Count, GateStore, Observation, Window
from crossfade.testing import ManualClock

START = 1_800_000_000.0


def seen(subject, arm="token", *, failed=False, network=b"", client="web"):
    return Observation(
        client=client,
        subject=str(subject).encode().ljust(16),
        arm=arm,
        network=network,
        failed=failed,
    )


def test_a_subject_that_comes_again_counts_once(database: Database) -> None:
    async def scenario():
        store = GateStore(database)
        for _ in range(3):
            await store.note(7, [seen(1), seen(1, failed=True), seen(2), seen(1)])
        return await store.counts(7), await store.counts(8)

    here, elsewhere = asyncio.run(scenario())
    assert here == {("web", "token"): Count(subjects=2, failures=1)}
    assert elsewhere == {}


def test_a_failure_after_first_sight_counts_and_the_first_one_stays(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario():
        store = GateStore(database)
        await store.note(7, [seen(1), seen(2, "session")])
        for newcomer in (3, 4):
            manual_clock.advance(100)
            await store.note(7, [seen(1, failed=True), seen(newcomer)])
        return await store.windows(7, since=START, width=100)

    window = Window(token_failures=1, session_failures=0, token_subjects=2, session_subjects=1)
    assert asyncio.run(scenario()) == {"web": [window]}


def test_one_network_is_one_failure_whichever_arm_it_is_in(
    database: Database, manual_clock: ManualClock
) -> None:
    async def scenario():
        store = GateStore(database)
        await store.note(7, [seen(1, "session", failed=True, network=b"office")])
        manual_clock.advance(1)
        await store.note(7, [seen(n, failed=True, network=b"office") for n in range(2, 9)])
        await store.note(7, [seen(9, failed=True, network=b"home")])
        await store.note(7, [seen(1, failed=True, network=b"office", client="mobile")])
        return await store.counts(7)

    assert asyncio.run(scenario()) == {
        ("web", "session"): Count(subjects=1, failures=1),
        ("web", "token"): Count(subjects=8, failures=1),
        ("mobile", "token"): Count(subjects=1, failures=1),
    }


def test_without_a_network_every_failure_counts(database: Database) -> None:
    async def scenario():
        store = GateStore(database)
        await store.note(7, [seen(n, failed=True) for n in range(5)])
        return await store.counts(7)

    assert asyncio.run(scenario()) == {("web", "token"): Count(subjects=5, failures=5)}


def test_windows_carry_who_could_still_fail(database: Database, manual_clock: ManualClock) -> None:
    async def scenario():
        store = GateStore(database)
        await store.note(
            7, [seen(n) for n in range(4)] + [seen(n, "session") for n in range(10, 16)]
        )
        await store.note(7, [seen(0, failed=True)])
        manual_clock.advance(250)
        await store.note(7, [seen(20), seen(10, "session", failed=True), seen(1, failed=True)])
        return await store.windows(7, since=START, width=100)

    assert asyncio.run(scenario())["web"] == [
        Window(token_failures=1, session_failures=0, token_subjects=4, session_subjects=6),
        Window(token_failures=1, session_failures=1, token_subjects=4, session_subjects=6),
    ]


def test_a_large_batch_is_written_in_parts(database: Database) -> None:
    async def scenario():
        store = GateStore(database)
        await store.note(7, (seen(n) for n in range(1203)))
        await store.note(7, [])
        return await store.counts(7)

    assert asyncio.run(scenario())["web", "token"].subjects == 1203


def test_parallel_batches_about_the_same_people_do_not_hinder_each_other(
    database: Database,
) -> None:
    async def scenario():
        store = GateStore(database)
        batches = ([seen(n, failed=n % 2 == 0) for n in order] for order in ([1, 2, 3], [3, 2, 1]))
        await asyncio.gather(*(store.note(7, batch) for batch in list(batches) * 5))
        return await store.counts(7)

    assert asyncio.run(scenario()) == {("web", "token"): Count(subjects=3, failures=1)}


@given(st.binary(max_size=16), st.binary(max_size=8))
def test_an_observation_shows_neither_subject_nor_network(subject: bytes, network: bytes) -> None:
    one = Observation(client="web", subject=subject, arm="token", network=network)
    assert repr(one) == "Observation(client='web', arm='token', failed=False)"
