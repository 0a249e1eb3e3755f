import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from crossfade.errors import RevisionConflict
from crossfade.rollout.state import RolloutState
from crossfade.stores.engine import Database
from crossfade.stores.rollout import GENESIS, RolloutStore
from crossfade.stores.schema import audit, rollout_head, rollout_revisions
from crossfade.testing import ManualClock

FIRST = RolloutState.initial()


async def append(store, expected, note="", **options):
    state = replace(FIRST, note=note)
    return await store.append(expected, state, verb="advance", actor="ana", **options)


def test_before_anything_was_written_the_head_is_revision_zero(database: Database) -> None:
    head = asyncio.run(RolloutStore(database).head())
    assert (head.number, head.document, head.sha256) == (0, FIRST, GENESIS)


def test_a_change_makes_the_next_revision(database: Database, manual_clock: ManualClock) -> None:
    async def scenario():
        store = RolloutStore(database)
        written = await append(store, 0, "one", reason="why", evidence={"e": 1.5})
        assert await store.head() == written
        return written

    written = asyncio.run(scenario())
    assert (written.number, written.document.note, written.actor) == (1, "one", "ana")
    assert (written.reason, written.evidence) == ("why", {"e": 1.5})
    assert written.created_at == manual_clock.time()


def test_a_change_made_for_another_head_is_refused_and_writes_nothing(database: Database) -> None:
    async def scenario():
        store = RolloutStore(database)
        await append(store, 0, "mine")
        with pytest.raises(RevisionConflict) as conflict:
            await append(store, 0, "yours")
        assert (conflict.value.expected, conflict.value.head) == (0, 1)
        return await store.history()

    assert [revision.document.note for revision in asyncio.run(scenario())] == ["mine"]


def test_of_many_writers_at_once_exactly_one_makes_the_revision(database: Database) -> None:
    async def scenario():
        store = RolloutStore(database)
        results = await asyncio.gather(
            *(append(store, 0, str(n)) for n in range(12)), return_exceptions=True
        )
        won = [result for result in results if not isinstance(result, BaseException)]
        lost = [result for result in results if isinstance(result, RevisionConflict)]
        return won, lost, await store.head()

    won, lost, head = asyncio.run(scenario())
    assert (len(won), len(lost)) == (1, 11)
    assert head == won[0]


def test_a_requirement_that_fails_leaves_everything_as_it_was(database: Database) -> None:
    async def refuse(_connection, head):
        raise ValueError(head.number)

    async def scenario():
        store = RolloutStore(database)
        await append(store, 0)
        with pytest.raises(ValueError, match="1"):
            await append(store, 1, "no", require=refuse)
        async with database.read() as connection:
            rows = (await connection.execute(select(audit.c.id))).all()
        return await store.head(), await store.verify(), len(rows)

    head, faults, audited = asyncio.run(scenario())
    assert (head.number, faults, audited) == (1, [], 1)


def test_each_revision_has_one_audit_row_with_what_moved(database: Database) -> None:
    async def scenario():
        await append(RolloutStore(database), 0, reason="go")
        async with database.read() as connection:
            return (await connection.execute(select(audit))).mappings().all()

    (row,) = asyncio.run(scenario())
    assert (row["event"], row["actor"]) == ("rollout.advance", "ana")
    assert '"reason":"go"' in row["detail"]


def test_history_is_newest_first_and_goes_on_behind_a_page(database: Database) -> None:
    async def scenario():
        store = RolloutStore(database)
        for number in range(5):
            await append(store, number)
        return await store.history(limit=2), await store.history(limit=2, after=4)

    first, second = asyncio.run(scenario())
    assert [revision.number for revision in first] == [5, 4]
    assert [revision.number for revision in second] == [3, 2]


@pytest.mark.parametrize("column", ["document", "reason", "actor", "evidence", "previous_sha256"])
def test_an_edited_row_shows(database: Database, column: str) -> None:
    async def scenario():
        store = RolloutStore(database)
        for number in range(3):
            await append(store, number)
        assert await store.verify() == []
        async with database.write() as connection:
            where = rollout_revisions.c.revision == 2
            text = replace(FIRST, note="edited").to_json() if column == "document" else '{"e":9}'
            await connection.execute(update(rollout_revisions).where(where).values({column: text}))
        return await store.verify()

    assert asyncio.run(scenario()) == ["revision 2 was edited after it was written"]


def test_a_head_that_was_set_back_shows(database: Database) -> None:
    async def scenario():
        store = RolloutStore(database)
        for number in range(2):
            await append(store, number)
        async with database.write() as connection:
            await connection.execute(update(rollout_head).values(revision=1))
        return await store.verify()

    assert asyncio.run(scenario()) == ["the head says 1, the last revision is 2"]
