"""The end of a login: in both worlds, in one transaction, told to everybody.

The row is closed, its legacy session buried and its record's deletion ordered, one audit row
written and the feed told. Ending twice is ending once.
"""

from sqlalchemy import update

from crossfade.stores.audit import record
from crossfade.stores.change import Change
from crossfade.stores.login_rows import Terms, identity_of
from crossfade.stores.outbox import enqueue_delete
from crossfade.stores.schema import logins
from crossfade.stores.tombstones import UNDATED, bury
from crossfade.tokens.refresh import Login
from crossfade.tokens.revocation import FeedKind


async def end_login(
    change: Change,
    terms: Terms,
    sid: bytes,
    *,
    why: str,
    trigger: str,
    actor: str = "",
    keep_anchor: bytes | None = None,
    epoch: int | None = None,
) -> Login | None:
    """End a login and bury its anchor; None if it was not there or had ended.

    `keep_anchor` is left unburied: another login takes it over. With `epoch` only that epoch ends:
    a family that was keyed anew meanwhile is not the one that the caller judged.
    """
    statement = update(logins).where(logins.c.sid == sid, logins.c.ended_at.is_(None))
    if epoch is not None:
        statement = statement.where(logins.c.epoch == epoch)
    row = (
        await change.connection.execute(
            statement.values(ended_at=change.now, why=why).returning(*logins.c)
        )
    ).one_or_none()
    if row is None:
        return None
    login = terms.login(row)
    if login.anchor is not None and login.anchor != keep_anchor:
        await bury_anchor(change, terms, login)
    await record(
        change.connection,
        event="login.ended",
        roots=terms.roots,
        identity=identity_of(row),
        sid=sid,
        client=row.client,
        actor=actor,
        detail={"why": why, "trigger": trigger},
    )
    change.announce(FeedKind.LOGIN, sid, change.now + terms.horizon)
    return login


async def bury_anchor(change: Change, terms: Terms, login: Login) -> None:
    """Bury the legacy session of a login and order the deletion of its record."""
    if login.anchor is None:
        return
    # The deadline was last seen some time ago and may have slid since, but not past the login's
    # own.
    last_seen = login.anchor_until or change.now + UNDATED
    await bury(change, login.anchor, max(last_seen, login.absolute_until))
    if login.anchor_reader is not None and login.anchor_key is not None:
        await enqueue_delete(change, terms.roots, login.anchor_reader, login.anchor_key)
