"""How a login begins: any number of parallel requests for one legacy session end in one login.

The anchor decides. Its live login of the same identity is answered with its first token again for a
moment and keyed anew later; another identity's login stands in the way of an upgrade and falls to
an observed log-in; without one, a new login begins.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from crossfade.errors import NotIssued
from crossfade.legacy.base import anchor_digest
from crossfade.principal import Identity
from crossfade.stores.audit import printable, record
from crossfade.stores.change import Change
from crossfade.stores.ending import end_login
from crossfade.stores.engine import insert_into
from crossfade.stores.login_rows import Terms, alive, identity_of, void
from crossfade.stores.schema import login_devices, logins, not_before
from crossfade.stores.tombstones import buried, lift
from crossfade.tokens.refresh import SEED_BYTES, SID_BYTES, Login, encode, first_secret

LIVE_LOGINS = 50
"""Live logins that one subject may have."""
_TICK = 0.001
_AGENT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLogin:
    """What a login is to be opened for.

    Attributes:
        client, client_id: client kind, and the OAuth client or again the kind.
        auth_time: when the subject proved who they are; amr: how (RFC 8176).
        idle: seconds until an unused refresh token ends.
        absolute_until: when the login ends whatever happens.
        reader, anchor_key: the legacy session; key None if it has none.
        anchor_until: that session's deadline; None = never.
        grant: how it came about: `login` (observed), `upgrade` or `exchange`.
        address, agent: shown to the subject in the list of their logins.
        supersedes: the login of the same browser that was presented with this very request.
        fresh: a log-in was observed. It lifts the anchor's tombstone and takes over its login.
    """

    identity: Identity
    client: str
    client_id: str
    auth_time: float
    amr: tuple[str, ...] = ()
    idle: float
    absolute_until: float
    reader: str = ""
    anchor_key: str | None = field(default=None, repr=False)
    anchor_until: float | None = None
    grant: str
    address: str = ""
    agent: str = ""
    supersedes: bytes | None = None
    fresh: bool = False

    @property
    def anchor(self) -> bytes | None:
        """The digest that the login is found by."""
        return None if self.anchor_key is None else anchor_digest(self.reader, self.anchor_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A login with its refresh token; `is_new` is False where it was there before."""

    login: Login
    refresh_token: str = field(repr=False)
    is_new: bool


async def open_login(change: Change, terms: Terms, new: NewLogin) -> Opened:
    """Open or find the login of a legacy session. The change holds the locks of both.

    Raises:
        NotIssued: `tombstoned`, `not_before`, `conflict` (another identity's login owns the
            session) or `cap`.
    """
    lifted = await _unbury(change, new)
    owner = await _owner(change, terms, new)
    if new.supersedes is not None and (owner is None or owner.sid != new.supersedes):
        await end_login(
            change,
            terms,
            new.supersedes,
            why="superseded",
            trigger=new.grant,
            keep_anchor=new.anchor,
        )
    if owner is not None and identity_of(owner) != new.identity:
        await _take_over(change, terms, new, owner)
        owner = None
    if owner is None:
        return await _begin(change, terms, new, lifted)
    return await _again(change, terms, new, owner) or await _rekey(change, terms, new, owner)


async def _unbury(change: Change, new: NewLogin) -> bool:
    if new.anchor is None:
        return False
    if new.fresh:
        return await lift(change, new.anchor)
    if (await change.connection.execute(select(buried(new.anchor, change.now)))).scalar_one():
        raise NotIssued("tombstoned")
    return False


async def _owner(change: Change, terms: Terms, new: NewLogin) -> Row[Any] | None:
    """Return the live login of the anchor; one that has expired makes room."""
    if new.anchor is None:
        return None
    query = select(logins, void().label("is_void")).where(
        logins.c.tenant == new.identity.tenant,
        logins.c.anchor == new.anchor,
        logins.c.ended_at.is_(None),
    )
    row = (await change.connection.execute(query)).one_or_none()
    if row is None or (not row.is_void and change.now < min(row.idle_until, row.absolute_until)):
        return row
    why = "not_before" if row.is_void else "expired"
    await end_login(change, terms, row.sid, why=why, trigger=new.grant, keep_anchor=new.anchor)
    return None


async def _take_over(change: Change, terms: Terms, new: NewLogin, owner: Row[Any]) -> None:
    if not new.fresh:
        raise NotIssued("conflict")
    await end_login(
        change, terms, owner.sid, why="superseded", trigger=new.grant, keep_anchor=new.anchor
    )


async def _begin(change: Change, terms: Terms, new: NewLogin, lifted: bool) -> Opened:
    auth_time = await _admitted(change, new)
    sid = terms.token_bytes(SID_BYTES)
    family, token = _first(terms, sid, 0, new.anchor)
    row = (
        await change.connection.execute(
            insert(logins)
            .values(
                sid=sid,
                tenant=new.identity.tenant,
                subject=new.identity.subject,
                actor=new.identity.actor,
                created_at=change.now,
                anchor=new.anchor,
                **family,
                **_renewed(change, terms, new, sid),
                **_proven(new, auth_time),
            )
            .returning(*logins.c)
        )
    ).one()
    await _note(change, terms, new, row, "login.opened", lifted=lifted)
    return Opened(login=terms.login(row), refresh_token=token, is_new=True)


async def _admitted(change: Change, new: NewLogin) -> float:
    """Return the login's auth_time. Raises NotIssued if its subject may not have one more."""
    who = new.identity
    barred = not_before.c.tenant == who.tenant, not_before.c.subject == who.subject
    until = (await change.connection.execute(select(not_before.c.at).where(*barred))).scalar()
    auth_time = new.auth_time
    if until is not None and auth_time <= until:
        if not new.fresh:
            raise NotIssued("not_before")
        # Seen after the not-before; only the application's clock or its whole seconds lag behind.
        auth_time = max(change.now, until + _TICK)
    count = select(func.count()).where(
        logins.c.tenant == who.tenant, logins.c.subject == who.subject, alive(change.now)
    )
    if (await change.connection.execute(count)).scalar_one() >= LIVE_LOGINS:
        raise NotIssued("cap")
    return auth_time


async def _again(change: Change, terms: Terms, new: NewLogin, row: Row[Any]) -> Opened | None:
    """Answer with the first token once more: twins of one request must not supersede each other."""
    young = row.gen == 0 and change.now - row.rotated_at <= terms.window
    if not young or row.client != new.client or row.kv not in terms.roots:
        return None
    secret = first_secret(terms.roots, row.kv, row.sid, row.epoch, row.seed, row.anchor)
    if hashlib.sha256(secret).digest() != row.cur:
        return None  # its anchor was re-bound since
    token = encode(terms.roots, row.kv, row.sid, row.epoch, 0, secret)
    return Opened(login=terms.login(row), refresh_token=token, is_new=False)


async def _rekey(change: Change, terms: Terms, new: NewLogin, row: Row[Any]) -> Opened:
    """Begin a new epoch: the refresh tokens of the old one are superseded."""
    family, token = _first(terms, row.sid, row.epoch + 1, new.anchor)
    values = family | _renewed(change, terms, new, row.sid)
    if new.fresh:
        values |= _proven(new, max(new.auth_time, row.auth_time))
    statement = update(logins).where(logins.c.sid == row.sid).values(values)
    renewed = (await change.connection.execute(statement.returning(*logins.c))).one()
    await _note(change, terms, new, renewed, "login.rekeyed", epoch=renewed.epoch)
    return Opened(login=terms.login(renewed), refresh_token=token, is_new=False)


def _first(
    terms: Terms, sid: bytes, epoch: int, anchor: bytes | None
) -> tuple[dict[str, Any], str]:
    """Make the first token of an epoch, and the columns of its family."""
    kv, seed = terms.roots.active, terms.token_bytes(SEED_BYTES)
    secret = first_secret(terms.roots, kv, sid, epoch, seed, anchor)
    cur = hashlib.sha256(secret).digest()
    family = {"epoch": epoch, "gen": 0, "kv": kv, "seed": seed, "cur": cur}
    spent = {"prev": None, "idem": None, "replays": 0}
    return family | spent, encode(terms.roots, kv, sid, epoch, 0, secret)


def _renewed(change: Change, terms: Terms, new: NewLogin, sid: bytes) -> dict[str, Any]:
    """Return the columns that every opening of a login sets."""
    held = new.anchor_key is not None
    return {
        "client": new.client,
        "client_id": new.client_id,
        "rotated_at": change.now,
        "idle_until": change.now + new.idle,
        "anchor_enc": terms.seal_anchor(sid, new.reader, new.anchor_key or "") if held else None,
        "anchor_until": new.anchor_until if held else None,
        "anchor_seen_at": change.now if held else None,
    }


def _proven(new: NewLogin, auth_time: float) -> dict[str, Any]:
    """Return the columns that only a proof of identity sets."""
    amr = " ".join(new.amr)
    return {"auth_time": auth_time, "amr": amr, "absolute_until": new.absolute_until}


async def _note(
    change: Change, terms: Terms, new: NewLogin, row: Row[Any], event: str, **detail: object
) -> None:
    """Write the audit row, and what the subject is shown of the device."""
    await record(
        change.connection,
        event=event,
        roots=terms.roots,
        identity=new.identity,
        sid=row.sid,
        client=new.client,
        detail={"grant": new.grant, **detail},
    )
    if not new.address and not new.agent:
        return
    device = {
        "address": printable(new.address),
        "agent": printable(new.agent)[:_AGENT],
        "recorded_at": change.now,
    }
    await change.connection.execute(
        insert_into(change.connection, login_devices)
        .values(sid=row.sid, **device)
        .on_conflict_do_update(index_elements=[login_devices.c.sid], set_=device)
    )
