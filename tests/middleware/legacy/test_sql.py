"""The reader against real tables on SQLite and PostgreSQL, as different applications make them."""

import asyncio
import hashlib
import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from crossfade.errors import ConfigurationError, StoreUnavailable
from crossfade.legacy.base import LegacySession, SessionState
from crossfade.legacy.sql import SqlTableSessions
from crossfade.principal import Identity
from crossfade.settings import IdentitySettings, LegacySettings, Seconds, SqlTableSettings
from crossfade.stores.engine import Database

NOW = 1_800_000_000.0
KEY = "a-session-id-of-43-characters-drawn-by-the-app"
IDENTITY = Identity(subject="u1")
TABLE = """CREATE TABLE shop_sessions (
    id VARCHAR(64) PRIMARY KEY, user_id TEXT, data TEXT,
    created_at DOUBLE PRECISION, last_seen DOUBLE PRECISION, expires_at DOUBLE PRECISION)"""


class Shop:
    """A legacy table, and the reader that the settings make for it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def run(self, *statements: str, **values: object) -> list[dict[str, Any]]:
        async def scenario() -> list[dict[str, Any]]:
            async with self.database.write() as connection:
                for statement in statements:
                    result = await connection.execute(text(statement), values)
                return [dict(row) for row in result.mappings()] if result.returns_rows else []

        return asyncio.run(self._closing(scenario()))

    def insert(self, key: str = KEY, **values: Any) -> None:
        row = {
            "id": key,
            "user_id": "u1",
            "data": "{}",
            "created_at": NOW,
            "last_seen": NOW,
        } | values
        names = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        self.run(f"INSERT INTO shop_sessions ({names}) VALUES ({places})", **row)

    def rows(self) -> list[dict[str, Any]]:
        return self.run("SELECT * FROM shop_sessions")

    def sessions(self, identity: IdentitySettings | None = None, **own: Any) -> SqlTableSessions:
        columns = {"user": "user_id", "created": "created_at", "seen": "last_seen"} | own
        settings = SqlTableSettings(url="", table="shop_sessions", **columns)
        legacy = LegacySettings(
            framework="sql", sql=settings, identity=identity or IdentitySettings(), cookie="sid"
        )
        return SqlTableSessions(legacy, self.database)

    def read(self, now: float = NOW, key: str = KEY, **own: Any) -> LegacySession:
        return self.do(self.sessions(**own).read_key(key, now))

    def create(self, key: str | None = None, **own: Any) -> Any:
        sessions = self.sessions(**own)
        return self.do(sessions.create(IDENTITY, {}, deadline=NOW + 600, now=NOW, key=key))

    def do(self, work: Any) -> Any:
        return asyncio.run(self._closing(work))

    async def _closing(self, work: Any) -> Any:
        try:
            return await work
        finally:
            await self.database.close()


UNOPENED = Shop(Database("sqlite:///unopened.db"))


@pytest.fixture
def empty(database_url: str) -> Shop:
    return Shop(Database(database_url, timeout=30, backend="sessions"))


@pytest.fixture
def shop(empty: Shop) -> Shop:
    empty.run(TABLE)
    return empty


def test_a_row_is_a_session(shop: Shop) -> None:
    shop.insert(data='{"cart": [1, 2], "at": 1799999990}')
    session = shop.read(
        identity=IdentitySettings(auth_time="at"), idle=Seconds(60), absolute=Seconds(90)
    )
    assert session == LegacySession(
        state=SessionState.OK,
        identity=IDENTITY,
        key=KEY,
        auth_time=NOW - 10,
        created_at=NOW,
        deadline=NOW + 60,
        absolute_deadline=NOW + 90,
        data={"cart": [1, 2], "at": 1799999990},
    )


def test_a_row_without_user_is_anonymous_whatever_its_data_say(shop: Shop) -> None:
    shop.insert(user_id=None, data='{"user_id": "u2", "cart": [1]}')
    session = shop.read()
    assert (session.state, session.identity) == (SessionState.ANONYMOUS, None)
    assert session.data["cart"] == [1]


def test_without_a_user_column_the_data_say_who_it_is(shop: Shop) -> None:
    shop.insert(user_id="u1", data='{"account": {"id": 7}}')
    session = shop.read(user=None, identity=IdentitySettings(user="account.id"))
    assert session.identity == Identity(subject="7")


def test_a_pending_second_factor_is_partial(shop: Shop) -> None:
    shop.insert(user_id=None, data='{"pending_user": "u1"}')
    session = shop.read(identity=IdentitySettings(partial=("pending_user",)))
    assert session.state is SessionState.PARTIAL


def test_an_unknown_id_is_gone(shop: Shop) -> None:
    assert shop.read().state is SessionState.GONE


@pytest.mark.parametrize(
    ("age", "state"), [(59.9, SessionState.OK), (60.0, SessionState.GONE)], ids=["before", "at"]
)
@pytest.mark.parametrize(
    ("rule", "times"),
    [
        ({"idle": Seconds(60)}, {"created_at": NOW - 1000}),
        ({"absolute": Seconds(60)}, {"last_seen": NOW + 1000}),
        ({"expires": "expires_at"}, {"expires_at": NOW + 60}),
    ],
    ids=["idle", "absolute", "fixed"],
)
def test_a_session_is_gone_at_each_of_its_ends(
    shop: Shop, rule: dict[str, Any], times: dict[str, float], age: float, state: SessionState
) -> None:
    shop.insert(**times)
    assert shop.read(NOW + age, **rule).state is state


def test_an_end_that_is_null_is_never(shop: Shop) -> None:
    shop.insert()
    session = shop.read(NOW * 2, expires="expires_at")
    assert (session.state, session.deadline) == (SessionState.OK, None)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"data": "{"}, "the data is not JSON: JSONDecodeError"),
        ({"data": "[1]"}, "the data is not a JSON object"),
        ({"data": '{"a": "' + "x" * (1 << 20) + '"}'}, "the data is larger than 1 MiB"),
        ({"last_seen": None}, "no time can be read in last_seen"),
        ({"last_seen": NOW * 1000}, "no time can be read in last_seen"),
        ({"expires_at": -5}, "no time can be read in expires_at"),
    ],
    ids=["no JSON", "a list", "huge", "undated", "milliseconds", "before time"],
)
def test_a_row_that_is_no_session_is_gone_and_says_why(
    shop: Shop, values: dict[str, Any], why: str
) -> None:
    shop.insert(**values)
    session = shop.read(idle=Seconds(60), expires="expires_at")
    assert (session.state, session.identity, session.why) == (SessionState.GONE, None, why)


def test_a_table_of_hashes_is_searched_by_the_hash(shop: Shop) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    shop.insert(key=digest)
    assert shop.read(key_form="sha256").key == KEY
    assert shop.read(key_form="sha256", key=digest).state is SessionState.GONE


def test_pinning_moves_the_idle_end_forward(shop: Shop) -> None:
    shop.insert()
    pinned = shop.do(shop.sessions(idle=Seconds(60)).pin(KEY, NOW + 500, NOW))
    assert (pinned.state, pinned.deadline) == (SessionState.OK, NOW + 500)
    assert shop.read(NOW + 499, idle=Seconds(60)).state is SessionState.OK


def test_pinning_never_moves_it_backward(shop: Shop) -> None:
    shop.insert(last_seen=NOW + 1000)
    pinned = shop.do(shop.sessions(idle=Seconds(60)).pin(KEY, NOW + 500, NOW))
    assert pinned.deadline == NOW + 1060
    assert shop.rows()[0]["last_seen"] == NOW + 1000


def test_pinning_stops_at_the_absolute_end(shop: Shop) -> None:
    shop.insert(expires_at=NOW + 80)
    rules = {"idle": Seconds(60), "absolute": Seconds(90)}
    pinned = shop.do(shop.sessions(**rules).pin(KEY, NOW + 500, NOW))
    assert (pinned.deadline, pinned.absolute_deadline) == (NOW + 90, NOW + 90)
    assert shop.rows()[0]["last_seen"] == NOW + 30
    fixed = shop.do(shop.sessions(**rules, expires="expires_at").pin(KEY, NOW + 500, NOW))
    assert fixed.deadline == NOW + 80


@pytest.mark.parametrize("last_seen", [None, NOW - 61], ids=["absent", "lapsed"])
def test_pinning_revives_nothing(shop: Shop, last_seen: float | None) -> None:
    if last_seen is not None:
        shop.insert(last_seen=last_seen)
    pinned = shop.do(shop.sessions(idle=Seconds(60)).pin(KEY, NOW + 500, NOW))
    assert pinned.state is SessionState.GONE
    assert [row["last_seen"] for row in shop.rows()] == ([] if last_seen is None else [last_seen])


def test_pinning_changes_nothing_where_no_idle_end_is_kept(shop: Shop) -> None:
    shop.insert()
    before = shop.rows()
    assert shop.do(shop.sessions().pin(KEY, NOW + 500, NOW)).state is SessionState.OK
    assert shop.rows() == before


def test_a_pin_loses_no_touch_of_the_application(shop: Shop) -> None:
    shop.insert()

    async def scenario() -> None:
        sessions = shop.sessions(idle=Seconds(60))
        touch = text("UPDATE shop_sessions SET last_seen = :at WHERE last_seen < :at")

        async def application(at: float) -> None:
            async with shop.database.write() as connection:
                await connection.execute(touch, {"at": at})

        moves = [sessions.pin(KEY, NOW + 60 + n, NOW) for n in range(10)]
        touches = [application(NOW + 20 + n) for n in range(10)]
        await asyncio.gather(*moves, *touches)

    shop.do(scenario())
    assert shop.rows()[0]["last_seen"] == NOW + 29


def test_deleting_deletes_one_row_and_forgives_an_absent_one(shop: Shop) -> None:
    shop.insert()
    shop.insert("the-id-of-another-session")
    shop.do(shop.sessions().delete(KEY))
    shop.do(shop.sessions().delete(KEY))
    assert [row["id"] for row in shop.rows()] == ["the-id-of-another-session"]


def test_a_made_session_reads_as_the_one_that_was_asked_for(shop: Shop) -> None:
    rules = {"idle": Seconds(60), "absolute": Seconds(3600)}
    made = shop.create(**rules)
    session = shop.read(key=made.key, **rules)
    assert (session.state, session.identity) == (SessionState.OK, IDENTITY)
    assert made.cookie_value == made.key == shop.rows()[0]["id"]
    assert made.deadline == session.deadline == NOW + 60
    assert json.loads(shop.rows()[0]["data"]) == {}


@pytest.mark.parametrize(
    "rules",
    [
        {"idle": Seconds(3600)},
        {"absolute": Seconds(3600)},
        {"expires": "expires_at"},
        {"idle": Seconds(3600), "absolute": Seconds(7200), "expires": "expires_at"},
    ],
    ids=["idle", "absolute", "fixed", "all"],
)
def test_a_made_session_ends_by_its_deadline(shop: Shop, rules: dict[str, Any]) -> None:
    made = shop.create(**rules)
    assert made.deadline == NOW + 600
    assert shop.read(NOW + 599, key=made.key, **rules).state is SessionState.OK
    assert shop.read(NOW + 600, key=made.key, **rules).state is SessionState.GONE


def test_a_made_session_carries_data_and_user_by_path(shop: Shop) -> None:
    identity = IdentitySettings(user="account.id", user_form="integer", auth_time="at")
    sessions = shop.sessions(identity=identity, user=None)
    work = sessions.create(
        Identity(subject="7"), {"cart": ["é"]}, deadline=NOW + 600, now=NOW, auth_time=NOW - 5
    )
    made = shop.do(work)
    row = json.loads(shop.rows()[0]["data"])
    assert row == {"cart": ["é"], "account": {"id": 7}, "at": NOW - 5}
    assert shop.read(key=made.key, user=None, identity=identity).auth_time == NOW - 5


def test_an_anonymous_session_under_a_chosen_id_replaces_its_predecessor(shop: Shop) -> None:
    for _ in range(2):
        sessions = shop.sessions()
        shop.do(sessions.create(None, {}, deadline=NOW + 600, now=NOW, key=KEY))
    assert shop.read().state is SessionState.ANONYMOUS
    assert len(shop.rows()) == 1


def test_each_made_session_has_an_id_of_its_own_that_a_cookie_can_carry(shop: Shop) -> None:
    keys = {shop.create().key for _ in range(3)}
    assert len(keys) == 3
    sessions = shop.sessions()
    assert all(sessions.pick({b"sid": [key.encode()]}) for key in keys)
    assert all(sessions.cookie_value(key) == key for key in keys)


@pytest.mark.parametrize(
    ("sample", "shape"),
    [("00000000-0000-4000-8000-00000000abcd", 36), ("0123456789abcdef" * 2, 32), (KEY, 43)],
    ids=["uuid", "hex", "text"],
)
def test_a_made_id_has_the_shape_of_the_others(shop: Shop, sample: str, shape: int) -> None:
    shop.insert("0-the-id-of-a-sentinel", user_id=None)
    shop.insert(sample)
    made = shop.create()
    assert len(made.key) == shape
    assert shop.read(key=made.key).state is SessionState.OK


def test_a_user_of_a_number_column_is_a_number_there(empty: Shop) -> None:
    empty.run(TABLE.replace("user_id TEXT", "user_id BIGINT"))
    sessions = empty.sessions()
    made = empty.do(sessions.create(Identity(subject="7"), {}, deadline=NOW + 9, now=NOW))
    assert empty.rows()[0]["user_id"] == 7
    assert empty.read(key=made.key).identity == Identity(subject="7")


@pytest.mark.parametrize("form", ["2027-01-15T08:00:00", "2027-01-15T08:00:00+00:00"])
def test_times_as_text_are_pinned_and_made_in_the_applications_own_form(
    empty: Shop, form: str
) -> None:
    empty.run(TABLE.replace("DOUBLE PRECISION", "TEXT"))
    empty.insert(created_at=form, last_seen=form)
    rules = {"times": "iso", "idle": Seconds(60)}
    assert empty.read(**rules).deadline == NOW + 60
    assert empty.do(empty.sessions(**rules).pin(KEY, NOW + 90, NOW)).deadline == NOW + 90
    made = empty.create(**rules)
    assert empty.read(key=made.key, **rules).deadline == NOW + 60
    assert {len(row["last_seen"]) for row in empty.rows()} == {len(form) + 7}


@pytest.mark.parametrize("zone", ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE"])
@pytest.mark.parametrize("has_sample", [True, False])
def test_timestamps_are_read_pinned_and_made(empty: Shop, zone: str, has_sample: bool) -> None:
    empty.run(TABLE.replace("DOUBLE PRECISION", zone))
    rules = {"times": "timestamp", "idle": Seconds(60)}
    if has_sample:
        moment: Any = datetime.fromisoformat("2027-01-15 08:00:00" + "+00:00" * ("ZONE" in zone))
        moment = moment if empty.database.dialect == "postgresql" else str(moment)
        empty.insert(created_at=moment, last_seen=moment)
        assert empty.read(**rules).deadline == NOW + 60
    made = empty.create(**rules)
    assert empty.read(key=made.key, **rules).deadline == NOW + 60
    assert empty.do(empty.sessions(**rules).pin(made.key, NOW + 90, NOW)).deadline == NOW + 90


def test_postgresqls_own_types_of_ids_and_json_are_read_and_written(postgresql_url: str) -> None:
    shop = Shop(Database(postgresql_url, timeout=30, backend="sessions"))
    types = TABLE.replace("id VARCHAR(64)", "id UUID").replace("user_id TEXT", "user_id UUID")
    shop.run(types.replace("data TEXT", "data JSONB"))
    key, user = UUID(int=5), UUID(int=7)
    shop.insert(user_id=user, id=key)
    made = shop.do(
        shop.sessions().create(Identity(subject=str(user)), {"a": [1]}, deadline=NOW + 9, now=NOW)
    )
    session = shop.read(key=made.key)
    assert (session.identity, session.data) == (Identity(subject=str(user)), {"a": [1]})
    assert shop.read(key="an-id-that-is-no-uuid").state is SessionState.GONE
    assert shop.do(shop.sessions().pin("an-id-that-is-no-uuid", 1, 1)).state is SessionState.GONE
    shop.do(shop.sessions().delete("an-id-that-is-no-uuid"))


def test_a_name_with_a_schema_is_found(postgresql_url: str) -> None:
    shop = Shop(Database(postgresql_url, timeout=30, backend="sessions"))
    shop.run("CREATE SCHEMA web", TABLE.replace("shop_sessions", "web.shop_sessions"))
    settings = SqlTableSettings(url="", table="web.shop_sessions", user="user_id")
    sessions = SqlTableSessions(LegacySettings(framework="sql", sql=settings), shop.database)
    made = shop.do(sessions.create(IDENTITY, {}, deadline=NOW + 9, now=NOW))
    assert shop.do(sessions.read_key(made.key, NOW)).identity == IDENTITY


@pytest.mark.parametrize("broken", [{"user": "no_such"}, {"data": "no_such"}, {"seen": "no_such"}])
def test_a_column_that_is_not_there_is_our_fault_and_nobodys_name(
    shop: Shop, broken: dict[str, str]
) -> None:
    shop.insert()
    with pytest.raises(StoreUnavailable) as caught:
        shop.read(**broken)
    assert caught.value.backend == "sessions"


def test_a_table_with_rules_that_a_row_of_ours_breaks_is_unavailable(empty: Shop) -> None:
    empty.run(TABLE.replace("data TEXT", "data TEXT, address TEXT NOT NULL"))
    with pytest.raises(StoreUnavailable, match="refuses a row"):
        empty.create()


def test_a_store_that_is_locked_is_unavailable_and_the_row_as_it_was(tmp_path: Path) -> None:
    shop = Shop(Database(f"sqlite:///{tmp_path}/shop.db", timeout=0.2, backend="sessions"))
    shop.run(TABLE)
    shop.insert()
    other = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        shop.do(shop.sessions(idle=Seconds(60)).pin(KEY, NOW + 500, NOW))
    other.close()
    assert shop.rows()[0]["last_seen"] == NOW


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (KEY.encode(), KEY),
        (b'"' + KEY.encode() + b'"', KEY),
        (b"", None),
        (b"short", None),
        (b"x" * 257, None),
        (b"with spaces in it", None),
        (b"with;semicolon", None),
        (b'with"quote\\inside', None),
        ("mit-Umlauten-ä".encode(), None),
        (b"with\0control", None),
    ],
    ids=repr,
)
def test_an_id_of_impossible_shape_is_absent(value: bytes, key: str | None) -> None:
    presented = UNOPENED.sessions().pick({b"sid": [value]})
    assert (presented and presented.key) == key


@pytest.mark.parametrize(("twin", "chosen"), [("first", "the-first-id"), ("last", "the-last-id")])
def test_of_twins_the_one_is_read_that_the_application_reads(twin: str, chosen: str) -> None:
    presented = UNOPENED.sessions(twin=twin).pick({b"sid": [b"the-first-id", b"the-last-id"]})
    assert presented is not None
    assert (presented.key, presented.has_twin) == (chosen, True)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"table": 'x"; DROP TABLE y'}, r"legacy\.sql\.table"),
        ({"table": ""}, r"legacy\.sql\.table"),
        ({"user": "user id"}, r"legacy\.sql\.user"),
        ({"idle": Seconds(5), "seen": None}, r"legacy\.sql\.idle.*legacy\.sql\.seen"),
        ({"absolute": Seconds(5), "created": None}, r"legacy\.sql\.absolute.*legacy\.sql\.created"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(own: dict[str, Any], words: str) -> None:
    settings = SqlTableSettings(url="", **({"table": "t", "user": "u", "seen": "s"} | own))
    with pytest.raises(ConfigurationError, match=words):
        SqlTableSessions(LegacySettings(framework="sql", sql=settings), UNOPENED.database)


def test_a_row_is_the_session_so_nothing_is_peeked_or_marked() -> None:
    sessions = UNOPENED.sessions()
    assert sessions.peek({"session": {"user_id": "u1"}}, KEY, NOW) is None
    assert sessions.mark(KEY, "marker", NOW) is None
