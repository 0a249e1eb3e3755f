"""The refresh token: its form, its secrets, and the records that a rotation speaks in.

A token proves by itself that we made it (its tag is checked without I/O), so that garbage costs
nothing and kills nothing, and only a provable old token of a family counts as reuse. The database
holds hashes and seeds but no secret; the root secret holds no seeds; and whoever has both still
needs the presented secret to make a successor (ADR 0006).
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from enum import StrEnum

from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity

VERSION = 1
SID_BYTES = 16
SEED_BYTES = 16
SECRET_BYTES = 32
TAG_BYTES = 16
LENGTH = 99
"""Characters of a token: 74 bytes in base64url without padding."""
LONG_WINDOW = 600.0
"""Seconds for which a repeat with the same Idempotency-Key gets the same answer."""
MAXIMUM_REPLAYS = 5
"""Repeats answered in the long window. The short one is not counted: many tabs are no attack."""


class RefreshOutcome(StrEnum):
    """What a presented refresh token led to: metric label and audit field at once."""

    ROTATED = "rotated"
    """A successor was made; the presented token is spent."""
    REPLAYED = "replayed"
    """The token was spent moments ago; the answer is the same successor."""
    CURRENT = "current"
    """The token is the live one and too young to rotate: an access token, no new refresh token."""
    EXPIRED = "expired"
    """The login was unused for too long, or has reached its absolute end."""
    ENDED = "ended"
    """The login was ended: log-out, revocation, an earlier reuse, or its subject's not-before."""
    SUPERSEDED = "superseded"
    """The family was keyed anew since; nothing dies."""
    REUSE = "reuse"
    """A spent token of this family came back: the login ends, and its anchor with it."""
    UNKNOWN = "unknown"
    """Not ours, of no login we know, or of a root that is gone; nothing dies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """A refresh token whose tag verified: ours, though perhaps spent.

    Attributes:
        kv: the root that it was made under.
        sid: the login, 16 bytes.
        epoch: counts the re-keyings of the login. gen: counts the rotations within an epoch.
    """

    kv: int
    sid: bytes
    epoch: int
    gen: int
    secret: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the secret: what the database holds of it."""
        return hashlib.sha256(self.secret).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One subject authenticated on one device.

    Attributes:
        sid: random id, 16 bytes.
        client: client kind. client_id: the OAuth client, or the kind.
        epoch, gen: where its refresh family stands.
        auth_time: when the subject last proved who they are.
        amr: how (RFC 8176).
        rotated_at: of the present refresh token.
        idle_until, absolute_until: a refresh is refused after either.
        anchor: digest of the legacy session it grew from; None if it has none.
        anchor_reader, anchor_key: the reader and key of that session; None if there is no anchor
            or its root is gone.
        anchor_until: that session's deadline as last seen; None = never or no anchor.
        anchor_seen_at: when it was last seen alive.
        ended_at, why: set once the login has ended.
    """

    sid: bytes
    identity: Identity
    client: str
    client_id: str
    epoch: int
    gen: int
    created_at: float
    auth_time: float
    amr: tuple[str, ...] = ()
    rotated_at: float
    idle_until: float
    absolute_until: float
    anchor: bytes | None = None
    anchor_reader: str | None = None
    anchor_key: str | None = field(default=None, repr=False)
    anchor_until: float | None = None
    anchor_seen_at: float | None = None
    ended_at: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The answer to a presented refresh token.

    Attributes:
        login: None only where no such login is known.
        refresh_token: the successor; None for `current` and for every refusal.
    """

    outcome: RefreshOutcome
    login: Login | None = None
    refresh_token: str | None = field(default=None, repr=False)


def first_secret(
    roots: RootSecrets, kv: int, sid: bytes, epoch: int, seed: bytes, anchor: bytes | None
) -> bytes:
    """Return the secret of generation 0 of an epoch. Raises KeyError if the root is gone."""
    return _secret(roots, kv, sid, epoch, 0, seed, anchor or b"")


def next_secret(
    roots: RootSecrets, kv: int, sid: bytes, epoch: int, gen: int, seed: bytes, before: bytes
) -> bytes:
    """Return the secret of generation `gen` from the one before. Raises KeyError, as above."""
    return _secret(roots, kv, sid, epoch, gen, seed, before)


def encode(roots: RootSecrets, kv: int, sid: bytes, epoch: int, gen: int, secret: bytes) -> str:
    """Write a token: 99 characters. Raises KeyError if the root `kv` is gone."""
    body = bytes((VERSION, kv)) + sid + _place(epoch, gen) + secret
    return base64.urlsafe_b64encode(body + _tag(roots, kv, body)).rstrip(b"=").decode()


def decode(text: str | bytes, roots: RootSecrets) -> RefreshToken | None:
    """Read a token that we made under a root still in the ring; None for anything else.

    Never raises. The tag is compared in constant time.
    """
    raw = _unbase64(text)
    if raw is None or raw[0] != VERSION or raw[1] not in roots:
        return None
    body, tag = raw[:-TAG_BYTES], raw[-TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(roots, raw[1], body)):
        return None
    return RefreshToken(
        kv=raw[1],
        sid=raw[2:18],
        epoch=int.from_bytes(raw[18:22]),
        gen=int.from_bytes(raw[22:26]),
        secret=body[26:],
    )


def _unbase64(text: str | bytes) -> bytes | None:
    if len(text) != LENGTH:
        return None
    try:
        given = text.encode("ascii") if isinstance(text, str) else text
        raw = base64.b64decode(given + b"=", b"-_", validate=True)
    except ValueError:
        return None
    # The last character has spare bits, and the plain alphabet is let through: one spelling only.
    return raw if base64.urlsafe_b64encode(raw)[:-1] == given else None


def _secret(
    roots: RootSecrets, kv: int, sid: bytes, epoch: int, gen: int, seed: bytes, before: bytes
) -> bytes:
    return roots.mac(kv, "refresh-secret", sid, _place(epoch, gen), seed, before)


def _tag(roots: RootSecrets, kv: int, body: bytes) -> bytes:
    return roots.mac(kv, "refresh-tag", body)[:TAG_BYTES]


def _place(epoch: int, gen: int) -> bytes:
    return epoch.to_bytes(4) + gen.to_bytes(4)
