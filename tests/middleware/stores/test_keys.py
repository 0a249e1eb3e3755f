"""Signing keys in a real database: their life, their seal, and what a spoilt row spoils."""

import asyncio
import json

import pytest
from sqlalchemy import select, update

from crossfade.errors import KeyConflict, KeysUnavailable
from crossfade.keys.ring import KeyState
from crossfade.keys.roots import RootSecrets
from crossfade.stores.audit import AuditStore
from crossfade.stores.engine import Database
from crossfade.stores.feed import FeedKind, FeedStore
from crossfade.stores.keys import KeyStore
from crossfade.stores.schema import keys

OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database, RootSecrets([OLD]))


async def rotated(store: KeyStore) -> tuple[str, str]:
    former = await store.add("EdDSA", state=KeyState.ACTIVE, actor="ops")
    following = await store.add("ES256", actor="ops")
    await store.activate(following, actor="ops")
    return former, following


async def states(store: KeyStore) -> dict[str, KeyState]:
    return {row.kid: row.state for row in await store.list()}


def test_a_key_signs_once_it_is_active(store: KeyStore) -> None:
    async def scenario() -> None:
        kid = await store.add("ES256", actor="ops")
        ring = await store.load()
        assert ring.kids == (kid,)
        with pytest.raises(KeysUnavailable):
            _ = ring.signing
        await store.activate(kid, actor="ops")
        ring = await store.load()
        verification = ring.get(kid)
        assert verification is not None
        assert verification.verify(b"m", ring.signing.sign(b"m"))

    asyncio.run(scenario())


def test_a_rotation_leaves_one_that_signs_and_one_that_is_retiring(store: KeyStore) -> None:
    async def scenario() -> None:
        former, following = await rotated(store)
        ring = await store.load()
        assert ring.signing.kid == following
        assert set(ring.kids) == {former, following}
        assert await states(store) == {former: KeyState.RETIRING, following: KeyState.ACTIVE}

    asyncio.run(scenario())


def test_a_retired_key_verifies_nothing_and_has_lost_its_private_half(
    store: KeyStore, database: Database
) -> None:
    async def scenario() -> None:
        former, following = await rotated(store)
        await store.retire(former, actor="ops")
        assert (await store.load()).kids == (following,)
        async with database.read() as connection:
            query = select(keys.c.private_enc).where(keys.c.kid == former)
            assert (await connection.execute(query)).scalar_one() is None

    asyncio.run(scenario())


def test_steps_that_no_key_can_take_are_refused_and_change_nothing(store: KeyStore) -> None:
    async def scenario() -> None:
        former, following = await rotated(store)
        before = await states(store)
        for step in (
            store.activate(former, actor="ops"),
            store.retire(following, actor="ops"),
            store.activate("unknown", actor="ops"),
            store.retire("unknown", actor="ops"),
        ):
            with pytest.raises(KeyConflict):
                await step
        assert await states(store) == before

    asyncio.run(scenario())


def test_a_step_taken_again_changes_nothing_and_is_audited_once(
    store: KeyStore, database: Database
) -> None:
    async def scenario() -> None:
        former, following = await rotated(store)
        await store.activate(following, actor="ops")
        await store.retire(former, actor="ops")
        await store.retire(former, actor="ops")
        rows = await AuditStore(database).page()
        events = [(row.event, row.actor, row.detail["kid"]) for row in rows]
        assert events == [
            ("key.added", "ops", former),
            ("key.added", "ops", following),
            ("key.activated", "ops", following),
            ("key.retired", "ops", former),
        ]

    asyncio.run(scenario())


def test_operators_at_the_same_moment_leave_one_active_key(database: Database) -> None:
    async def scenario() -> None:
        stores = [KeyStore(database, RootSecrets([OLD])) for _ in range(6)]
        kids = [await store.add("EdDSA", actor="ops") for store in stores]
        steps = (store.activate(kid, actor="ops") for store, kid in zip(stores, kids, strict=True))
        await asyncio.gather(*steps)
        found = list((await states(stores[0])).values())
        assert found.count(KeyState.ACTIVE) == 1
        assert found.count(KeyState.RETIRING) == 5

    asyncio.run(scenario())


def test_a_second_key_added_as_active_takes_over(store: KeyStore) -> None:
    async def scenario() -> None:
        first = await store.add("EdDSA", state=KeyState.ACTIVE, actor="ops")
        second = await store.add("EdDSA", state=KeyState.ACTIVE, actor="ops")
        assert (await store.load()).signing.kid == second
        assert (await states(store))[first] is KeyState.RETIRING

    asyncio.run(scenario())


def test_the_ring_is_the_same_object_until_something_changes(store: KeyStore) -> None:
    async def scenario() -> None:
        kid = await store.add("EdDSA", actor="ops")
        ring = await store.load()
        assert await store.load() is ring
        await store.activate(kid, actor="ops")
        assert await store.load() is not ring

    asyncio.run(scenario())


def test_the_ring_is_read_on_the_callers_own_transaction(
    store: KeyStore, database: Database
) -> None:
    async def scenario() -> None:
        kid = await store.add("EdDSA", actor="ops")
        async with database.read() as connection:
            assert (await store.load(connection)).kids == (kid,)

    asyncio.run(scenario())


def test_a_key_whose_wrapping_secret_is_gone_verifies_and_cannot_sign(
    store: KeyStore, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        kid = await store.add("EdDSA", state=KeyState.ACTIVE, actor="ops")
        both = await KeyStore(database, RootSecrets([NEW, OLD])).load()
        assert both.signing.kid == kid
        other = KeyStore(database, RootSecrets([NEW]))
        ring = await other.load()
        assert ring.get(kid) is not None
        with pytest.raises(KeysUnavailable):
            _ = ring.signing
        assert not (await other.list())[0].can_sign

    asyncio.run(scenario())
    assert "wrapping secret" in caplog.text


def test_a_private_half_put_into_another_row_does_not_sign(
    store: KeyStore, database: Database
) -> None:
    async def scenario() -> None:
        former, following = await rotated(store)
        stolen = select(keys.c.private_enc).where(keys.c.kid == former).scalar_subquery()
        async with database.write() as connection:
            swap = update(keys).where(keys.c.kid == following).values(private_enc=stolen)
            await connection.execute(swap)
        with pytest.raises(KeysUnavailable):
            _ = (await store.load()).signing

    asyncio.run(scenario())


def test_a_spoilt_row_leaves_the_other_keys_alone(
    store: KeyStore, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        former, following = await rotated(store)
        async with database.write() as connection:
            spoil = update(keys).where(keys.c.kid == former)
            await connection.execute(spoil.values(public_jwk=json.dumps({"kid": former})))
        ring = await store.load()
        assert ring.kids == (following,)
        assert ring.signing.kid == following

    asyncio.run(scenario())
    assert "left out" in caplog.text


def test_no_private_key_stands_in_the_database(store: KeyStore, database: Database) -> None:
    async def scenario() -> None:
        await store.add("RS256", actor="ops")
        async with database.read() as connection:
            row = (await connection.execute(select(keys))).one()
        assert b"PRIVATE" not in row.private_enc
        assert '"d"' not in row.public_jwk

    asyncio.run(scenario())


@pytest.mark.parametrize("state", [KeyState.RETIRING, KeyState.RETIRED])
def test_a_key_cannot_begin_at_its_end(store: KeyStore, state: KeyState) -> None:
    with pytest.raises(ValueError, match="begins"):
        asyncio.run(store.add("EdDSA", state=state, actor="ops"))


def test_no_key_is_made_for_a_shared_secret(store: KeyStore) -> None:
    with pytest.raises(ValueError, match="ES256"):
        asyncio.run(store.add("HS256", actor="ops"))  # type: ignore[arg-type]  # the point


def test_a_stolen_key_is_revoked_in_the_feed_and_another_one_signs(
    store: KeyStore, database: Database
) -> None:
    async def scenario() -> None:
        stolen = await store.add("ES256", state=KeyState.ACTIVE, actor="ops")
        revoked = await store.distrust("ES256", horizon=700, actor="ops")
        ring = await store.load()
        entries = (await FeedStore(database).load_all()).entries
        assert revoked == [stolen]
        assert ring.get(stolen) is None
        assert ring.signing.kid != stolen
        assert [(e.kind, e.value) for e in entries] == [(FeedKind.KEY, stolen.encode())]

    asyncio.run(scenario())
