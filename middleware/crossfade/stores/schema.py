"""The tables. Migrations in the operator's part build exactly these; a test compares them.

All names begin with `crossfade_`, so that the tables may share a database with the application's
own. Columns that end in `_at` or `_until` hold POSIX seconds of the database's clock. A null sorts
as "never".
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

HEAD_REVISION = "0001"
"""The Alembic revision that this version of the library needs."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Integer keys that count up by themselves: SQLite does that for INTEGER only.
_Serial = BigInteger().with_variant(Integer, "sqlite")

logins = Table(
    "crossfade_logins",
    metadata,
    Column("sid", LargeBinary(16), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("client", String(16), nullable=False),
    Column("client_id", Text, nullable=False),
    # The refresh family, constructions of ADR 0006: one live successor per (epoch, gen).
    Column("epoch", Integer, nullable=False),
    Column("gen", Integer, nullable=False),
    Column("kv", SmallInteger, nullable=False),
    Column("seed", LargeBinary(16), nullable=False),
    Column("cur", LargeBinary(32), nullable=False),
    Column("prev", LargeBinary(32)),
    Column("idem", LargeBinary(32)),
    Column("replays", Integer, nullable=False),
    Column("rotated_at", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("auth_time", Double, nullable=False),
    Column("amr", Text, nullable=False, server_default=""),
    Column("idle_until", Double, nullable=False),
    Column("absolute_until", Double, nullable=False),
    # The legacy session it grew from: a digest to find it by, the key itself encrypted.
    Column("anchor", LargeBinary(32)),
    Column("anchor_enc", LargeBinary),
    Column("anchor_until", Double),
    Column("anchor_seen_at", Double),
    Column("ended_at", Double),
    Column("why", String(32)),
    Index(
        "uq_crossfade_logins_live_anchor",
        "tenant",
        "anchor",
        unique=True,
        sqlite_where=text("ended_at IS NULL AND anchor IS NOT NULL"),
        postgresql_where=text("ended_at IS NULL AND anchor IS NOT NULL"),
    ),
    Index("ix_crossfade_logins_subject", "tenant", "subject"),
    Index("ix_crossfade_logins_ended_at", "ended_at"),
    Index("ix_crossfade_logins_absolute_until", "absolute_until"),
)

login_devices = Table(
    "crossfade_login_devices",
    metadata,
    # Personal data apart, so that it can go before the login row does.
    Column("sid", LargeBinary(16), ForeignKey(logins.c.sid, ondelete="CASCADE"), primary_key=True),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("recorded_at", Double, nullable=False, index=True),
)

tombstones = Table(
    "crossfade_tombstones",
    metadata,
    # "This id must not be ok", not "this id is dead": an observed log-in lifts it.
    Column("anchor", LargeBinary(32), primary_key=True),
    Column("buried_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
)

not_before = Table(
    "crossfade_not_before",
    metadata,
    # Logins of the subject with auth_time <= at are void, save the one named.
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("at", Double, nullable=False),
    Column("except_sid", LargeBinary(16)),
    Column("expires_at", Double, nullable=False, index=True),
)

feed_head = Table(
    "crossfade_feed_head",
    metadata,
    # Updated as the last statement before each commit: its row lock makes commit order = seq order.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("epoch", String(36), nullable=False),
)

feed = Table(
    "crossfade_feed",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
)

keys = Table(
    "crossfade_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("algorithm", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("public_jwk", Text, nullable=False),
    Column("private_enc", LargeBinary),
    Column("created_at", Double, nullable=False),
    Column("activated_at", Double),
    Column("retiring_at", Double),
    Column("retired_at", Double),
)

rollout_head = Table(
    "crossfade_rollout_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
)

rollout_revisions = Table(
    "crossfade_rollout_revisions",
    metadata,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
    Column("verb", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("actor_kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("previous_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
)

instances = Table(
    "crossfade_instances",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", String(36), nullable=False),
    Column("version", String(32), nullable=False),
    Column("joined_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False, index=True),
    Column("left_at", Double),
    Column("revision", Integer, nullable=False),
    Column("document_sha256", String(64), nullable=False),
    Column("acked_at", Double, nullable=False),
    Column("kids", Text, nullable=False),
    Column("clock_offset", Double, nullable=False),
    # What this process last found when it verified the canary token: null until it tried.
    Column("canary_ok", Boolean),
    Column("canary_at", Double),
    Column("canary_why", Text),
)

canary = Table(
    "crossfade_canary",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
    Column("minted_at", Double, nullable=False),
)

gate_subjects = Table(
    "crossfade_gate_subjects",
    metadata,
    # One row a subject and stage: gates count people, not requests.
    Column("stage_revision", Integer, primary_key=True),
    Column("client", String(16), primary_key=True),
    Column("subject", LargeBinary(16), primary_key=True),
    Column("arm", String(8), nullable=False),
    Column("network", LargeBinary(8), nullable=False),
    Column("first_seen_at", Double, nullable=False),
    Column("first_failure_at", Double),
    Index("ix_crossfade_gate_subjects_failure", "stage_revision", "first_failure_at"),
)

sentinels = Table(
    "crossfade_sentinels",
    metadata,
    # A record of ours in the session store: if it is gone, the store lost data and nobody logged
    # out.
    Column("reader", String(32), primary_key=True),
    Column("born_at", Double, nullable=False),
    Column("lives_until", Double, nullable=False),
)

outbox = Table(
    "crossfade_outbox",
    metadata,
    # What must still happen in the session store after our own commit.
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("action", String(16), nullable=False),
    Column("payload_enc", LargeBinary, nullable=False),
    Column("due_at", Double, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
)

audit = Table(
    "crossfade_audit",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False, index=True),
    Column("event", String(48), nullable=False),
    Column("subject_hash", LargeBinary(16)),
    Column("sid_hash", LargeBinary(16)),
    Column("client", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

audit_personal = Table(
    "crossfade_audit_personal",
    metadata,
    # Erasable without touching the audit row it belongs to.
    Column("audit_id", _Serial, ForeignKey(audit.c.id, ondelete="CASCADE"), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("subject", Text, nullable=False, index=True),
)

leases = Table(
    "crossfade_leases",
    metadata,
    # Which instance does the house-keeping (outbox, canary, pruning) of the fleet.
    Column("name", String(32), primary_key=True),
    Column("holder", String(36), nullable=False),
    Column("until", Double, nullable=False),
)
