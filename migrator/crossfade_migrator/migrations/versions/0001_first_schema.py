"""The first schema: logins, feed, keys, rollout, instances, gates, outbox and audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    _logins()
    _voided()
    _feed_and_keys()
    _rollout()
    _gates_and_canary()
    _housekeeping()
    _audit()


def downgrade() -> None:
    """Drop all tables, the newest reference first. Logs every token user out."""
    for table in reversed(_TABLES):
        op.drop_table(table)


def _logins() -> None:
    op.create_table(
        "crossfade_logins",
        sa.Column("sid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("client", sa.String(length=16), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("gen", sa.Integer(), nullable=False),
        sa.Column("kv", sa.SmallInteger(), nullable=False),
        sa.Column("seed", sa.LargeBinary(length=16), nullable=False),
        sa.Column("cur", sa.LargeBinary(length=32), nullable=False),
        sa.Column("prev", sa.LargeBinary(length=32)),
        sa.Column("idem", sa.LargeBinary(length=32)),
        sa.Column("replays", sa.Integer(), nullable=False),
        sa.Column("rotated_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("auth_time", sa.Double(), nullable=False),
        sa.Column("amr", sa.Text(), server_default="", nullable=False),
        sa.Column("idle_until", sa.Double(), nullable=False),
        sa.Column("absolute_until", sa.Double(), nullable=False),
        sa.Column("anchor", sa.LargeBinary(length=32)),
        sa.Column("anchor_enc", sa.LargeBinary()),
        sa.Column("anchor_until", sa.Double()),
        sa.Column("anchor_seen_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.Column("why", sa.String(length=32)),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_crossfade_logins")),
    )
    op.create_index("ix_crossfade_logins_absolute_until", "crossfade_logins", ["absolute_until"])
    op.create_index("ix_crossfade_logins_ended_at", "crossfade_logins", ["ended_at"])
    op.create_index("ix_crossfade_logins_subject", "crossfade_logins", ["tenant", "subject"])
    op.create_index(
        "uq_crossfade_logins_live_anchor",
        "crossfade_logins",
        ["tenant", "anchor"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL AND anchor IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NULL AND anchor IS NOT NULL"),
    )
    op.create_table(
        "crossfade_login_devices",
        sa.Column("sid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sid"],
            ["crossfade_logins.sid"],
            name=op.f("fk_crossfade_login_devices_sid"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_crossfade_login_devices")),
    )
    op.create_index(
        op.f("ix_crossfade_login_devices_recorded_at"), "crossfade_login_devices", ["recorded_at"]
    )


def _voided() -> None:
    op.create_table(
        "crossfade_tombstones",
        sa.Column("anchor", sa.LargeBinary(length=32), nullable=False),
        sa.Column("buried_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("anchor", name=op.f("pk_crossfade_tombstones")),
    )
    op.create_index(
        op.f("ix_crossfade_tombstones_expires_at"), "crossfade_tombstones", ["expires_at"]
    )
    op.create_table(
        "crossfade_not_before",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("except_sid", sa.LargeBinary(length=16)),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "subject", name=op.f("pk_crossfade_not_before")),
    )
    op.create_index(
        op.f("ix_crossfade_not_before_expires_at"), "crossfade_not_before", ["expires_at"]
    )


def _feed_and_keys() -> None:
    op.create_table(
        "crossfade_feed_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crossfade_feed_head")),
    )
    op.create_table(
        "crossfade_feed",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_crossfade_feed")),
    )
    op.create_index(op.f("ix_crossfade_feed_expires_at"), "crossfade_feed", ["expires_at"])
    op.create_table(
        "crossfade_keys",
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("algorithm", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("public_jwk", sa.Text(), nullable=False),
        sa.Column("private_enc", sa.LargeBinary()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("activated_at", sa.Double()),
        sa.Column("retiring_at", sa.Double()),
        sa.Column("retired_at", sa.Double()),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_crossfade_keys")),
    )


def _rollout() -> None:
    op.create_table(
        "crossfade_rollout_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crossfade_rollout_head")),
    )
    op.create_table(
        "crossfade_rollout_revisions",
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("verb", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("previous_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_crossfade_rollout_revisions")),
    )
    op.create_table(
        "crossfade_instances",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("left_at", sa.Double()),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document_sha256", sa.String(length=64), nullable=False),
        sa.Column("acked_at", sa.Double(), nullable=False),
        sa.Column("kids", sa.Text(), nullable=False),
        sa.Column("clock_offset", sa.Double(), nullable=False),
        sa.Column("canary_ok", sa.Boolean()),
        sa.Column("canary_at", sa.Double()),
        sa.Column("canary_why", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crossfade_instances")),
    )
    op.create_index(op.f("ix_crossfade_instances_seen_at"), "crossfade_instances", ["seen_at"])


def _gates_and_canary() -> None:
    op.create_table(
        "crossfade_canary",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("minted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crossfade_canary")),
    )
    op.create_table(
        "crossfade_gate_subjects",
        sa.Column("stage_revision", sa.Integer(), nullable=False),
        sa.Column("client", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.LargeBinary(length=16), nullable=False),
        sa.Column("arm", sa.String(length=8), nullable=False),
        sa.Column("network", sa.LargeBinary(length=8), nullable=False),
        sa.Column("first_seen_at", sa.Double(), nullable=False),
        sa.Column("first_failure_at", sa.Double()),
        sa.PrimaryKeyConstraint(
            "stage_revision", "client", "subject", name=op.f("pk_crossfade_gate_subjects")
        ),
    )
    op.create_index(
        "ix_crossfade_gate_subjects_failure",
        "crossfade_gate_subjects",
        ["stage_revision", "first_failure_at"],
    )


def _housekeeping() -> None:
    op.create_table(
        "crossfade_sentinels",
        sa.Column("reader", sa.String(length=32), nullable=False),
        sa.Column("born_at", sa.Double(), nullable=False),
        sa.Column("lives_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("reader", name=op.f("pk_crossfade_sentinels")),
    )
    op.create_table(
        "crossfade_outbox",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("payload_enc", sa.LargeBinary(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crossfade_outbox")),
    )
    op.create_index(op.f("ix_crossfade_outbox_due_at"), "crossfade_outbox", ["due_at"])
    op.create_table(
        "crossfade_leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=36), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_crossfade_leases")),
    )


def _audit() -> None:
    op.create_table(
        "crossfade_audit",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("event", sa.String(length=48), nullable=False),
        sa.Column("subject_hash", sa.LargeBinary(length=16)),
        sa.Column("sid_hash", sa.LargeBinary(length=16)),
        sa.Column("client", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crossfade_audit")),
    )
    op.create_index(op.f("ix_crossfade_audit_at"), "crossfade_audit", ["at"])
    op.create_table(
        "crossfade_audit_personal",
        sa.Column("audit_id", _SERIAL, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["audit_id"],
            ["crossfade_audit.id"],
            name=op.f("fk_crossfade_audit_personal_audit_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_crossfade_audit_personal")),
    )
    op.create_index(
        op.f("ix_crossfade_audit_personal_subject"), "crossfade_audit_personal", ["subject"]
    )


_TABLES = (
    "crossfade_logins",
    "crossfade_login_devices",
    "crossfade_tombstones",
    "crossfade_not_before",
    "crossfade_feed_head",
    "crossfade_feed",
    "crossfade_keys",
    "crossfade_rollout_head",
    "crossfade_rollout_revisions",
    "crossfade_instances",
    "crossfade_canary",
    "crossfade_gate_subjects",
    "crossfade_sentinels",
    "crossfade_outbox",
    "crossfade_leases",
    "crossfade_audit",
    "crossfade_audit_personal",
)
