"""Keys as JSON: their names, and which of them may be used for what."""

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from crossfade.keys.jwks import ALGORITHMS, KeyAlgorithm, load_public_jwk, thumbprint
from crossfade.keys.ring import generate

# RFC 7638 3.1
RSA_EXAMPLE = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_B"
    "JECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F"
    "DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4"
    "vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
# RFC 8037 A.2 and A.3
ED_EXAMPLE = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def changed(algorithm: KeyAlgorithm, **members: Any) -> dict[str, Any]:
    jwk = {**generate(algorithm)[1], **members}
    return {name: value for name, value in jwk.items() if value is not None}


def test_a_thumbprint_is_the_one_of_the_standards() -> None:
    assert thumbprint(RSA_EXAMPLE) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert thumbprint(ED_EXAMPLE) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_generated_key_is_named_by_its_thumbprint_and_shows_no_private_part(
    algorithm: KeyAlgorithm,
) -> None:
    pem, jwk = generate(algorithm)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert jwk["kid"] == thumbprint(jwk)
    assert (jwk["alg"], jwk["use"]) == (algorithm, "sig")
    assert not {"d", "p", "q", "dp", "dq", "qi", "key_ops"} & set(jwk)


def test_a_key_can_be_named_by_hand() -> None:
    assert generate("EdDSA", kid="2026-11")[1]["kid"] == "2026-11"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_public_key_is_read_with_its_name_and_algorithm(algorithm: KeyAlgorithm) -> None:
    kid, found, _ = load_public_jwk(changed(algorithm, kid="a"))
    assert (kid, found) == ("a", algorithm)


P384 = jwt.get_algorithm_by_name("ES384").to_jwk(
    ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True
)
PRIVATE = jwt.get_algorithm_by_name("ES256").to_jwk(
    ec.generate_private_key(ec.SECP256R1()), as_dict=True
)

BAD: dict[str, dict[str, Any]] = {
    "no kid": changed("EdDSA", kid=None),
    "an empty kid": changed("EdDSA", kid=""),
    "kid is a number": changed("EdDSA", kid=1),
    "no alg": changed("EdDSA", alg=None),
    "HS256": {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "a"},
    "alg of another kind": changed("EdDSA", alg="ES256"),
    "alg is a list": changed("EdDSA", alg=["EdDSA"]),
    "for encryption": changed("RS256", use="enc"),
    "a private key": {**PRIVATE, "alg": "ES256", "kid": "a"},
    "another curve": {**P384, "alg": "ES256", "kid": "a"},
    "a point off the curve": changed("ES256", x="AA", y="AA"),
    "no coordinates": changed("ES256", x=None),
    "coordinates are numbers": changed("ES256", x=1, y=2),
    "Ed25519 of another length": changed("EdDSA", x="AAAA"),
    "Ed448": changed("EdDSA", crv="Ed448"),
    "a short RSA key": changed("RS256", n="w" * 171),
    "kty is missing": changed("EdDSA", kty=None),
    "kty is a list": changed("EdDSA", kty=[]),
}


@pytest.mark.parametrize("jwk", BAD.values(), ids=BAD)
def test_a_key_that_cannot_serve_is_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="key"):
        load_public_jwk(jwk)
