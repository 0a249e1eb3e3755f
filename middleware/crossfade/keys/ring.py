"""The key ring of one purpose: which keys verify, and the one that signs.

A key goes `next` -> `active` -> `retiring` -> `retired`. It signs only while active, and it becomes
active only after every live instance has published it; so no verifier meets a `kid` that it cannot
know.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from crossfade.errors import KeysUnavailable
from crossfade.keys.jwks import (
    MINIMUM_RSA_BITS,
    KeyAlgorithm,
    PublicKey,
    fitting,
    load_public_jwk,
    public_jwk,
)

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey


class KeyState(StrEnum):
    """Where a key stands in its life."""

    NEXT = "next"
    """Published, so that verifiers know it before it signs."""
    ACTIVE = "active"
    """Signs; there is at most one."""
    RETIRING = "retiring"
    """Signs no more; tokens that it signed are still good."""
    RETIRED = "retired"
    """Verifies nothing and is published no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One public key, prepared for use.

    Attributes:
        kid: its name in token headers.
        algorithm: the only `alg` that it verifies.
        state: next, active and retiring keys verify.
        public_jwk: what the JWKS publishes (RFC 7517).
    """

    kid: str
    algorithm: KeyAlgorithm
    state: KeyState
    public_jwk: Mapping[str, Any]
    key: PublicKey = field(repr=False, compare=False)
    _jwa: Any = field(repr=False, compare=False)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any], state: KeyState = KeyState.ACTIVE) -> Self:
        """Prepare a public JWK. Raises ValueError if it is none of a kind that we use."""
        kid, algorithm, key = load_public_jwk(jwk)
        return cls(
            kid=kid,
            algorithm=algorithm,
            state=state,
            public_jwk=MappingProxyType(public_jwk(key, algorithm, kid)),
            key=key,
            _jwa=jwt.get_algorithm_by_name(algorithm),
        )

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether this key signed the message."""
        return bool(self._jwa.verify(message, self.key, signature))


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """The private half of the active key."""

    kid: str
    algorithm: KeyAlgorithm
    key: PrivateKey = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, pem: bytes, *, kid: str, algorithm: KeyAlgorithm) -> Self:
        """Load an unencrypted PKCS#8 key. Raises ValueError unless it fits the algorithm."""
        key = load_pem_private_key(pem, password=None)
        if not isinstance(key, PrivateKey):
            raise ValueError("not a key that signs")  # noqa: TRY004 - one error for a bad key
        fitting(key.public_key(), algorithm)
        return cls(kid=kid, algorithm=algorithm, key=key)

    def sign(self, message: bytes) -> bytes:
        """Return the JWS signature of the message (RFC 7518 3)."""
        return bytes(jwt.get_algorithm_by_name(self.algorithm).sign(message, self.key))


class KeyRing:
    """All keys of one purpose at one moment. Immutable: news make a new ring.

    Verifiers drop what they remember when the ring becomes another object; whoever loads rings
    therefore hands out the same object as long as nothing changed.
    """

    __slots__ = ("_known", "_signing")

    def __init__(self, verification: Iterable[VerificationKey], signing: SigningKey | None) -> None:
        self._known = {key.kid: key for key in verification if key.state is not KeyState.RETIRED}
        self._signing = signing

    @classmethod
    def empty(cls) -> Self:
        """Return a ring that verifies nothing: what an instance has before its first load."""
        return cls((), None)

    def __bool__(self) -> bool:
        """Say whether any key verifies."""
        return bool(self._known)

    def __eq__(self, other: object) -> bool:
        """Compare keys, states and the signing key's name."""
        if not isinstance(other, KeyRing):
            return NotImplemented
        return self._known == other._known and self._signing == other._signing

    def __hash__(self) -> int:
        return hash((*self._known, self._signing))

    def __repr__(self) -> str:
        """Show the public names."""
        return f"<KeyRing {', '.join(self._known) or 'empty'}>"

    def get(self, kid: str) -> VerificationKey | None:
        """Return the key of that name if it verifies; None if it is unknown or retired."""
        return self._known.get(kid)

    @property
    def signing(self) -> SigningKey:
        """The active private key. Raises KeysUnavailable without one that can be used."""
        if self._signing is None:
            raise KeysUnavailable("no active signing key could be loaded")
        return self._signing

    @property
    def kids(self) -> tuple[str, ...]:
        """Names of all keys that verify."""
        return tuple(self._known)

    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """Return the JWK Set to publish: next, active and retiring keys (RFC 7517 5)."""
        return {"keys": [dict(key.public_jwk) for key in self._known.values()]}


def generate(algorithm: KeyAlgorithm, kid: str | None = None) -> tuple[bytes, dict[str, str]]:
    """Make a key pair: the private key as PKCS#8 PEM, and the public JWK.

    Without `kid` the key is named by its thumbprint (RFC 7638).
    """
    key: PrivateKey
    match algorithm:
        case "ES256":
            key = generate_private_key(SECP256R1())
        case "EdDSA":
            key = Ed25519PrivateKey.generate()
        case "RS256":
            key = generate_rsa(public_exponent=65537, key_size=MINIMUM_RSA_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, public_jwk(key.public_key(), algorithm, kid)
