"""What a login row means: the record made from it, and the conditions that statements share."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, or_

from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.stores.schema import logins, not_before
from crossfade.stores.sealing import seal, unseal
from crossfade.tokens.refresh import Login

SAFETY = 60.0
"""Seconds that an entry about tokens outlives the last of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all changes of logins go by: the secrets, and durations in seconds."""

    roots: RootSecrets
    window: float
    access_ttl: float
    leeway: float
    refresh_idle: float
    token_bytes: Callable[[int], bytes] = os.urandom

    @property
    def horizon(self) -> float:
        """How long a feed entry about tokens must be kept."""
        return self.access_ttl + self.leeway + SAFETY

    def seal_anchor(self, sid: bytes, reader: str, key: str) -> bytes:
        """Encrypt an anchor's reader and key for the row of its login."""
        return seal(self.roots, "anchor", f"{reader}|{key}".encode(), sid, self.token_bytes)

    def login(self, row: Row[Any]) -> Login:
        """Make the record from a row of the logins table."""
        reader, key = self._anchor(row)
        return Login(
            sid=row.sid,
            identity=identity_of(row),
            client=row.client,
            client_id=row.client_id,
            epoch=row.epoch,
            gen=row.gen,
            created_at=row.created_at,
            auth_time=row.auth_time,
            amr=tuple(row.amr.split()),
            rotated_at=row.rotated_at,
            idle_until=row.idle_until,
            absolute_until=row.absolute_until,
            anchor=row.anchor,
            anchor_reader=reader,
            anchor_key=key,
            anchor_until=row.anchor_until,
            anchor_seen_at=row.anchor_seen_at,
            ended_at=row.ended_at,
            why=row.why,
        )

    def _anchor(self, row: Row[Any]) -> tuple[str | None, str | None]:
        plain = row.anchor_enc and unseal(self.roots, "anchor", row.anchor_enc, row.sid)
        if not plain:
            return None, None
        reader, _, key = plain.decode().partition("|")
        return reader, key


def identity_of(row: Row[Any]) -> Identity:
    """Return whose login a row is."""
    return Identity(subject=row.subject, tenant=row.tenant, actor=row.actor)


def alive(now: ColumnElement[float] | float) -> ColumnElement[bool]:
    """Return the condition that a login has neither ended nor expired."""
    return and_(
        logins.c.ended_at.is_(None), logins.c.idle_until > now, logins.c.absolute_until > now
    )


def void() -> ColumnElement[bool]:
    """Return the condition that a not-before of its subject covers a login."""
    return exists().where(
        not_before.c.tenant == logins.c.tenant,
        not_before.c.subject == logins.c.subject,
        not_before.c.at >= logins.c.auth_time,
        or_(not_before.c.except_sid.is_(None), not_before.c.except_sid != logins.c.sid),
    )
