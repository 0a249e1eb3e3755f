"""Real tokens and forged ones: an issuer with key and clock, and a signer that says anything."""

import json
import os
from collections.abc import Callable
from typing import Any

from crossfade.keys.jwks import KeyAlgorithm
from crossfade.keys.ring import KeyRing, KeyState, SigningKey, VerificationKey, generate
from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.testing import ManualClock
from crossfade.tokens import jws
from crossfade.tokens.anchor import AnchorHint
from crossfade.tokens.claims import AccessGrant
from crossfade.tokens.issuer import Issuer
from crossfade.tokens.verifier import TokenVerifier

ISSUER = "https://shop.example"
AUDIENCE = "shop"
ROOTS = RootSecrets([b"root secret of the token tests....."])
ANCHOR = AnchorHint(reader="sql", key="k3y-of-the-session", until=1_800_003_600.0)


def ring_of(
    algorithm: KeyAlgorithm = "EdDSA", state: KeyState = KeyState.ACTIVE
) -> tuple[KeyRing, SigningKey]:
    pem, jwk = generate(algorithm)
    signing = SigningKey.from_pem(pem, kid=jwk["kid"], algorithm=algorithm)
    return KeyRing([VerificationKey.from_jwk(jwk, state)], signing), signing


def grant(**changes: Any) -> AccessGrant:
    facts: dict[str, Any] = {
        "identity": Identity(subject="u1"),
        "sid": bytes(range(16)),
        "client": "web",
        "client_id": "web",
        "auth_time": 1_799_999_000.0,
    }
    return AccessGrant(**(facts | changes))


class Realm:
    """One issuer and one audience: mints what is right, signs what is not."""

    def __init__(
        self,
        algorithm: KeyAlgorithm = "EdDSA",
        *,
        access_ttl: float = 600.0,
        token_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.clock = ManualClock()
        self.ring, self.signing = ring_of(algorithm)
        self.verifier = TokenVerifier(
            issuer=ISSUER,
            audience=AUDIENCE,
            keys=lambda: self.ring,
            clock=self.clock,
            leeway=30.0,
            roots=ROOTS,
        )
        self.issuer = Issuer(
            issuer=ISSUER,
            audience=AUDIENCE,
            keys=lambda: self.ring,
            verifier=self.verifier,
            roots=ROOTS,
            clock=self.clock,
            access_ttl=access_ttl,
            token_bytes=token_bytes,
        )

    def header(self, **changes: Any) -> dict[str, Any]:
        plain = {"typ": "at+jwt", "alg": self.signing.algorithm, "kid": self.signing.kid}
        return _without_none(plain | changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.time())
        plain = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "u1",
            "sid": "AAECAwQFBgcICQoLDA0ODw",
            "jti": "t1",
            "client_id": "web",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "auth_time": now - 1000,
        }
        return _without_none(plain | changes)

    def sign(self, header: bytes | dict[str, Any], payload: bytes | dict[str, Any]) -> bytes:
        """Sign any header and payload; both may be raw bytes."""
        parts = (part if isinstance(part, bytes) else dumped(part) for part in (header, payload))
        signed = b".".join(jws.encode(part) for part in parts)
        return signed + b"." + jws.encode(self.signing.sign(signed))

    def forge(self, *, header: dict[str, Any] | None = None, **claims: Any) -> bytes:
        """Sign a token that is right but for some members; None leaves one out."""
        return self.sign(self.header(**(header or {})), self.claims(**claims))


def dumped(value: dict[str, Any]) -> bytes:
    """JSON as lenient as Python's own: NaN and all."""
    return json.dumps(value).encode()


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
