"""What a grant becomes in a token, and what a grant may not hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_factory import ANCHOR, grant

from crossfade.principal import Identity
from crossfade.tokens.claims import check_claims, claims_of, client_kind, identity_of, sid_of

TIMES = {"iss": "i", "aud": "a", "jti": "j", "iat": 1, "nbf": 1, "exp": 2}
WORD = st.text(min_size=1, max_size=20)


def test_a_plain_grant_becomes_the_four_claims_that_it_must() -> None:
    assert claims_of(grant()) == {
        "sub": "u1",
        "sid": "AAECAwQFBgcICQoLDA0ODw",
        "client_id": "web",
        "auth_time": 1_799_999_000,
    }


def test_tenant_actor_scopes_and_methods_are_written_where_there_are_any() -> None:
    whole = grant(
        identity=Identity(subject="u1", tenant="t1", actor="admin"),
        scopes=("read", "write"),
        amr=("pwd", "otp"),
        extra={"roles": ["clerk"]},
    )
    claims = claims_of(whole)
    assert (claims["tenant"], claims["act"]) == ("t1", {"sub": "admin"})
    assert (claims["scope"], claims["amr"]) == ("read write", ["pwd", "otp"])
    assert claims["roles"] == ["clerk"]


def test_a_log_in_keeps_its_fraction_of_a_second() -> None:
    assert claims_of(grant(auth_time=1_799_999_000.25))["auth_time"] == 1_799_999_000.25


@given(
    subject=WORD,
    tenant=st.text(max_size=20),
    actor=st.text(max_size=20),
    sid=st.binary(min_size=16, max_size=16),
)
def test_identity_and_sid_come_back_as_they_were(
    subject: str, tenant: str, actor: str, sid: bytes
) -> None:
    identity = Identity(subject=subject, tenant=tenant, actor=actor)
    claims = TIMES | claims_of(grant(identity=identity, sid=sid))
    check_claims(claims)
    assert identity_of(claims) == identity
    assert sid_of(claims) == sid


@pytest.mark.parametrize("name", ["sub", "exp", "anc", "tenant", "act", "scope"])
def test_a_claim_of_ours_cannot_be_overwritten(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        grant(extra={name: "x"})


@pytest.mark.parametrize(
    ("client", "client_id"), [("web", "spa"), ("machine", "web"), ("web", "mobile")]
)
def test_a_client_id_of_another_kind_is_refused(client: str, client_id: str) -> None:
    with pytest.raises(ValueError, match="client_id"):
        grant(client=client, client_id=client_id)


def test_a_sid_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        grant(sid=b"short")


def test_whoever_is_neither_web_nor_mobile_is_a_machine() -> None:
    kinds = {name: client_kind(name) for name in ("web", "mobile", "billing", "Web", "")}
    assert kinds == {
        "web": "web",
        "mobile": "mobile",
        "billing": "machine",
        "Web": "machine",
        "": "machine",
    }


def test_a_grant_shows_no_anchor_key_and_no_extra_claims() -> None:
    shown = repr(grant(anchor=ANCHOR, extra={"note": "private"}))
    assert ANCHOR.key not in shown
    assert "private" not in shown
