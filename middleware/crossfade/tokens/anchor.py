"""The `anc` claim: the key of a login's legacy session, sealed for this application alone.

It is a hint. The login row is the truth: after a rotation the key in a token already out is dead
(ADR 0007). Whoever holds the token cannot read it, and it opens in no other token, for everything
that the token says about its bearer is authenticated along with it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crossfade.errors import TokenRejected
from crossfade.keys.roots import RootSecrets, framed
from crossfade.principal import Identity
from crossfade.tokens import jws

_FORMAT = 1
_NONCE = 12
_LABEL = "anc"
_LATEST = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorHint:
    """Where a token's legacy session is kept.

    Attributes:
        reader: short name of its format.
        key: its key in the store.
        until: its deadline when the token was minted, whole POSIX seconds; None = none known.
    """

    reader: str
    key: str = field(repr=False)
    until: float | None = None


def seal(
    roots: RootSecrets,
    hint: AnchorHint,
    *,
    issuer: str,
    audience: str,
    identity: Identity,
    sid: bytes,
    client: str,
    token_bytes: Callable[[int], bytes] = os.urandom,
) -> str:
    """Encrypt a hint for one login: base64url of format, key version, nonce and AES-256-GCM.

    A fraction of a second is cut off the deadline: nobody may attach after it.

    Raises:
        ValueError: the reader's name is longer than 255 bytes.
    """
    reader = hint.reader.encode()
    until = 0 if hint.until is None else min(max(int(hint.until), 1), _LATEST)
    plain = bytes([len(reader)]) + reader + hint.key.encode() + until.to_bytes(4)
    nonce = token_bytes(_NONCE)
    # One key a login, so that random nonces never come near their bound.
    cipher = AESGCM(roots.derive(roots.active, _LABEL, sid))
    context = _context(issuer, audience, identity, sid, client)
    sealed = bytes([_FORMAT, roots.active]) + nonce + cipher.encrypt(nonce, plain, context)
    return jws.encode(sealed).decode()


def unseal(
    roots: RootSecrets,
    text: str,
    *,
    issuer: str,
    audience: str,
    identity: Identity,
    sid: bytes,
    client: str,
) -> AnchorHint | None:
    """Decrypt a hint in the context of its token.

    None if it is another's, altered, or sealed under a root that is gone: the token stays good, and
    only nothing is attached. Never raises.
    """
    try:
        sealed = jws.decode(text.encode())
        if len(sealed) < 2 + _NONCE or sealed[0] != _FORMAT or sealed[1] not in roots:
            return None
        nonce, box = sealed[2 : 2 + _NONCE], sealed[2 + _NONCE :]
        context = _context(issuer, audience, identity, sid, client)
        plain = AESGCM(roots.derive(sealed[1], _LABEL, sid)).decrypt(nonce, box, context)
        name, rest = plain[1 : 1 + plain[0]], plain[1 + plain[0] :]
        until = int.from_bytes(rest[-4:])
        return AnchorHint(reader=name.decode(), key=rest[:-4].decode(), until=until or None)
    except (TokenRejected, InvalidTag, ValueError, IndexError):
        return None


def _context(issuer: str, audience: str, identity: Identity, sid: bytes, client: str) -> bytes:
    parts = (issuer, audience, identity.tenant, identity.subject, identity.actor, client)
    iss, aud, tenant, subject, actor, kind = (part.encode() for part in parts)
    return framed(iss, aud, tenant, subject, actor, sid, kind)
