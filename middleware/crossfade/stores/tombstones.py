"""Tombstones: legacy sessions that must not be authenticated any more.

A tombstone says "this id must not be ok", not "this id is dead": some frameworks keep the id after
a log-out, so an observed log-in lifts it.
"""

from sqlalchemy import ColumnElement, case, delete, exists

from crossfade.stores.change import Change
from crossfade.stores.engine import insert_into
from crossfade.stores.schema import tombstones
from crossfade.tokens.revocation import FeedKind

UNDATED = 30 * 86_400.0
"""Seconds that a session without a known deadline stays buried."""
SHORTEST = 600.0
"""A server-side record may be written back by a request that was in flight when it was deleted."""


def buried(digest: bytes, now: ColumnElement[float] | float) -> ColumnElement[bool]:
    """Return the condition that a tombstone stands."""
    return exists().where(tombstones.c.anchor == digest, tombstones.c.expires_at > now)


async def bury(change: Change, digest: bytes, until: float | None) -> None:
    """Put up a tombstone and announce it; one that stands longer is left so.

    `until` is the session's last possible end, POSIX seconds; None = unknown: 30 days.
    """
    expires_at = max(until or change.now + UNDATED, change.now + SHORTEST)
    new = insert_into(change.connection, tombstones).values(
        anchor=digest, buried_at=change.now, expires_at=expires_at
    )
    longer = case(
        (tombstones.c.expires_at > new.excluded.expires_at, tombstones.c.expires_at),
        else_=new.excluded.expires_at,
    )
    await change.connection.execute(
        new.on_conflict_do_update(
            index_elements=[tombstones.c.anchor],
            set_={"buried_at": new.excluded.buried_at, "expires_at": longer},
        )
    )
    change.announce(FeedKind.TOMBSTONE, digest, expires_at)


async def lift(change: Change, digest: bytes) -> bool:
    """Take a tombstone away and announce it; False if there was none."""
    statement = delete(tombstones).where(tombstones.c.anchor == digest)
    expiry = (
        await change.connection.execute(statement.returning(tombstones.c.expires_at))
    ).scalar_one_or_none()
    if expiry is None:
        return False
    # As long as the entry that it undoes: whoever loads the feed anew must see both or neither.
    change.announce(FeedKind.LIFT, digest, expiry)
    return True
