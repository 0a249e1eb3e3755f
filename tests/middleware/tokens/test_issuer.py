"""Minting: what leaves has been verified, fits its carrier, and ends a little by chance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_factory import ANCHOR, Realm, grant, ring_of

from crossfade.errors import KeysUnavailable, NotIssued, TokenTooLarge
from crossfade.keys.jwks import ALGORITHMS, KeyAlgorithm
from crossfade.keys.ring import KeyRing
from crossfade.principal import Identity

REALM = Realm()


def ending_with(byte: int) -> Realm:
    return Realm(token_bytes=lambda size: bytes([byte]) * size)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_minted_token_says_what_was_granted(algorithm: KeyAlgorithm) -> None:
    realm = Realm(algorithm)
    identity = Identity(subject="u1", tenant="t1", actor="admin")
    minted = realm.issuer.mint(
        grant(identity=identity, scopes=("a", "b"), anchor=ANCHOR, extra={"roles": ["x"]})
    )
    verified = realm.verifier.verify(minted.token.encode())
    assert verified == minted.verified
    assert verified.identity == identity
    assert (verified.scopes, verified.anchor) == (("a", "b"), ANCHOR)
    assert verified.claims["roles"] == ["x"]
    assert verified.issued_at == verified.not_before == int(realm.clock.time())


def test_what_was_minted_is_already_in_the_memory_of_its_verifier() -> None:
    minted = REALM.issuer.mint(grant())
    assert REALM.verifier.verify(minted.token.encode()) is minted.verified


def test_the_life_is_shortened_by_at_most_a_twentieth() -> None:
    assert ending_with(0x00).issuer.mint(grant()).expires_in == 600
    assert ending_with(0xFF).issuer.mint(grant()).expires_in == 571


@pytest.mark.parametrize("ttl", [0.5, 1, 2, 3, 5])
def test_a_life_of_few_seconds_keeps_them_all(ttl: float) -> None:
    realm = Realm(access_ttl=ttl)
    assert realm.issuer.mint(grant()).expires_in == max(1, ttl)


def test_two_tokens_of_one_moment_differ() -> None:
    first, second = REALM.issuer.mint(grant()), REALM.issuer.mint(grant())
    assert first.verified.jti != second.verified.jti


def test_without_an_active_key_nothing_is_minted() -> None:
    realm = Realm()
    realm.ring = KeyRing.empty()
    with pytest.raises(KeysUnavailable):
        realm.issuer.mint(grant())


def test_a_signing_key_that_nobody_could_verify_mints_nothing() -> None:
    realm, (other, _) = Realm(), ring_of()
    known = [key for kid in other.kids if (key := other.get(kid))]
    realm.ring = KeyRing(known, realm.signing)
    with pytest.raises(KeysUnavailable, match="do not verify"):
        realm.issuer.mint(grant())


def test_a_token_beyond_its_budget_does_not_leave() -> None:
    size = len(REALM.issuer.mint(grant()).token)
    assert len(REALM.issuer.mint(grant(), budget=size).token) == size
    with pytest.raises(TokenTooLarge) as refused:
        REALM.issuer.mint(grant(), budget=size - 1)
    assert (refused.value.size, refused.value.budget) == (size, size - 1)


def test_no_token_is_larger_than_a_bearer_may_be() -> None:
    with pytest.raises(TokenTooLarge):
        REALM.issuer.mint(grant(extra={"blob": "x" * 9000}), budget=10**6)


@pytest.mark.parametrize(
    "extra",
    [
        {"x": b"bytes"},
        {"x": float("nan")},
        {"x": "\ud800"},
        {"x": {1, 2}},
        {"x": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]},
    ],
    ids=["bytes", "nan", "surrogate", "set", "depth"],
)
def test_what_no_token_can_say_is_not_issued(extra: dict[str, object]) -> None:
    with pytest.raises(NotIssued, match="claims"):
        REALM.issuer.mint(grant(extra=extra))


def test_nobody_gets_a_token_for_an_empty_subject() -> None:
    with pytest.raises(NotIssued):
        REALM.issuer.mint(grant(identity=Identity(subject="")))


def test_the_text_of_a_token_shows_in_no_repr() -> None:
    minted = REALM.issuer.mint(grant())
    assert minted.token not in repr(minted)
    assert minted.token.rpartition(".")[2] not in repr(minted)


@given(
    subject=st.text(min_size=1, max_size=30), tenant=st.text(max_size=30), key=st.text(max_size=60)
)
def test_any_identity_and_anchor_survive_the_way_through_a_token(
    subject: str, tenant: str, key: str
) -> None:
    identity = Identity(subject=subject, tenant=tenant)
    hint = type(ANCHOR)(reader="sql", key=key, until=None)
    verified = REALM.issuer.mint(grant(identity=identity, anchor=hint)).verified
    assert verified.identity == identity
    assert verified.anchor == hint
