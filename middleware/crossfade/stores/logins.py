"""The logins: opened, refreshed, bound to another legacy session, and ended.

Each method is one transaction on the database's clock. Whatever changes state writes its audit row
and its feed entries in the same transaction, save a plain refresh (ADR 0006).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, select, update

from crossfade.errors import NotIssued
from crossfade.keys.roots import RootSecrets
from crossfade.legacy.base import anchor_digest
from crossfade.principal import Identity
from crossfade.stores.audit import record
from crossfade.stores.change import Change, changing
from crossfade.stores.ending import bury_anchor, end_login
from crossfade.stores.engine import Database, insert_into
from crossfade.stores.login_rows import Terms, alive, void
from crossfade.stores.opening import NewLogin, Opened, open_login
from crossfade.stores.outbox import Outbox, OutboxItem, enqueue_delete
from crossfade.stores.rotation import check, rotate
from crossfade.stores.schema import login_devices, logins, not_before
from crossfade.stores.tombstones import UNDATED, buried, bury, lift
from crossfade.tokens.refresh import Login, RefreshToken, Rotation
from crossfade.tokens.revocation import FeedKind, not_before_value, subject_key

__all__ = ["LoginRow", "LoginStore", "NewLogin", "Opened", "OutboxItem"]

_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRow:
    """A live login as its subject is shown it. Address and agent are empty once forgotten."""

    login: Login
    address: str = field(default="", repr=False)
    agent: str = field(default="", repr=False)


class LoginStore:
    """All changes of logins.

    Every method raises StoreUnavailable if nothing was done, OutcomeUnknown if that is unclear;
    each may be repeated safely.

    Args:
        window: seconds for which a repeated refresh gets the same answer.
        access_ttl, leeway: of access tokens: how long the feed must remember.
        refresh_idle: seconds until an unused refresh token ends.
        token_bytes: the source of randomness.
    """

    def __init__(
        self,
        database: Database,
        roots: RootSecrets,
        *,
        window: float,
        access_ttl: float,
        leeway: float,
        refresh_idle: float,
        token_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._outbox = Outbox(database, roots)
        self._terms = Terms(
            roots=roots,
            window=window,
            access_ttl=access_ttl,
            leeway=leeway,
            refresh_idle=refresh_idle,
            token_bytes=token_bytes,
        )

    async def open(self, new: NewLogin) -> Opened:
        """Open the login of a legacy session, or find the one that is open.

        Raises:
            NotIssued: `tombstoned`, `not_before`, `conflict`, `cap`, or `identity` if the subject
                cannot be stored as text.
        """
        if not _is_storable(new.identity):
            raise NotIssued("identity")
        previous = None if new.supersedes is None else await self.get(new.supersedes)
        digests = [subject_key(new.identity), *_locks(previous)]
        if new.anchor is not None:
            digests.append(new.anchor)
        try:
            async with changing(self._database, *digests) as change:
                return await open_login(change, self._terms, new)
        except NotIssued as refusal:
            if refusal.why != "cap" or not new.fresh:
                raise
        # Who has just proved who they are must get in: the login that was unused the longest goes.
        await self._end_idlest(new)
        async with changing(self._database, *digests) as change:
            return await open_login(change, self._terms, new)

    async def rotate(self, token: RefreshToken, *, idempotency_key: str | None = None) -> Rotation:
        """Answer a refresh token; see `RefreshOutcome`. One statement where it rotates."""
        async with self._database.write() as connection:
            return await rotate(connection, self._terms, token, idempotency_key)

    async def check(self, token: RefreshToken) -> Rotation:
        """Judge a refresh token as `rotate` would, without spending it: a live one is `current`.

        A spent one ends its login here too.
        """
        async with self._database.write() as connection:
            return await check(connection, self._terms, token)

    async def get(self, sid: bytes) -> Login | None:
        """Return a login, ended ones too; None if it is unknown."""
        return await self._find(logins.c.sid == sid)

    async def by_anchor(self, tenant: str, digest: bytes) -> Login | None:
        """Return the live login that owns a legacy session."""
        now = self._database.now()
        return await self._find(
            logins.c.tenant == tenant, logins.c.anchor == digest, alive(now), ~void()
        )

    async def any_live(self) -> bool:
        """Say whether any login is live: whether a refresh token may still come."""
        query = select(exists().where(alive(self._database.now())))
        async with self._database.read() as connection:
            return bool((await connection.execute(query)).scalar_one())

    async def live(self, tenant: str, subject: str) -> list[LoginRow]:
        """Return a subject's live logins, the oldest first."""
        query = (
            select(logins, login_devices.c.address, login_devices.c.agent)
            .outerjoin(login_devices, login_devices.c.sid == logins.c.sid)
            .where(logins.c.tenant == tenant, logins.c.subject == subject)
            .where(alive(self._database.now()), ~void())
            .order_by(logins.c.created_at, logins.c.sid)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            LoginRow(login=self._terms.login(row), address=row.address or "", agent=row.agent or "")
            for row in rows
        ]

    async def rebind(
        self,
        sid: bytes,
        old_digest: bytes | None,
        *,
        reader: str,
        key: str,
        until: float | None,
        bury_old: bool = True,
    ) -> bool:
        """Bind a live login to another legacy session, if it is still bound to the old one.

        The old session is buried and its record deleted unless `bury_old` is False (it is gone).
        False if the login was re-bound first, has ended, or the new session is buried or another
        login's.
        """
        new, login = anchor_digest(reader, key), await self.get(sid)
        if login is None:
            return False
        async with changing(self._database, *_locks(login), new) as change:
            if not await self._bind(change, sid, old_digest, new, (reader, key, until)):
                return False
            if bury_old and login.anchor == old_digest != new:
                await bury_anchor(change, self._terms, login)
            change.announce(FeedKind.ANCHOR, sid, change.now + self._terms.horizon)
            await self._note(change, "login.rebound", login, {"buried": bury_old})
            return True

    async def anchor_seen(
        self, sid: bytes, digest: bytes | None = None, *, until: float | None
    ) -> None:
        """Note that a login's legacy session was seen alive, with its present deadline.

        With `digest` only if that is still the login's anchor. An observation, no change of state:
        it is not audited.
        """
        same = logins.c.anchor == digest if digest else logins.c.anchor.is_not(None)
        bound = logins.c.sid == sid, same
        statement = update(logins).where(*bound, logins.c.ended_at.is_(None))
        async with self._database.write() as connection:
            await connection.execute(
                statement.values(anchor_until=until, anchor_seen_at=self._database.now())
            )

    async def end(self, sid: bytes, *, why: str, trigger: str, actor: str = "") -> Login | None:
        """End a login in both worlds; None if it is unknown. Ending it again changes nothing."""
        login = await self.get(sid)
        if login is None or login.ended_at is not None:
            return login
        async with changing(self._database, *_locks(login)) as change:
            ended = await end_login(change, self._terms, sid, why=why, trigger=trigger, actor=actor)
        return ended or await self.get(sid)

    async def end_anchor(
        self,
        tenant: str,
        digest: bytes,
        *,
        key: str | None,
        reader: str,
        why: str,
        trigger: str,
        until: float | None = None,
        identity: Identity | None = None,
    ) -> Login | None:
        """End a legacy session and the login that owns it; None if none does.

        The session is buried in any case, until its deadline `until` if it is known.
        """
        owner = await self.by_anchor(tenant, digest)
        async with changing(self._database, digest, *_locks(owner)) as change:
            sid = await self._owner(change, tenant, digest)
            if sid is not None:
                return await end_login(change, self._terms, sid, why=why, trigger=trigger)
            await bury(change, digest, until)
            if key is not None:
                await enqueue_delete(change, self._terms.roots, reader, key)
            await record(
                change.connection,
                event="session.ended",
                roots=self._terms.roots,
                identity=identity,
                detail={"why": why, "trigger": trigger},
            )
            return None

    async def end_all(
        self,
        tenant: str,
        subject: str,
        *,
        except_sid: bytes | None = None,
        why: str,
        trigger: str,
        actor: str = "",
    ) -> int:
        """End all of a subject's logins save one, and void every older log-in. Returns how many.

        The not-before comes first: what a failure leaves open is void all the same.
        """
        identity = Identity(subject=subject, tenant=tenant)
        async with changing(self._database, subject_key(identity)) as change:
            await self._set_not_before(change, identity, except_sid)
            await record(
                change.connection,
                event="subject.ended",
                roots=self._terms.roots,
                identity=identity,
                actor=actor,
                detail={"why": why, "trigger": trigger, "kept_one": except_sid is not None},
            )
        ended = 0
        while page := await self._void_logins(identity):
            locks = [digest for login in page for digest in _locks(login)]
            async with changing(self._database, *locks) as change:
                for login in page:
                    gone = await end_login(
                        change, self._terms, login.sid, why=why, trigger=trigger, actor=actor
                    )
                    ended += gone is not None
        return ended

    async def bury(self, digest: bytes, until: float | None = None) -> None:
        """Bury a legacy session until its deadline; None = unknown: 30 days."""
        async with changing(self._database, digest) as change:
            await bury(change, digest, until)
            await record(change.connection, event="session.buried")

    async def lift(self, digest: bytes) -> None:
        """Take a tombstone away; without one nothing happens."""
        async with changing(self._database, digest) as change:
            if await lift(change, digest):
                await record(change.connection, event="session.lifted")

    async def is_buried(self, digest: bytes) -> bool:
        """Say whether a legacy session must not be authenticated."""
        async with self._database.read() as connection:
            query = select(buried(digest, self._database.now()))
            return bool((await connection.execute(query)).scalar_one())

    async def due_outbox(self, limit: int) -> list[OutboxItem]:
        """Return what is due in the session store, the oldest first."""
        return await self._outbox.due(limit)

    async def done(self, ids: Sequence[int]) -> None:
        """Forget items of the outbox that were done."""
        await self._outbox.done(ids)

    async def failed(self, number: int) -> None:
        """Put an item of the outbox off, longer each time."""
        await self._outbox.failed(number)

    async def _end_idlest(self, new: NewLogin) -> None:
        who = logins.c.tenant == new.identity.tenant, logins.c.subject == new.identity.subject
        query = select(logins.c.sid).where(*who, alive(self._database.now()))
        async with self._database.read() as connection:
            first = query.order_by(logins.c.rotated_at).limit(1)
            sid = (await connection.execute(first)).scalar_one_or_none()
        if sid is not None:
            await self.end(sid, why="cap", trigger=new.grant)

    async def _find(self, *conditions: ColumnElement[bool]) -> Login | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(logins).where(*conditions))).one_or_none()
        return None if row is None else self._terms.login(row)

    async def _owner(self, change: Change, tenant: str, digest: bytes) -> bytes | None:
        query = select(logins.c.sid).where(
            logins.c.tenant == tenant, logins.c.anchor == digest, logins.c.ended_at.is_(None)
        )
        sid: bytes | None = (await change.connection.execute(query)).scalar_one_or_none()
        return sid

    async def _bind(
        self,
        change: Change,
        sid: bytes,
        old: bytes | None,
        new: bytes,
        session: tuple[str, str, float | None],
    ) -> bool:
        """Compare and set the anchor, unless the new one is buried or taken."""
        reader, key, until = session
        connection = change.connection
        if (await connection.execute(select(buried(new, change.now)))).scalar_one():
            return False
        tenant = select(logins.c.tenant).where(logins.c.sid == sid).scalar_subquery()
        taken = select(logins.c.sid).where(
            logins.c.tenant == tenant,
            logins.c.anchor == new,
            logins.c.ended_at.is_(None),
            logins.c.sid != sid,
        )
        if (await connection.execute(taken)).first() is not None:
            return False
        held = logins.c.anchor.is_(None) if old is None else logins.c.anchor == old
        statement = (
            update(logins)
            .where(logins.c.sid == sid, held, alive(change.now))
            .values(
                anchor=new,
                anchor_enc=self._terms.seal_anchor(sid, reader, key),
                anchor_until=until,
                anchor_seen_at=change.now,
            )
        )
        bound = await connection.execute(statement.returning(logins.c.sid))
        return bound.one_or_none() is not None

    async def _set_not_before(
        self, change: Change, identity: Identity, except_sid: bytes | None
    ) -> None:
        longest = select(logins.c.absolute_until).where(
            logins.c.tenant == identity.tenant, logins.c.subject == identity.subject
        )
        ends = (await change.connection.execute(longest)).scalars().all()
        values: dict[str, Any] = {
            "at": change.now,
            "except_sid": except_sid,
            # Legacy sessions that we never saw may be as old as an undated one.
            "expires_at": max([change.now + UNDATED, *ends]),
        }
        statement = insert_into(change.connection, not_before).values(
            tenant=identity.tenant, subject=identity.subject, **values
        )
        await change.connection.execute(
            statement.on_conflict_do_update(
                index_elements=[not_before.c.tenant, not_before.c.subject], set_=values
            )
        )
        change.announce(
            FeedKind.SUBJECT,
            not_before_value(identity, change.now, except_sid),
            change.now + self._terms.horizon,
        )

    async def _void_logins(self, identity: Identity) -> list[Login]:
        query = (
            select(logins)
            .where(logins.c.tenant == identity.tenant, logins.c.subject == identity.subject)
            .where(logins.c.ended_at.is_(None), void())
            .limit(_PAGE)
        )
        async with self._database.read() as connection:
            rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
        return [self._terms.login(row) for row in rows]

    async def _note(
        self, change: Change, event: str, login: Login, detail: dict[str, object]
    ) -> None:
        await record(
            change.connection,
            event=event,
            roots=self._terms.roots,
            identity=login.identity,
            sid=login.sid,
            client=login.client,
            detail=detail,
        )


def _locks(login: Login | None) -> list[bytes]:
    """Return what a change of a login must hold: its subject and its anchor."""
    if login is None:
        return []
    held = [] if login.anchor is None else [login.anchor]
    return [subject_key(login.identity), *held]


def _is_storable(identity: Identity) -> bool:
    """Say whether every database can hold the texts: no NUL, no half of a surrogate pair."""
    parts = f"{identity.tenant}{identity.subject}{identity.actor}"
    try:
        return b"\0" not in parts.encode()
    except UnicodeEncodeError:
        return False
