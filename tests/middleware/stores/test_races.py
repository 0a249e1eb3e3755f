"""Rows that every instance writes when it starts: two at the same moment must not collide."""

import asyncio
from typing import Any

from crossfade.stores.canary import CanaryStore
from crossfade.stores.engine import Database
from crossfade.stores.leases import LeaseStore
from crossfade.stores.sentinels import Sentinel, SentinelStore

MANY = 12


def at_once(database: Database, *calls: Any) -> list[Any]:
    """Run coroutines at the same moment; return what they answered."""

    async def run() -> list[Any]:
        try:
            return list(await asyncio.gather(*calls))
        finally:
            await database.close()

    return asyncio.run(run())


def test_the_canary_is_put_by_all_at_once(database: Database) -> None:
    store = CanaryStore(database)
    at_once(database, *(store.put(f"token {number}") for number in range(MANY)))
    found = at_once(database, store.get(max_age=60))
    assert found[0].startswith("token ")


def test_the_sentinel_is_put_by_all_at_once(database: Database) -> None:
    store, sentinel = SentinelStore(database), Sentinel(born_at=1.0, lives_until=2.0)
    at_once(database, *(store.put("sql", sentinel) for _ in range(MANY)))
    assert at_once(database, store.get("sql")) == [sentinel]


def test_of_all_that_want_a_lease_at_once_one_gets_it(database: Database) -> None:
    store = LeaseStore(database)
    taken = at_once(database, *(store.take("prune", str(number), 60) for number in range(MANY)))
    assert taken.count(True) == 1
    holder = str(taken.index(True))
    assert at_once(database, store.take("prune", holder, 60), store.take("prune", "x", 60)) == [
        True,
        False,
    ]
