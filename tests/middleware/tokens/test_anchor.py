"""The sealed anchor: it opens for this application, in this very token, and nowhere else."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_factory import ANCHOR, AUDIENCE, ISSUER, ROOTS

from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.tokens.anchor import AnchorHint, seal, unseal

CONTEXT: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": AUDIENCE,
    "identity": Identity(subject="u1", tenant="t1"),
    "sid": bytes(16),
    "client": "web",
}
OTHERS: dict[str, dict[str, Any]] = {
    "issuer": {"issuer": "https://evil.example"},
    "audience": {"audience": "stock"},
    "subject": {"identity": Identity(subject="u2", tenant="t1")},
    "tenant": {"identity": Identity(subject="u1", tenant="t2")},
    "actor": {"identity": Identity(subject="u1", tenant="t1", actor="admin")},
    "parts shifted": {"identity": Identity(subject="1u1", tenant="t")},
    "sid": {"sid": bytes(15) + b"\1"},
    "client": {"client": "mobile"},
}


def test_an_anchor_comes_back_as_it_was_sealed() -> None:
    assert unseal(ROOTS, seal(ROOTS, ANCHOR, **CONTEXT), **CONTEXT) == ANCHOR


def test_a_session_without_a_deadline_has_none_afterwards() -> None:
    hint = AnchorHint(reader="starlette", key="ünïcode")
    assert unseal(ROOTS, seal(ROOTS, hint, **CONTEXT), **CONTEXT) == hint


def test_a_fraction_of_a_second_is_cut_off_the_deadline() -> None:
    sealed = seal(ROOTS, AnchorHint(reader="sql", key="k", until=1_800_000_000.9), **CONTEXT)
    hint = unseal(ROOTS, sealed, **CONTEXT)
    assert hint is not None
    assert hint.until == 1_800_000_000


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_an_anchor_opens_in_no_other_token(changes: dict[str, Any]) -> None:
    assert unseal(ROOTS, seal(ROOTS, ANCHOR, **CONTEXT), **(CONTEXT | changes)) is None


def test_an_anchor_outlives_a_new_root_and_not_the_end_of_its_own() -> None:
    old, new = b"o" * 32, b"n" * 32
    sealed = seal(RootSecrets([old]), ANCHOR, **CONTEXT)
    assert unseal(RootSecrets([new, old]), sealed, **CONTEXT) == ANCHOR
    assert unseal(RootSecrets([new]), sealed, **CONTEXT) is None


def test_the_same_anchor_is_never_sealed_alike() -> None:
    assert seal(ROOTS, ANCHOR, **CONTEXT) != seal(ROOTS, ANCHOR, **CONTEXT)


def test_a_django_key_takes_ninety_characters() -> None:
    hint = AnchorHint(reader="s", key="k" * 32, until=1_800_000_000.0)
    assert len(seal(ROOTS, hint, **CONTEXT)) <= 91


def test_the_key_shows_neither_in_the_claim_nor_in_the_repr() -> None:
    assert ANCHOR.key not in repr(ANCHOR)
    assert ANCHOR.key not in seal(ROOTS, ANCHOR, **CONTEXT)


@given(st.text(max_size=200))
def test_any_text_is_answered_with_nothing(text: str) -> None:
    assert unseal(ROOTS, text, **CONTEXT) is None


@given(st.binary(max_size=100))
def test_any_bytes_under_our_own_version_are_answered_with_nothing(junk: bytes) -> None:
    text = base64.urlsafe_b64encode(bytes([1, ROOTS.active]) + junk).decode()
    assert unseal(ROOTS, text, **CONTEXT) is None
