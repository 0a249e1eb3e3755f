"""The audit: one row for each change of state, written in the transaction of that change.

The row holds keyed hashes of whom it is about, so that it can be kept when the person must be
forgotten; who they are stands in a side table that can be erased.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.stores.engine import Database, present
from crossfade.stores.schema import audit, audit_personal

HASH_BYTES = 16
MAXIMUM_ACTOR = 200
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One entry of the audit.

    Attributes:
        id: counts up; the order of writing within one database.
        at: POSIX seconds of the database's clock.
        event: what happened, as `login.ended`.
        client: client kind, empty where none is concerned.
        actor: who did it, empty for the system itself.
        detail: event-specific facts; never a credential.
        subject_hash, sid_hash: keyed hashes; None where the event concerns nobody.
        tenant, subject: None where the event concerns nobody or the person was erased.
    """

    id: int
    at: float
    event: str
    client: str
    actor: str
    detail: Mapping[str, Any]
    subject_hash: bytes | None = field(default=None, repr=False)
    sid_hash: bytes | None = field(default=None, repr=False)
    tenant: str | None = field(default=None, repr=False)
    subject: str | None = field(default=None, repr=False)


async def record(
    connection: AsyncConnection,
    *,
    event: str,
    roots: RootSecrets | None = None,
    identity: Identity | None = None,
    sid: bytes | None = None,
    client: str = "",
    actor: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write one audit row on an open connection; it commits with the change, or not at all.

    `roots` may be None only for events about neither an identity nor a login.

    Raises:
        ValueError: somebody is named and there is no key to hash them with.
    """
    if roots is None and (identity is not None or sid is not None):
        raise ValueError("an event about somebody needs the root secrets")
    statement = insert(audit).values(
        at=present(connection),
        event=event,
        subject_hash=None if roots is None or identity is None else _subject(roots, identity),
        sid_hash=None if roots is None or sid is None else _hash(roots, roots.active, sid),
        client=client,
        actor=printable(actor),
        # ASCII with escapes: no control character reaches a terminal or a log through it.
        detail=json.dumps(dict(detail or {}), sort_keys=True, separators=(",", ":")),
    )
    number = (await connection.execute(statement.returning(audit.c.id))).scalar_one()
    if identity is not None:
        await connection.execute(
            insert(audit_personal).values(
                audit_id=number, tenant=identity.tenant, subject=identity.subject
            )
        )


def printable(text: str) -> str:
    """Return text fit for a log line: no control characters, at most 200 characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[
        :MAXIMUM_ACTOR
    ]


class AuditStore:
    """Reads the audit."""

    def __init__(self, database: Database, roots: RootSecrets | None = None) -> None:
        self._database = database
        self._roots = roots

    async def note(
        self, event: str, client: str, identity: Identity | None, detail: Mapping[str, Any]
    ) -> None:
        """Write a row about what was seen and changed nothing. Raises StoreUnavailable."""
        async with self._database.write() as connection:
            await record(
                connection,
                event=event,
                roots=self._roots,
                identity=identity,
                client=client,
                detail=detail,
            )

    async def page(
        self,
        since: float = 0.0,
        subject: Identity | str | None = None,
        limit: int = _PAGE,
        *,
        after: int = 0,
    ) -> list[AuditRow]:
        """Return entries from `since` on, oldest first, behind the entry `after`.

        A subject is found by name while the personal row is there, and by hash (an Identity, under
        any root still in the ring) after it was erased. Raises StoreUnavailable.
        """
        query = (
            select(audit, audit_personal.c.tenant, audit_personal.c.subject)
            .outerjoin(audit_personal, audit_personal.c.audit_id == audit.c.id)
            .where(audit.c.at >= since, audit.c.id > after)
            .order_by(audit.c.id)
            .limit(limit)
        )
        if isinstance(subject, Identity):
            known = (audit_personal.c.subject == subject.subject) & (
                audit_personal.c.tenant == subject.tenant
            )
            query = query.where(or_(known, audit.c.subject_hash.in_(self._hashes(subject))))
        elif subject is not None:
            query = query.where(audit_personal.c.subject == subject)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [AuditRow(**{**row, "detail": json.loads(row["detail"])}) for row in rows]

    def _hashes(self, identity: Identity) -> list[bytes]:
        roots = self._roots
        if roots is None:
            return []
        return [_subject(roots, identity, kv) for kv in roots.versions]


def _subject(roots: RootSecrets, identity: Identity, kv: int | None = None) -> bytes:
    parts = (identity.tenant.encode(), identity.subject.encode())
    return _hash(roots, roots.active if kv is None else kv, *parts)


def _hash(roots: RootSecrets, kv: int, *parts: bytes) -> bytes:
    return roots.mac(kv, "audit-subject", *parts)[:HASH_BYTES]
