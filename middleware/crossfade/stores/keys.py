"""Signing keys in SQL: public halves in clear, private halves sealed under the wrapping secret.

A dump of the database signs nothing, and the wrapping secret alone neither.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.errors import KeyConflict
from crossfade.keys.jwks import KeyAlgorithm
from crossfade.keys.ring import KeyRing, KeyState, SigningKey, VerificationKey, generate
from crossfade.keys.roots import RootSecrets
from crossfade.stores import audit
from crossfade.stores.engine import Database
from crossfade.stores.feed import FeedEntry, FeedKind, publish
from crossfade.stores.schema import keys

PURPOSE = "access"
_LABEL = "key-wrap"
_NONCE = 12
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """What an operator sees of a key.

    Attributes:
        kid: its name in token headers.
        algorithm: its one algorithm.
        state: where it stands in its life.
        created_at, activated_at, retiring_at, retired_at: POSIX seconds; None = not yet.
        can_sign: whether its private half is there and its wrapping secret is still known.
    """

    kid: str
    algorithm: str
    state: KeyState
    created_at: float
    activated_at: float | None
    retiring_at: float | None
    retired_at: float | None
    can_sign: bool


class KeyStore:
    """The key ring of access tokens, as the database has it.

    Args:
        database: where the keys are.
        wrapping: seals private keys; apart from the root secrets, so that no one leak has both.
    """

    def __init__(self, database: Database, wrapping: RootSecrets) -> None:
        self._database = database
        self._wrapping = wrapping
        self._rows: Sequence[Row[Any]] | None = None
        self._ring = KeyRing.empty()

    async def load(self, connection: AsyncConnection | None = None) -> KeyRing:
        """Read the ring: the same object as last time if no row has changed.

        A key whose wrapping secret is gone verifies and cannot sign. Raises StoreUnavailable.
        """
        query = (
            select(
                keys.c.kid, keys.c.algorithm, keys.c.state, keys.c.public_jwk, keys.c.private_enc
            )
            .where(keys.c.purpose == PURPOSE, keys.c.state != KeyState.RETIRED)
            .order_by(keys.c.activated_at.desc(), keys.c.kid)
        )
        rows = await self._fetch(query, connection)
        if rows != self._rows:
            self._ring = self._prepare(rows)
            self._rows = rows
        return self._ring

    async def add(
        self, algorithm: KeyAlgorithm, *, state: KeyState = KeyState.NEXT, actor: str
    ) -> str:
        """Make a key and return its `kid`. The very first may start active.

        Raises:
            ValueError: another state than next or active, or no algorithm of ours.
            StoreUnavailable: nothing was written.
        """
        if algorithm not in get_args(KeyAlgorithm):
            raise ValueError("keys are ES256, EdDSA or RS256")
        if state not in {KeyState.NEXT, KeyState.ACTIVE}:
            raise ValueError("a key begins as next or active")
        pem, jwk = generate(algorithm)
        kid = jwk["kid"]
        async with self._database.write() as connection:
            if state is KeyState.ACTIVE:
                await self._locked(connection)
                await self._demote(connection)
            await self._insert(connection, kid, algorithm, state, pem, jwk)
            await self._record(connection, "key.added", kid, actor, state=state, alg=algorithm)
        return kid

    async def activate(self, kid: str, *, actor: str) -> None:
        """Make the next key the one that signs; the former active one is retiring from then on.

        Already active is fine and changes nothing.

        Raises:
            KeyConflict: no such key, or one that has had its time.
            StoreUnavailable: nothing was written.
        """
        async with self._database.write() as connection:
            state = await self._state(connection, kid)
            if state is KeyState.ACTIVE:
                return
            if state is not KeyState.NEXT:
                raise KeyConflict(f"key {kid} is {state}: only a next key can become active")
            former = await self._demote(connection)
            await connection.execute(
                update(keys)
                .where(keys.c.kid == kid)
                .values(state=KeyState.ACTIVE, activated_at=self._database.now())
            )
            await self._record(connection, "key.activated", kid, actor, former=former)

    async def retire(self, kid: str, *, actor: str) -> None:
        """End a key: from now on it verifies nothing, and its private half is gone.

        Already retired is fine and changes nothing. The caller waits until the longest token that
        the key signed has ended.

        Raises:
            KeyConflict: no such key, or the one that signs: activate another first.
            StoreUnavailable: nothing was written.
        """
        async with self._database.write() as connection:
            state = await self._state(connection, kid)
            if state is KeyState.RETIRED:
                return
            if state is KeyState.ACTIVE:
                raise KeyConflict(f"key {kid} signs: activate another one before it is retired")
            await connection.execute(
                update(keys)
                .where(keys.c.kid == kid)
                .values(state=KeyState.RETIRED, retired_at=self._database.now(), private_enc=None)
            )
            await self._record(connection, "key.retired", kid, actor, former=state)

    async def distrust(self, algorithm: KeyAlgorithm, *, horizon: float, actor: str) -> list[str]:
        """Revoke every key that has signed, and make a new one active: a key was stolen.

        The feed carries the revocation, so that instances refuse the keys' tokens before they load
        the ring anew. Logins live on: their refresh tokens do not depend on signing keys.

        Args:
            algorithm: of the new key.
            horizon: seconds for which the feed remembers: the longest life of a token.

        Raises:
            StoreUnavailable: nothing was written.
        """
        pem, jwk = generate(algorithm)
        kid = jwk["kid"]
        async with self._database.write() as connection:
            states = await self._locked(connection)
            stolen = [k for k, s in states.items() if s in {KeyState.ACTIVE, KeyState.RETIRING}]
            now = self._database.now()
            await connection.execute(
                update(keys)
                .where(keys.c.kid.in_(stolen))
                .values(state=KeyState.RETIRED, retired_at=now, private_enc=None)
            )
            await self._insert(connection, kid, algorithm, KeyState.ACTIVE, pem, jwk)
            await self._record(connection, "key.distrusted", kid, actor, revoked=stolen)
            until = (await connection.execute(select(now))).scalar_one() + horizon
            entries = [
                FeedEntry(kind=FeedKind.KEY, value=k.encode(), expires_at=until) for k in stolen
            ]
            await publish(connection, now, entries)
        return stolen

    async def list(self) -> Sequence[KeyRow]:
        """Return all keys, retired ones too, the oldest first. Raises StoreUnavailable."""
        query = (
            select(keys).where(keys.c.purpose == PURPOSE).order_by(keys.c.created_at, keys.c.kid)
        )
        return [
            KeyRow(
                kid=row.kid,
                algorithm=row.algorithm,
                state=KeyState(row.state),
                created_at=row.created_at,
                activated_at=row.activated_at,
                retiring_at=row.retiring_at,
                retired_at=row.retired_at,
                can_sign=bool(row.private_enc) and row.private_enc[0] in self._wrapping,
            )
            for row in await self._fetch(query, None)
        ]

    async def _insert(
        self,
        connection: AsyncConnection,
        kid: str,
        algorithm: KeyAlgorithm,
        state: KeyState,
        pem: bytes,
        jwk: Mapping[str, Any],
    ) -> None:
        now = self._database.now()
        await connection.execute(
            insert(keys).values(
                kid=kid,
                purpose=PURPOSE,
                algorithm=algorithm,
                state=state,
                public_jwk=json.dumps(jwk, sort_keys=True),
                private_enc=self._seal(pem, kid),
                created_at=now,
                activated_at=now if state is KeyState.ACTIVE else None,
            )
        )

    async def _fetch(
        self, query: Select[Any], connection: AsyncConnection | None
    ) -> Sequence[Row[Any]]:
        if connection is None:
            async with self._database.read() as own:
                return await self._fetch(query, own)
        rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
        return rows

    def _prepare(self, rows: Sequence[Row[Any]]) -> KeyRing:
        known, signing = [], None
        for row in rows:
            try:
                known.append(
                    VerificationKey.from_jwk(json.loads(row.public_jwk), KeyState(row.state))
                )
            except ValueError:
                # One spoilt row must not take the others with it.
                _log.error("signing key %s cannot be read and is left out", row.kid)
                continue
            if signing is None and row.state == KeyState.ACTIVE:
                signing = self._open(row)
        return KeyRing(known, signing)

    def _open(self, row: Row[Any]) -> SigningKey | None:
        """Decrypt a private key; None, with a line in the log, if that cannot be done."""
        sealed: bytes = row.private_enc or b""
        if not sealed or sealed[0] not in self._wrapping:
            _log.error("the wrapping secret of signing key %s is gone: it cannot sign", row.kid)
            return None
        cipher = AESGCM(self._wrapping.derive(sealed[0], _LABEL))
        nonce, box = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            pem = cipher.decrypt(nonce, box, row.kid.encode())
            algorithm = cast("KeyAlgorithm", row.algorithm)  # one that does not fit is refused
            return SigningKey.from_pem(pem, kid=row.kid, algorithm=algorithm)
        except (InvalidTag, ValueError):
            _log.error("the private half of signing key %s is spoilt: it cannot sign", row.kid)
            return None

    def _seal(self, pem: bytes, kid: str) -> bytes:
        kv, nonce = self._wrapping.active, os.urandom(_NONCE)
        # With the name as context, one key's private half cannot be put in another's row.
        box = AESGCM(self._wrapping.derive(kv, _LABEL)).encrypt(nonce, pem, kid.encode())
        return bytes([kv]) + nonce + box

    async def _locked(self, connection: AsyncConnection) -> dict[str, KeyState]:
        """Lock the ring, so that two operators at once do not leave two active keys."""
        query = select(keys.c.kid, keys.c.state).where(keys.c.purpose == PURPOSE)
        rows = await connection.execute(query.order_by(keys.c.kid).with_for_update())
        return {row.kid: KeyState(row.state) for row in rows}

    async def _state(self, connection: AsyncConnection, kid: str) -> KeyState:
        state = (await self._locked(connection)).get(kid)
        if state is None:
            raise KeyConflict("there is no key of that name: see `crossfade keys list`")
        return state

    async def _demote(self, connection: AsyncConnection) -> str | None:
        """Retire the active key from signing; return its name."""
        statement = (
            update(keys)
            .where(keys.c.purpose == PURPOSE, keys.c.state == KeyState.ACTIVE)
            .values(state=KeyState.RETIRING, retiring_at=self._database.now())
            .returning(keys.c.kid)
        )
        former: str | None = (await connection.execute(statement)).scalars().first()
        return former

    async def _record(
        self, connection: AsyncConnection, event: str, kid: str, actor: str, **detail: object
    ) -> None:
        await audit.record(connection, event=event, actor=actor, detail={"kid": kid, **detail})
