import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from crossfade.errors import NotIssued
from crossfade.keys.roots import RootSecrets
from crossfade.legacy.base import anchor_digest
from crossfade.principal import Identity
from crossfade.stores.audit import AuditStore
from crossfade.stores.engine import Database
from crossfade.stores.feed import FeedKind, FeedStore
from crossfade.stores.logins import LoginStore, NewLogin, Opened
from crossfade.stores.schema import logins, outbox
from crossfade.testing import ManualClock
from crossfade.tokens.refresh import RefreshOutcome, RefreshToken, Rotation, decode, encode

OLD, NEW = b"o" * 32, b"n" * 32
ROOTS = RootSecrets([OLD])
ADA, BOB = Identity(subject="ada", tenant="acme"), Identity(subject="bob", tenant="acme")
WINDOW, IDLE, DAY = 60.0, 3_600.0, 86_400.0
DIGEST = anchor_digest("sql", "session-1")


@pytest.fixture
def store(database: Database) -> LoginStore:
    return store_on(database)


def store_on(database: Database, roots: RootSecrets = ROOTS, window: float = WINDOW) -> LoginStore:
    return LoginStore(database, roots, window=window, access_ttl=600, leeway=30, refresh_idle=IDLE)


def new(clock: ManualClock, **changes: Any) -> NewLogin:
    login = NewLogin(
        identity=ADA,
        client="web",
        client_id="web",
        auth_time=clock.time() - 10,
        amr=("pwd", "otp"),
        idle=IDLE,
        absolute_until=clock.time() + DAY,
        reader="sql",
        anchor_key="session-1",
        anchor_until=clock.time() + 1_800,
        grant="upgrade",
    )
    return replace(login, **changes)


def token_of(answer: Opened | Rotation, roots: RootSecrets = ROOTS) -> RefreshToken:
    assert answer.refresh_token is not None
    token = decode(answer.refresh_token, roots)
    assert token is not None
    return token


async def events(database: Database) -> list[str]:
    return [row.event for row in await AuditStore(database).page()]


async def announced(database: Database) -> list[tuple[str, bytes]]:
    return [
        (str(entry.kind), entry.value) for entry in (await FeedStore(database).after(0)).entries
    ]


async def many(times: int, call: Callable[[], Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*(call() for _ in range(times)))


def test_a_login_is_read_back_as_it_was_opened(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock, address="192.0.2.1", agent="Fox\x1b[2J"))
        login = await store.get(opened.login.sid)
        assert login == opened.login
        assert login is not None
        assert (login.identity, login.amr, login.client) == (ADA, ("pwd", "otp"), "web")
        assert (login.anchor, login.anchor_reader, login.anchor_key) == (DIGEST, "sql", "session-1")
        assert await store.by_anchor("acme", DIGEST) == login
        [row] = await store.live("acme", "ada")
        assert (row.login, row.address, row.agent) == (login, "192.0.2.1", "Fox\ufffd[2J")
        assert await store.get(b"?" * 16) is None

    asyncio.run(scenario())


def test_500_parallel_upgrades_of_one_session_end_in_one_login(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await many(500, lambda: store.open(new(manual_clock)))
        assert len({o.refresh_token for o in opened}) == 1
        assert Counter(o.is_new for o in opened) == {True: 1, False: 499}
        assert await events(database) == ["login.opened"]

    asyncio.run(scenario())


def test_500_parallel_refreshes_of_one_login_make_one_successor(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        token = token_of(await store.open(new(manual_clock)))
        answers = await many(500, lambda: store.rotate(token))
        assert len({a.refresh_token for a in answers}) == 1
        assert Counter(a.outcome for a in answers) == {
            RefreshOutcome.ROTATED: 1,
            RefreshOutcome.REPLAYED: 499,
        }
        login = await store.get(token.sid)
        assert login is not None
        assert login.gen == 1

    asyncio.run(scenario())


def test_twelve_tabs_with_one_cookie_jar_refresh_flat_out_and_none_is_lost(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    """Each tab sends what the jar held some steps ago, and its answer may overtake others."""

    async def scenario() -> None:
        jar = [token_of(await store.open(new(manual_clock)))]

        async def tab(lag: int) -> RefreshOutcome:
            answer = await store.rotate(jar[max(0, len(jar) - 1 - lag)])
            if answer.refresh_token is not None:
                jar.append(token_of(answer))
            return answer.outcome

        outcomes: Counter[RefreshOutcome] = Counter()
        for _ in range(40):
            outcomes.update(await asyncio.gather(*(tab(n % 2) for n in range(12))))
            manual_clock.advance(WINDOW / 7)
        served = {RefreshOutcome.ROTATED, RefreshOutcome.REPLAYED, RefreshOutcome.CURRENT}
        assert set(outcomes) == served
        assert 5 <= outcomes[RefreshOutcome.ROTATED] <= 7
        assert await events(database) == ["login.opened"]

    asyncio.run(scenario())


def test_a_refresh_is_one_statement(store: LoginStore, manual_clock: ManualClock) -> None:
    async def scenario() -> None:
        token = token_of(await store.open(new(manual_clock)))
        statements: list[str] = []
        engine = store._database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
        assert (await store.rotate(token)).outcome is RefreshOutcome.ROTATED
        assert [text.split()[0] for text in statements if "BEGIN" not in text] == ["UPDATE"]

    asyncio.run(scenario())


def test_the_live_token_is_not_rotated_again_within_the_window(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        first = await store.rotate(token_of(await store.open(new(manual_clock))))
        manual_clock.advance(WINDOW - 1)
        young = await store.rotate(token_of(first))
        assert (young.outcome, young.refresh_token) == (RefreshOutcome.CURRENT, None)
        manual_clock.advance(1)
        assert (await store.rotate(token_of(first))).outcome is RefreshOutcome.ROTATED

    asyncio.run(scenario())


def test_a_lost_reply_is_repeated_within_the_window_even_under_a_new_root(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        token = token_of(await store.open(new(manual_clock)))
        first = await store.rotate(token)
        manual_clock.advance(WINDOW)
        again = await store_on(database, RootSecrets([NEW, OLD])).rotate(token)
        assert again.outcome is RefreshOutcome.REPLAYED
        assert again.refresh_token == first.refresh_token
        assert again.login == first.login

    asyncio.run(scenario())


def test_a_family_goes_on_under_a_new_root_and_the_old_one_may_then_go(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        both, only = RootSecrets([NEW, OLD]), RootSecrets([NEW])
        token = token_of(await store.open(new(manual_clock)))
        rotated = await store_on(database, both).rotate(token)
        manual_clock.advance(WINDOW)
        later = await store_on(database, only).rotate(token_of(rotated, only))
        assert later.outcome is RefreshOutcome.ROTATED
        assert later.login is not None
        assert later.login.anchor_key is None  # sealed under the old root
        assert later.login.anchor == DIGEST

    asyncio.run(scenario())


def test_reuse_ends_that_login_and_its_session_and_nothing_else(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        token = token_of(await store.open(new(manual_clock)))
        other = token_of(await store.open(new(manual_clock, anchor_key="session-2")))
        await store.rotate(token)
        manual_clock.advance(WINDOW + 1)
        assert (await store.rotate(token)).outcome is RefreshOutcome.REUSE
        assert (await store.rotate(token)).outcome is RefreshOutcome.ENDED
        assert await store.is_buried(DIGEST)
        assert await announced(database) == [("tombstone", DIGEST), ("login", token.sid)]
        assert (await events(database))[-1] == "login.ended"
        assert [item.key for item in await store.due_outbox(9)] == ["session-1"]
        with pytest.raises(NotIssued, match="tombstoned"):
            await store.open(new(manual_clock))
        assert (await store.rotate(other)).outcome is RefreshOutcome.ROTATED

    asyncio.run(scenario())


def test_200_parallel_reuses_end_the_login_once(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        token = token_of(await store.open(new(manual_clock)))
        await store.rotate(token)
        manual_clock.advance(WINDOW + 1)
        answers = await many(200, lambda: store.rotate(token))
        outcomes = Counter(answer.outcome for answer in answers)
        assert outcomes == {RefreshOutcome.REUSE: 1, RefreshOutcome.ENDED: 199}
        assert await events(database) == ["login.opened", "login.ended"]

    asyncio.run(scenario())


def test_garbage_with_the_right_place_kills_nothing(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        sid, stranger = opened.login.sid, RootSecrets([NEW])
        forged = encode(stranger, stranger.active, sid, 0, 0, b"?" * 32)
        assert decode(forged, ROOTS) is None
        unknown = RefreshToken(kv=ROOTS.active, sid=b"?" * 16, epoch=0, gen=0, secret=b"?" * 32)
        assert (await store.rotate(unknown)).outcome is RefreshOutcome.UNKNOWN
        assert (await store.rotate(token_of(opened))).outcome is RefreshOutcome.ROTATED

    asyncio.run(scenario())


def test_a_token_of_ours_from_a_forked_family_does_not_rotate(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    """The store was set back and went on: two secrets of ours name one place."""

    async def scenario() -> None:
        sid = (await store.open(new(manual_clock))).login.sid
        fork = decode(encode(ROOTS, ROOTS.active, sid, 0, 0, b"?" * 32), ROOTS)
        assert fork is not None
        assert (await store.rotate(fork)).outcome is RefreshOutcome.REUSE

    asyncio.run(scenario())


def test_the_same_idempotency_key_is_answered_for_ten_minutes_and_five_times(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        token = token_of(await store.open(new(manual_clock)))
        first = await store.rotate(token, idempotency_key="key-1")
        manual_clock.advance(500)
        for _ in range(5):
            again = await store.rotate(token, idempotency_key="key-1")
            assert again.refresh_token == first.refresh_token
        assert (await store.rotate(token, idempotency_key="key-1")).outcome == "reuse"

    asyncio.run(scenario())


@pytest.mark.parametrize(("key", "after"), [("key-2", 500.0), (None, 500.0), ("key-1", 601.0)])
def test_another_key_or_a_late_repeat_is_reuse(
    store: LoginStore, manual_clock: ManualClock, key: str | None, after: float
) -> None:
    async def scenario() -> None:
        token = token_of(await store.open(new(manual_clock)))
        await store.rotate(token, idempotency_key="key-1")
        manual_clock.advance(after)
        assert (await store.rotate(token, idempotency_key=key)).outcome is RefreshOutcome.REUSE

    asyncio.run(scenario())


def test_a_store_that_lost_commits_is_healed_forward_to_one_successor(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        async with database.read() as connection:
            backup = dict((await connection.execute(select(logins))).mappings().one())
        token = token_of(opened)
        for _ in range(3):
            manual_clock.advance(WINDOW)
            token = token_of(await store.rotate(token))
        async with database.write() as connection:
            await connection.execute(update(logins).values(backup))
        answers = await many(50, lambda: store.rotate(token))
        assert len({a.refresh_token for a in answers}) == 1
        assert Counter(a.outcome for a in answers) == {"rotated": 1, "replayed": 49}
        assert answers[0].login.gen == 4
        assert await events(database) == ["login.opened", "login.healed"]

    asyncio.run(scenario())


def test_checking_a_token_spends_nothing(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        checked = await store.check(token_of(opened))
        assert (checked.outcome, checked.login) == (RefreshOutcome.CURRENT, opened.login)
        ahead = encode(ROOTS, ROOTS.active, opened.login.sid, 0, 5, b"?" * 32)
        token = decode(ahead, ROOTS)
        assert token is not None
        assert (await store.check(token)).outcome is RefreshOutcome.CURRENT
        assert await store.get(opened.login.sid) == opened.login
        assert await events(database) == ["login.opened"]

    asyncio.run(scenario())


def test_after_idle_expiry_50_parallel_upgrades_make_one_new_login(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        before = await store.open(new(manual_clock))
        manual_clock.advance(IDLE)
        assert (await store.rotate(token_of(before))).outcome is RefreshOutcome.EXPIRED
        assert not await store.any_live()
        opened = await many(50, lambda: store.open(new(manual_clock)))
        assert len({o.login.sid for o in opened} - {before.login.sid}) == 1
        assert len({o.refresh_token for o in opened}) == 1
        assert not await store.is_buried(DIGEST)
        assert await store.any_live()

    asyncio.run(scenario())


def test_a_refresh_moves_the_idle_end_and_never_the_absolute_one(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        token = token_of(
            await store.open(new(manual_clock, absolute_until=manual_clock.time() + 5_000))
        )
        manual_clock.advance(3_000)
        rotated = await store.rotate(token)
        assert rotated.login is not None
        assert rotated.login.idle_until == manual_clock.time() + IDLE
        manual_clock.advance(2_000)
        assert (await store.rotate(token_of(rotated))).outcome is RefreshOutcome.EXPIRED

    asyncio.run(scenario())


def test_an_upgrade_after_the_window_keys_the_family_anew_and_the_old_token_kills_nothing(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        first = await store.open(new(manual_clock))
        manual_clock.advance(WINDOW + 1)
        second = await store.open(new(manual_clock, auth_time=manual_clock.time()))
        assert (second.login.sid, second.is_new) == (first.login.sid, False)
        assert second.login.auth_time == first.login.auth_time
        assert (await store.rotate(token_of(first))).outcome is RefreshOutcome.SUPERSEDED
        assert (await store.rotate(token_of(second))).outcome is RefreshOutcome.ROTATED
        assert await events(database) == ["login.opened", "login.rekeyed"]

    asyncio.run(scenario())


def test_an_observed_log_in_lifts_the_tombstone_that_stops_an_upgrade(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        ended = await store.open(new(manual_clock))
        await store.end(ended.login.sid, why="logout", trigger="endpoint")
        with pytest.raises(NotIssued, match="tombstoned"):
            await store.open(new(manual_clock))
        opened = await store.open(new(manual_clock, grant="login", fresh=True))
        assert opened.is_new
        assert not await store.is_buried(DIGEST)
        assert (await announced(database))[-1] == (FeedKind.LIFT, DIGEST)

    asyncio.run(scenario())


def test_another_subject_on_the_session_is_refused_an_upgrade_but_not_a_log_in(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        ada = await store.open(new(manual_clock))
        with pytest.raises(NotIssued, match="conflict"):
            await store.open(new(manual_clock, identity=BOB))
        bob = await store.open(new(manual_clock, identity=BOB, grant="login", fresh=True))
        gone = await store.get(ada.login.sid)
        assert gone is not None
        assert gone.why == "superseded"
        assert bob.is_new
        assert not await store.is_buried(DIGEST)

    asyncio.run(scenario())


def test_an_observed_log_in_of_the_same_subject_keys_anew_with_its_own_auth_time(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        first = await store.open(new(manual_clock))
        manual_clock.advance(WINDOW + 1)
        now = manual_clock.time()
        again = new(manual_clock, grant="login", fresh=True, auth_time=now, amr=("hwk",))
        second = await store.open(again)
        assert second.login.sid == first.login.sid
        assert (second.login.auth_time, second.login.amr) == (now, ("hwk",))
        assert (await store.rotate(token_of(first))).outcome is RefreshOutcome.SUPERSEDED

    asyncio.run(scenario())


def test_a_log_in_supersedes_the_login_that_the_browser_presented(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        before = await store.open(new(manual_clock, identity=BOB, anchor_key="session-0"))
        await store.open(new(manual_clock, grant="login", fresh=True, supersedes=before.login.sid))
        gone = await store.get(before.login.sid)
        assert gone is not None
        assert gone.why == "superseded"
        assert await store.is_buried(anchor_digest("sql", "session-0"))
        assert await events(database) == ["login.opened", "login.ended", "login.opened"]

    asyncio.run(scenario())


def test_a_subject_has_at_most_50_live_logins(store: LoginStore, manual_clock: ManualClock) -> None:
    async def scenario() -> None:
        for number in range(50):
            await store.open(new(manual_clock, anchor_key=f"session-{number}"))
        with pytest.raises(NotIssued, match="cap"):
            await store.open(new(manual_clock, anchor_key="one too many"))
        assert not (await store.open(new(manual_clock))).is_new
        await store.open(new(manual_clock, identity=BOB, anchor_key="another's"))
        assert len(await store.live("acme", "ada")) == 50

    asyncio.run(scenario())


@pytest.mark.parametrize("subject", ["a\0b", "a\ud800b"])
def test_a_subject_that_no_database_can_hold_is_refused(
    store: LoginStore, manual_clock: ManualClock, subject: str
) -> None:
    async def scenario() -> None:
        with pytest.raises(NotIssued, match="identity"):
            await store.open(new(manual_clock, identity=Identity(subject=subject)))

    asyncio.run(scenario())


def test_a_log_out_ends_both_worlds_once(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        sid = opened.login.sid
        ends = await many(20, lambda: store.end(sid, why="logout", trigger="endpoint"))
        assert {login.why for login in ends} == {"logout"}
        assert await store.end(b"?" * 16, why="logout", trigger="endpoint") is None
        assert (await store.rotate(token_of(opened))).outcome is RefreshOutcome.ENDED
        assert await events(database) == ["login.opened", "login.ended"]
        assert await announced(database) == [("tombstone", DIGEST), ("login", sid)]

    asyncio.run(scenario())


def test_the_record_is_deleted_now_and_again_after_a_minute(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        await store.end(opened.login.sid, why="logout", trigger="endpoint")
        [item] = await store.due_outbox(10)
        assert (item.action, item.reader, item.key) == ("delete", "sql", "session-1")
        await store.failed(item.id)
        assert await store.due_outbox(10) == []
        manual_clock.advance(60)
        due = await store.due_outbox(10)
        assert [(i.key, i.attempts) for i in due] == [("session-1", 1), ("session-1", 0)]
        await store.done([i.id for i in due])
        async with database.read() as connection:
            assert (
                await connection.execute(select(func.count()).select_from(outbox))
            ).scalar() == 0

    asyncio.run(scenario())


def test_a_deletion_under_a_root_that_is_gone_does_not_block_the_others(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        await store.end(opened.login.sid, why="logout", trigger="endpoint")
        assert await store_on(database, RootSecrets([NEW])).due_outbox(10) == []
        assert await store.due_outbox(10) == []

    asyncio.run(scenario())


def test_a_legacy_log_out_buries_the_session_and_ends_the_login_that_owns_it(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        named: dict[str, Any] = {"reader": "sql", "why": "logout", "trigger": "observed"}
        ended = await store.end_anchor("acme", DIGEST, key="session-1", **named)
        assert ended is not None
        assert (ended.sid, ended.why) == (opened.login.sid, "logout")
        lone = anchor_digest("sql", "session-2")
        assert await store.end_anchor("acme", lone, key="session-2", **named) is None
        assert await store.is_buried(DIGEST)
        assert await store.is_buried(lone)
        assert await events(database) == ["login.opened", "login.ended", "session.ended"]

    asyncio.run(scenario())


def test_a_log_out_that_races_upgrades_leaves_no_live_login(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        async def upgrade() -> None:
            try:
                await store.open(new(manual_clock))
            except NotIssued as refused:
                assert refused.why == "tombstoned"  # noqa: PT017 - both outcomes are right

        async def log_out() -> None:
            await store.end_anchor(
                "acme", DIGEST, key=None, reader="sql", why="logout", trigger="observed"
            )

        for _ in range(20):
            await asyncio.gather(upgrade(), upgrade(), log_out(), upgrade(), upgrade())
            assert not await store.any_live()
            await store.lift(DIGEST)

    asyncio.run(scenario())


def test_log_out_everywhere_spares_one_and_voids_every_older_log_in(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        kept = await store.open(new(manual_clock))
        gone = await store.open(new(manual_clock, anchor_key="session-2"))
        bob = await store.open(new(manual_clock, identity=BOB, anchor_key="session-3"))
        manual_clock.advance(5)
        ended = await store.end_all(
            "acme", "ada", except_sid=kept.login.sid, why="password", trigger="endpoint"
        )
        assert ended == 1
        assert (await store.rotate(token_of(gone))).outcome is RefreshOutcome.ENDED
        assert (await store.rotate(token_of(kept))).outcome is RefreshOutcome.ROTATED
        assert (await store.rotate(token_of(bob))).outcome is RefreshOutcome.ROTATED
        with pytest.raises(NotIssued, match="not_before"):
            await store.open(new(manual_clock, anchor_key="session-4"))
        assert (await events(database))[-2:] == ["subject.ended", "login.ended"]

    asyncio.run(scenario())


def test_the_changers_own_new_log_in_lives_though_its_clock_lags(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        await store.end_all("acme", "ada", why="password", trigger="endpoint")
        late = new(manual_clock, grant="login", fresh=True, auth_time=manual_clock.time() - 0.7)
        opened = await store.open(late)
        assert opened.login.auth_time > manual_clock.time()
        assert (await store.rotate(token_of(opened))).outcome is RefreshOutcome.ROTATED

    asyncio.run(scenario())


def test_a_not_before_holds_inside_the_refresh_even_if_the_row_was_never_closed(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        await store.end_all("acme", "ada", why="password", trigger="endpoint")
        async with database.write() as connection:
            await connection.execute(update(logins).values(ended_at=None, why=None))
        assert (await store.rotate(token_of(opened))).outcome is RefreshOutcome.ENDED
        assert await store.by_anchor("acme", DIGEST) is None
        assert await store.live("acme", "ada") == []

    asyncio.run(scenario())


def test_a_login_is_bound_to_the_session_of_whoever_comes_first(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock))
        sid, until = opened.login.sid, manual_clock.time() + 900
        keys = iter(range(20))

        async def bind() -> bool:
            key = f"session-2-{next(keys)}"
            return await store.rebind(sid, DIGEST, reader="sql", key=key, until=until)

        assert Counter(await many(20, bind)) == {True: 1, False: 19}
        login = await store.get(sid)
        assert login is not None
        assert login.anchor == anchor_digest("sql", login.anchor_key or "")
        assert login.anchor_until == until
        assert await announced(database) == [("tombstone", DIGEST), ("anchor", sid)]
        assert [item.key for item in await store.due_outbox(9)] == ["session-1"]
        assert (await store.rotate(token_of(opened))).outcome is RefreshOutcome.ROTATED

    asyncio.run(scenario())


def test_a_login_is_not_bound_to_a_buried_or_foreign_session_nor_after_its_end(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        sid = (await store.open(new(manual_clock))).login.sid
        await store.open(new(manual_clock, anchor_key="taken", identity=BOB))
        await store.bury(anchor_digest("sql", "buried"))

        async def bind(key: str) -> bool:
            return await store.rebind(sid, DIGEST, reader="sql", key=key, until=None)

        assert not await bind("buried")
        assert not await bind("taken")
        await store.end(sid, why="logout", trigger="endpoint")
        assert not await bind("free")

    asyncio.run(scenario())


def test_a_session_re_made_after_it_lapsed_is_bound_without_burying_the_old(
    store: LoginStore, database: Database, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        sid = (await store.open(new(manual_clock))).login.sid
        bound = await store.rebind(
            sid, DIGEST, reader="sql", key="again", until=None, bury_old=False
        )
        assert bound
        assert await announced(database) == [("anchor", sid)]
        assert not await store.is_buried(DIGEST)

    asyncio.run(scenario())


def test_an_anchor_that_was_seen_moves_its_deadline_in_the_row(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        sid = (await store.open(new(manual_clock))).login.sid
        manual_clock.advance(100)
        await store.anchor_seen(sid, DIGEST, until=5.0)
        await store.anchor_seen(sid, b"?" * 32, until=6.0)
        login = await store.get(sid)
        assert login is not None
        assert (login.anchor_until, login.anchor_seen_at) == (5.0, manual_clock.time())

    asyncio.run(scenario())


def test_a_login_without_an_anchor_can_be_opened_refreshed_and_ended(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        opened = await store.open(new(manual_clock, anchor_key=None, client="mobile"))
        assert opened.login.anchor is None
        assert (await store.rotate(token_of(opened))).outcome is RefreshOutcome.ROTATED
        await store.end(opened.login.sid, why="logout", trigger="endpoint")
        assert await store.due_outbox(10) == []

    asyncio.run(scenario())


def test_a_tombstone_stands_until_the_sessions_own_end(
    store: LoginStore, manual_clock: ManualClock
) -> None:
    async def scenario() -> None:
        await store.bury(DIGEST, manual_clock.time() + 5_000)
        await store.bury(DIGEST, manual_clock.time() + 1_000)
        manual_clock.advance(4_999)
        assert await store.is_buried(DIGEST)
        manual_clock.advance(1)
        assert not await store.is_buried(DIGEST)

    asyncio.run(scenario())
