"""The key ring: who signs, who verifies, what is published."""

import pytest
from token_factory import ring_of

from crossfade.errors import KeysUnavailable
from crossfade.keys.jwks import ALGORITHMS, KeyAlgorithm
from crossfade.keys.ring import KeyRing, KeyState, SigningKey, VerificationKey, generate


def key(state: KeyState, kid: str) -> VerificationKey:
    return VerificationKey.from_jwk(generate("EdDSA", kid=kid)[1], state)


def ring_of_states() -> KeyRing:
    return KeyRing([key(state, kid=state.value) for state in KeyState], None)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_verifies_what_its_private_half_signed_and_nothing_else(
    algorithm: KeyAlgorithm,
) -> None:
    ring, signing = ring_of(algorithm)
    verification = ring.get(signing.kid)
    assert verification is not None
    signature = signing.sign(b"message")
    assert verification.verify(b"message", signature)
    assert not verification.verify(b"massage", signature)
    assert not verification.verify(b"message", b"")
    assert not verification.verify(b"message", bytes(len(signature)))
    assert not verification.verify(b"message", signature + b"\0")


def test_all_keys_but_retired_ones_verify() -> None:
    ring = ring_of_states()
    assert {state: ring.get(state.value) is not None for state in KeyState} == {
        KeyState.NEXT: True,
        KeyState.ACTIVE: True,
        KeyState.RETIRING: True,
        KeyState.RETIRED: False,
    }
    assert set(ring.kids) == {"next", "active", "retiring"}


def test_what_verifies_is_published() -> None:
    ring = ring_of_states()
    assert {jwk["kid"] for jwk in ring.jwks()["keys"]} == set(ring.kids)


def test_a_published_set_makes_the_same_ring_again() -> None:
    ring, _ = ring_of("ES256")
    again = KeyRing([VerificationKey.from_jwk(jwk) for jwk in ring.jwks()["keys"]], None)
    assert again.jwks() == ring.jwks()


def test_an_empty_ring_is_false_and_signs_nothing() -> None:
    assert not KeyRing.empty()
    assert KeyRing.empty().jwks() == {"keys": []}
    with pytest.raises(KeysUnavailable):
        _ = KeyRing.empty().signing


def test_rings_of_equal_keys_are_equal_and_a_change_of_state_makes_another() -> None:
    jwk = generate("EdDSA")[1]
    before, same, after = (
        KeyRing([VerificationKey.from_jwk(jwk, state)], None)
        for state in (KeyState.NEXT, KeyState.NEXT, KeyState.ACTIVE)
    )
    assert before == same
    assert hash(before) == hash(same)
    assert before != after
    assert before != "ring"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key_of_another_algorithm_is_refused(algorithm: KeyAlgorithm) -> None:
    other: KeyAlgorithm = "ES256" if algorithm == "EdDSA" else "EdDSA"
    with pytest.raises(ValueError, match="fit"):
        SigningKey.from_pem(generate(other)[0], kid="a", algorithm=algorithm)


def test_no_repr_shows_a_key() -> None:
    ring, signing = ring_of()
    verification = ring.get(signing.kid)
    assert repr(ring) == f"<KeyRing {signing.kid}>"
    assert "PrivateKey" not in repr(signing)
    assert "PublicKey" not in repr(verification)
