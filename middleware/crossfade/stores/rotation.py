"""A refresh: one statement when all is well, and the reading of what it means when it is not.

The statement writes no audit row: the login row's own `gen` and `rotated_at` are its record (ADR
0006).
"""

import hashlib
from typing import Any

from sqlalchemy import Row, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.stores.audit import record
from crossfade.stores.change import Change, lock
from crossfade.stores.ending import end_login
from crossfade.stores.engine import present
from crossfade.stores.login_rows import Terms, alive, identity_of, void
from crossfade.stores.schema import logins
from crossfade.tokens.refresh import (
    LONG_WINDOW,
    MAXIMUM_REPLAYS,
    SEED_BYTES,
    RefreshOutcome,
    RefreshToken,
    Rotation,
    encode,
    next_secret,
)
from crossfade.tokens.revocation import subject_key

_ATTEMPTS = 3


async def rotate(
    connection: AsyncConnection, terms: Terms, token: RefreshToken, idempotency_key: str | None
) -> Rotation:
    """Answer a refresh token on an open write transaction."""
    idem = hashlib.sha256(idempotency_key.encode()).digest() if idempotency_key else None
    rotated = await _advance(connection, terms, token, idem)
    if rotated is not None:
        return rotated
    return await _settle(connection, terms, token, idem)


async def check(connection: AsyncConnection, terms: Terms, token: RefreshToken) -> Rotation:
    """Judge a refresh token on an open write transaction without spending it."""
    return await _settle(connection, terms, token, None, heals=False)


async def _settle(
    connection: AsyncConnection,
    terms: Terms,
    token: RefreshToken,
    idem: bytes | None,
    *,
    heals: bool = True,
) -> Rotation:
    for _ in range(_ATTEMPTS):
        answer = await _answer(connection, terms, token, idem, heals=heals)
        if answer is not None:
            return answer
    return Rotation(outcome=RefreshOutcome.UNKNOWN)  # the row changed under us three times


async def _advance(
    connection: AsyncConnection, terms: Terms, token: RefreshToken, idem: bytes | None
) -> Rotation | None:
    """Rotate if the token is the live one and old enough; of many at once exactly one does."""
    now = present(connection)
    # The floor: tabs that refresh flat out must not push each other out of the replay window.
    ripe = or_(logins.c.gen == 0, logins.c.rotated_at <= now - terms.window)
    statement = update(logins).where(
        logins.c.sid == token.sid,
        logins.c.epoch == token.epoch,
        logins.c.gen == token.gen,
        logins.c.cur == token.digest,
        alive(now),
        ripe,
        ~void(),
    )
    successor, values = _successor(connection, terms, token, idem)
    row = (await connection.execute(statement.values(values).returning(*logins.c))).one_or_none()
    if row is None:
        return None
    return Rotation(outcome=RefreshOutcome.ROTATED, login=terms.login(row), refresh_token=successor)


async def _answer(
    connection: AsyncConnection,
    terms: Terms,
    token: RefreshToken,
    idem: bytes | None,
    *,
    heals: bool,
) -> Rotation | None:
    """Say what a token means that did not rotate; None if the row has just changed: look again."""
    query = select(logins, present(connection).label("now"), void().label("is_void"))
    row = (await connection.execute(query.where(logins.c.sid == token.sid))).one_or_none()
    if row is None:
        return Rotation(outcome=RefreshOutcome.UNKNOWN)
    outcome = _classify(row, token, idem, terms.window)
    if outcome is RefreshOutcome.ROTATED and heals:
        return await _heal(connection, terms, row, token, idem)
    if outcome is RefreshOutcome.ROTATED:
        outcome = RefreshOutcome.CURRENT
    if outcome is RefreshOutcome.REUSE:
        return await _reuse(connection, terms, row)
    if outcome is RefreshOutcome.REPLAYED:
        return await _replay(connection, terms, row, token)
    return Rotation(outcome=outcome, login=terms.login(row))


def _classify(
    row: Row[Any], token: RefreshToken, idem: bytes | None, window: float
) -> RefreshOutcome:
    """Judge a token by its row. `rotated` here means: the store lost commits, heal it."""
    if row.ended_at is not None or row.is_void:
        return RefreshOutcome.ENDED
    if token.epoch < row.epoch:
        return RefreshOutcome.SUPERSEDED
    if row.now >= min(row.idle_until, row.absolute_until):
        return RefreshOutcome.EXPIRED
    if (token.epoch, token.gen) > (row.epoch, row.gen):
        # Only we make tokens, and only after a commit: the store was set back.
        return RefreshOutcome.ROTATED
    if token.gen == row.gen and token.digest == row.cur:
        return RefreshOutcome.CURRENT
    if token.gen == row.gen - 1 and token.digest == row.prev:
        age = row.now - row.rotated_at
        if age <= window or (idem is not None and idem == row.idem and age <= LONG_WINDOW):
            return RefreshOutcome.REPLAYED
    return RefreshOutcome.REUSE


async def _replay(
    connection: AsyncConnection, terms: Terms, row: Row[Any], token: RefreshToken
) -> Rotation | None:
    """Answer with the successor that was made before, under the root it was made with."""
    if row.now - row.rotated_at > terms.window and not await _count_replay(connection, row):
        return await _reuse(connection, terms, row)
    if row.kv not in terms.roots:
        return Rotation(outcome=RefreshOutcome.UNKNOWN, login=terms.login(row))
    secret = next_secret(terms.roots, row.kv, row.sid, row.epoch, row.gen, row.seed, token.secret)
    if hashlib.sha256(secret).digest() != row.cur:
        return Rotation(outcome=RefreshOutcome.UNKNOWN, login=terms.login(row))
    return Rotation(
        outcome=RefreshOutcome.REPLAYED,
        login=terms.login(row),
        refresh_token=encode(terms.roots, row.kv, row.sid, row.epoch, row.gen, secret),
    )


async def _count_replay(connection: AsyncConnection, row: Row[Any]) -> bool:
    """Count a repeat in the long window; False once there were too many."""
    statement = update(logins).where(
        logins.c.sid == row.sid, logins.c.cur == row.cur, logins.c.replays < MAXIMUM_REPLAYS
    )
    counted = await connection.execute(
        statement.values(replays=logins.c.replays + 1).returning(logins.c.sid)
    )
    return counted.one_or_none() is not None


async def _heal(
    connection: AsyncConnection,
    terms: Terms,
    row: Row[Any],
    token: RefreshToken,
    idem: bytes | None,
) -> Rotation | None:
    """Go on from a token that is ahead of its row: a restored store must not log anybody out."""
    successor, values = _successor(connection, terms, token, idem)
    statement = update(logins).where(
        logins.c.sid == row.sid, logins.c.cur == row.cur, logins.c.ended_at.is_(None)
    )
    values |= {"epoch": token.epoch, "gen": token.gen + 1, "prev": token.digest}
    healed = (await connection.execute(statement.values(values).returning(*logins.c))).one_or_none()
    if healed is None:
        return None
    await record(
        connection,
        event="login.healed",
        roots=terms.roots,
        identity=identity_of(row),
        sid=row.sid,
        client=row.client,
        detail={"from": [row.epoch, row.gen], "to": [healed.epoch, healed.gen]},
    )
    return Rotation(
        outcome=RefreshOutcome.ROTATED, login=terms.login(healed), refresh_token=successor
    )


async def _reuse(connection: AsyncConnection, terms: Terms, row: Row[Any]) -> Rotation | None:
    """End the login of a spent token: one of its two holders is not the user (RFC 9700 4.14.2)."""
    owner = subject_key(identity_of(row))
    await lock(connection, owner, *([row.anchor] if row.anchor is not None else []))
    change = Change(connection, row.now)
    ended = await end_login(change, terms, row.sid, why="reuse", trigger="reuse", epoch=row.epoch)
    if ended is None:
        return None
    await change.publish()
    return Rotation(outcome=RefreshOutcome.REUSE, login=ended)


def _successor(
    connection: AsyncConnection, terms: Terms, token: RefreshToken, idem: bytes | None
) -> tuple[str, dict[str, Any]]:
    """Make the token after this one, and the values that its row gets."""
    roots, now = terms.roots, present(connection)
    seed = terms.token_bytes(SEED_BYTES)
    place = (roots.active, token.sid, token.epoch, token.gen + 1)
    secret = next_secret(roots, *place, seed, token.secret)
    values = {
        "prev": logins.c.cur,
        "cur": hashlib.sha256(secret).digest(),
        "seed": seed,
        "kv": roots.active,
        "gen": logins.c.gen + 1,
        "replays": 0,
        "idem": idem,
        "rotated_at": now,
        "idle_until": now + terms.refresh_idle,
    }
    return encode(roots, *place, secret), values
