"""The rollout document in SQL: append-only revisions, a head compared and set, a chain of hashes.

Two operators, a controller and a panicking third one may write at once: exactly one of them makes
revision n+1, the others are told who did (ADR 0004).
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.errors import ConfigurationError, RevisionConflict
from crossfade.rollout.state import RolloutState
from crossfade.stores import audit
from crossfade.stores.engine import Database, present
from crossfade.stores.schema import rollout_head, rollout_revisions

ActorKind = Literal["human", "controller"]

GENESIS = "0" * 64
"""The hash before the first revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One state of the rollout document and the change that made it.

    Attributes:
        number: 0 before anything was written, then counting up without gaps.
        sha256: hash of this row and, through the chain, of all before it. Instances ack with it.
        evidence: the numbers a gate decided on; empty for a human's change.
        created_at: POSIX seconds of the database's clock.
    """

    number: int
    document: RolloutState = field(repr=False)
    sha256: str
    verb: str = ""
    actor: str = ""
    actor_kind: str = ""
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0


Requirement = Callable[[AsyncConnection, Revision], Awaitable[None]]
"""What must hold at the moment of a change, given the head it replaces; raises if it does not."""


class RolloutStore:
    """Reads and appends revisions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self, connection: AsyncConnection | None = None) -> Revision:
        """Return the newest revision; number 0 and the initial document if there is none yet.

        Raises:
            StoreUnavailable: the database did not answer.
            ConfigurationError: the document is not one that this version understands.
        """
        if connection is not None:
            return await _head(connection)
        async with self._database.read() as connection:
            return await _head(connection)

    async def append(
        self,
        expected: int,
        state: RolloutState,
        *,
        verb: str,
        actor: str,
        actor_kind: ActorKind = "human",
        reason: str = "",
        evidence: Mapping[str, Any] | None = None,
        require: Requirement | None = None,
    ) -> Revision:
        """Make revision `expected` + 1, in one transaction with its audit row.

        `require` runs while the head is locked: no instance joins and nobody else changes the
        document until this transaction has ended.

        Raises:
            RevisionConflict: the head is another one; nothing was written.
            StoreUnavailable: nothing was written; its kind OutcomeUnknown: it may have been.
        """
        async with self._database.write() as connection:
            await _advance_head(connection, expected)
            before = await _load(connection, expected)
            if require is not None:
                await require(connection, before)
            revision = await _insert(
                connection,
                before,
                state,
                verb=verb,
                actor=audit.printable(actor),
                actor_kind=actor_kind,
                reason=reason,
                evidence=evidence or {},
            )
            await audit.record(
                connection,
                event=f"rollout.{verb}",
                actor=actor,
                detail={
                    "revision": revision.number,
                    "from": _summary(before.document),
                    "to": _summary(state),
                    "reason": reason,
                },
            )
        return revision

    async def history(self, limit: int = 20, after: int | None = None) -> list[Revision]:
        """Return revisions, newest first; `after` goes on below that number of a page before.

        Raises StoreUnavailable.
        """
        query = select(rollout_revisions).order_by(rollout_revisions.c.revision.desc()).limit(limit)
        if after is not None:
            query = query.where(rollout_revisions.c.revision < after)
        async with self._database.read() as connection:
            return [_revision(row) for row in (await connection.execute(query)).mappings()]

    async def verify(self) -> list[str]:
        """Check numbering, hashes and head; return the faults in words, none if all is sound.

        Raises StoreUnavailable.
        """
        async with self._database.read() as connection:
            query = select(rollout_revisions).order_by(rollout_revisions.c.revision)
            rows = (await connection.execute(query)).mappings().all()
            head = (await connection.execute(select(rollout_head.c.revision))).scalar_one()
        faults: list[str] = []
        previous = GENESIS
        for number, row in enumerate(rows, 1):
            if row["revision"] != number:
                return [*faults, f"revision {number} is missing"]
            if row["previous_sha256"] != previous or _hash(row) != row["sha256"]:
                faults.append(f"revision {number} was edited after it was written")
            previous = row["sha256"]
        if head != len(rows):
            faults.append(f"the head says {head}, the last revision is {len(rows)}")
        return faults


async def _advance_head(connection: AsyncConnection, expected: int) -> None:
    """Take the head's row lock and move it on, or say where it stands."""
    moved = await connection.execute(
        update(rollout_head)
        .where(rollout_head.c.id == 1, rollout_head.c.revision == expected)
        .values(revision=expected + 1)
    )
    if moved.rowcount != 1:
        found = await connection.execute(select(rollout_head.c.revision))
        raise RevisionConflict(expected, found.scalar_one())


async def _insert(
    connection: AsyncConnection, before: Revision, state: RolloutState, **change: Any
) -> Revision:
    row = {
        "revision": before.number + 1,
        "document": state.to_json(),
        **change,
        "evidence": _canonical(change["evidence"]),
        # Read first, because the hash covers the very number that is stored.
        "created_at": (await connection.execute(select(present(connection)))).scalar_one(),
        "previous_sha256": before.sha256,
    }
    row["sha256"] = _hash(row)
    await connection.execute(insert(rollout_revisions).values(row))
    return _revision(row)


async def _head(connection: AsyncConnection) -> Revision:
    # One statement, so that number and document are of the same moment.
    query = (
        select(rollout_revisions)
        .join(rollout_head, rollout_head.c.revision == rollout_revisions.c.revision)
        .where(rollout_head.c.id == 1)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return _GENESIS_REVISION if row is None else _revision(row)


async def _load(connection: AsyncConnection, number: int) -> Revision:
    if number == 0:
        return _GENESIS_REVISION
    query = select(rollout_revisions).where(rollout_revisions.c.revision == number)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise ConfigurationError(
            f"rollout revision {number} is missing from the history: restore the database"
        )
    return _revision(row)


def _revision(row: RowMapping | Mapping[str, Any]) -> Revision:
    return Revision(
        number=row["revision"],
        document=RolloutState.from_json(row["document"]),
        sha256=row["sha256"],
        verb=row["verb"],
        actor=row["actor"],
        actor_kind=row["actor_kind"],
        reason=row["reason"],
        evidence=json.loads(row["evidence"]),
        created_at=row["created_at"],
    )


_HASHED = (
    "revision",
    "document",
    "verb",
    "actor",
    "actor_kind",
    "reason",
    "evidence",
    "created_at",
    "previous_sha256",
)


def _hash(row: RowMapping | Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({key: row[key] for key in _HASHED}).encode()).hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _summary(state: RolloutState) -> dict[str, Any]:
    return {
        "phase": state.phase,
        "stage": state.stage,
        "status": state.status,
        "issue_token": dict(state.issue_token),
    }


_GENESIS_REVISION = Revision(number=0, document=RolloutState.initial(), sha256=GENESIS)
