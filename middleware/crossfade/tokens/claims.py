"""What an access token says: the grant it is minted from, and what it proves (RFC 9068 2.2).

Times in claims are whole seconds, save `auth_time`: it is compared with the moment of a "log out
everywhere", and a log-in in the same second must fall on the right side of it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crossfade.errors import Reason, TokenRejected
from crossfade.principal import Identity
from crossfade.tokens import jws
from crossfade.tokens.anchor import AnchorHint

if TYPE_CHECKING:
    from crossfade.settings import ClientKind  # needs an extra that verifying services do without

MAXIMUM_LIFETIME = 24 * 3600
"""Seconds from `iat` to `exp` beyond which a token is refused, whoever signed it."""
SID_BYTES = 16
_USER_CLIENTS = frozenset({"web", "mobile"})
_LATEST = 253_402_300_799  # the year 9999: later ones break datetime in whoever reads them
_SID = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]")  # 16 bytes: the last four bits must be zero


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessGrant:
    """What a token is to say.

    Attributes:
        identity: who.
        sid: the login's id, 16 bytes.
        client: client kind; `client_id` carries it, so `web` and `mobile` are their own ids.
        client_id: the kind, or the registered name of a machine client.
        auth_time: when the user last proved who they are, POSIX seconds.
        amr: how (RFC 8176).
        scopes: what the token may be used for.
        extra: further claims by name: JSON values, none of ours.
        anchor: the login's legacy session; None leaves the claim out.

    Raises:
        ValueError: sid, client_id or a name in `extra` is not as told above.
    """

    identity: Identity
    sid: bytes
    client: "ClientKind"
    client_id: str
    auth_time: float
    amr: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    anchor: AnchorHint | None = None

    def __post_init__(self) -> None:
        if len(self.sid) != SID_BYTES:
            raise ValueError("sid must have 16 bytes")
        if client_kind(self.client_id) != self.client:
            raise ValueError(f"client_id does not belong to a {self.client} client")
        if taken := set(_FORM) & set(self.extra):
            raise ValueError(f"extra claims take names of ours: {', '.join(sorted(taken))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """What a token proved. It may have expired: compare `expires_at` plus leeway with your clock.

    Attributes:
        identity: who.
        sid: the login's id, 16 bytes.
        jti: the token's own id.
        kid: the key that signed it.
        client: client kind.
        client_id: the kind, or the name of a machine client.
        scopes: what it may be used for.
        auth_time: when the user last proved who they are, POSIX seconds.
        issued_at, not_before, expires_at: whole POSIX seconds.
        claims: all claims, read-only.
        anchor: the login's legacy session, if the token names one that we can read.
    """

    identity: Identity
    sid: bytes
    jti: str
    kid: str
    client: str
    client_id: str
    scopes: tuple[str, ...]
    auth_time: float
    issued_at: int
    not_before: int
    expires_at: int
    claims: Mapping[str, Any]
    anchor: AnchorHint | None

    def __repr__(self) -> str:
        """Show that it is one, and nothing that it says."""
        return "<VerifiedToken>"

    @property
    def login_id(self) -> str:
        """The login's id as the token spells it: 22 characters of base64url."""
        return jws.encode(self.sid).decode()


def client_kind(client_id: str) -> str:
    """Return the kind of a client: `web` and `mobile` are ids and kinds, all else is a machine."""
    return client_id if client_id in _USER_CLIENTS else "machine"


def claims_of(grant: AccessGrant) -> dict[str, Any]:
    """Return the claims that a grant decides; the others are the issuer's."""
    identity, auth_time = grant.identity, grant.auth_time
    claims = {
        "sub": identity.subject,
        "sid": jws.encode(grant.sid).decode(),
        "client_id": grant.client_id,
        "auth_time": int(auth_time) if auth_time == int(auth_time) else auth_time,
    }
    optional = {
        "tenant": identity.tenant,
        "act": {"sub": identity.actor} if identity.actor else None,
        "amr": list(grant.amr),
        "scope": " ".join(grant.scopes),
    }
    return {**grant.extra, **claims, **{name: value for name, value in optional.items() if value}}


def check_claims(claims: Mapping[str, Any]) -> None:
    """Check that all claims of ours are there, of their type and in their range.

    Booleans are no numbers here, and numbers no text: PyJWT lets both pass.

    Raises:
        TokenRejected: bad claims; names the claim.
    """
    for name, fits in _FORM.items():
        if name in claims:
            if not fits(claims[name]):
                raise TokenRejected(Reason.BAD_CLAIMS, name)
        elif name in _REQUIRED:
            raise TokenRejected(Reason.BAD_CLAIMS, f"{name} is missing")
    issued_at, expires_at = claims["iat"], claims["exp"]
    if expires_at <= issued_at or expires_at <= claims["nbf"]:
        raise TokenRejected(Reason.BAD_CLAIMS, "ends before it begins")
    if expires_at - issued_at > MAXIMUM_LIFETIME:
        raise TokenRejected(Reason.BAD_CLAIMS, "lives longer than a day")


def identity_of(claims: Mapping[str, Any]) -> Identity:
    """Return who checked claims are about; the actor is `act.sub` (RFC 8693 4.1)."""
    actor = claims["act"]["sub"] if "act" in claims else ""
    return Identity(subject=claims["sub"], tenant=claims.get("tenant", ""), actor=actor)


def sid_of(claims: Mapping[str, Any]) -> bytes:
    """Return the login's id of checked claims."""
    return jws.decode(claims["sid"].encode())


def read_claims(
    claims: dict[str, Any],
    *,
    kid: str,
    identity: Identity,
    sid: bytes,
    anchor: AnchorHint | None = None,
) -> VerifiedToken:
    """Make the record of checked claims."""
    client_id = claims["client_id"]
    return VerifiedToken(
        identity=identity,
        sid=sid,
        jti=claims["jti"],
        kid=kid,
        client=client_kind(client_id),
        client_id=client_id,
        scopes=tuple(claims.get("scope", "").split()),
        auth_time=claims["auth_time"],
        issued_at=claims["iat"],
        not_before=claims["nbf"],
        expires_at=claims["exp"],
        claims=MappingProxyType(claims),
        anchor=anchor,
    )


def _text(value: object) -> bool:
    return type(value) is str and value != ""


def _texts(value: object) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _audience(value: object) -> bool:
    return _text(value) or (_texts(value) and value != [])


def _moment(value: object) -> bool:
    return type(value) is int and 0 < value <= _LATEST


def _fine_moment(value: object) -> bool:
    return type(value) in {int, float} and 0 <= value <= _LATEST  # type: ignore[operator]  # a number


def _sid(value: object) -> bool:
    return type(value) is str and _SID.fullmatch(value) is not None


def _actor(value: object) -> bool:
    return type(value) is dict and _text(value.get("sub"))


_FORM: dict[str, Callable[[object], bool]] = {
    "iss": _text,
    "aud": _audience,
    "sub": _text,
    "sid": _sid,
    "jti": _text,
    "client_id": _text,
    "iat": _moment,
    "nbf": _moment,
    "exp": _moment,
    "auth_time": _fine_moment,
    "amr": _texts,
    "scope": _text,
    "tenant": _text,
    "act": _actor,
    "anc": _text,
}
_REQUIRED = frozenset(_FORM) - {"amr", "scope", "tenant", "act", "anc"}
