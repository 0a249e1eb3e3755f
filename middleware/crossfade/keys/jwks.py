"""Keys as JSON (RFC 7517): making a public JWK, naming it, and preparing one for verification.

One key has one algorithm (RFC 8725 3.1): a JWK without `alg` is not guessed at, and a key of
another curve, a short RSA key or one that carries private members is refused.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

KeyAlgorithm = Literal["ES256", "EdDSA", "RS256"]
"""What signs our tokens. HS256 is not among them: whoever verifies could also sign."""
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

ALGORITHMS: tuple[KeyAlgorithm, ...] = get_args(KeyAlgorithm)
MINIMUM_RSA_BITS = 2048

# What RFC 7638 3.2 and RFC 8037 2 hash, and all that a public key of ours shows.
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


def public_jwk(key: PublicKey, algorithm: KeyAlgorithm, kid: str | None = None) -> dict[str, str]:
    """Return the public JWK of a key; without a `kid` it is named by its thumbprint."""
    plain = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    jwk = {name: str(plain[name]) for name in _MEMBERS[plain["kty"]]}
    return jwk | {"kid": kid or thumbprint(jwk), "alg": algorithm, "use": "sig"}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a public JWK: 43 characters (RFC 7638)."""
    hashed = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    text = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def load_public_jwk(jwk: Mapping[str, Any]) -> tuple[str, KeyAlgorithm, PublicKey]:
    """Return `kid`, algorithm and key of a public JWK.

    Raises:
        ValueError: not a public signing key of an algorithm that we use, or one too weak for it.
    """
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not kid:
        raise ValueError("a key without `kid`")
    if algorithm not in ALGORITHMS:
        raise ValueError("a key for another algorithm")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("not a key for signatures")
    try:
        key = jwt.get_algorithm_by_name(algorithm).from_jwk(dict(jwk))
    except (jwt.InvalidKeyError, TypeError, ValueError, KeyError) as error:
        raise ValueError("a key that cannot be read") from error
    return kid, algorithm, fitting(key, algorithm)


def fitting(key: object, algorithm: KeyAlgorithm) -> PublicKey:
    """Return the key if the algorithm may use it (RFC 7518 3.3 and 3.4, RFC 8037 3.1).

    Raises:
        ValueError: another kind of key, a private one, another curve, or RSA below 2048 bits.
    """
    match algorithm, key:
        case "ES256", EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return key
        case "EdDSA", Ed25519PublicKey():
            return key
        case "RS256", RSAPublicKey() if key.key_size >= MINIMUM_RSA_BITS:
            return key
    raise ValueError(f"the key does not fit {algorithm}")
