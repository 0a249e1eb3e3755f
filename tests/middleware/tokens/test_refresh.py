import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.keys.roots import RootSecrets
from crossfade.tokens.refresh import (
    LENGTH,
    RefreshToken,
    decode,
    encode,
    first_secret,
    next_secret,
)

OLD, NEW = b"o" * 32, b"n" * 32
ROOTS = RootSecrets([OLD])
SID, SECRET, SEED = b"s" * 16, b"x" * 32, b"d" * 16
TOKEN = encode(ROOTS, ROOTS.active, SID, 3, 7, SECRET)


def test_a_token_is_99_characters_and_reads_back_whole() -> None:
    assert len(TOKEN) == LENGTH == 99
    expected = RefreshToken(kv=ROOTS.active, sid=SID, epoch=3, gen=7, secret=SECRET)
    assert decode(TOKEN, ROOTS) == decode(TOKEN.encode(), ROOTS) == expected


def test_a_token_outlives_the_rotation_of_the_root_but_not_its_removal() -> None:
    assert decode(TOKEN, RootSecrets([NEW, OLD])) is not None
    assert decode(TOKEN, RootSecrets([NEW])) is None


@pytest.mark.parametrize("place", range(74))
def test_a_token_with_any_byte_changed_is_not_ours(place: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(TOKEN + "="))
    raw[place] ^= 1
    assert decode(base64.urlsafe_b64encode(raw)[:-1], ROOTS) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN[:-1] + "=",
        TOKEN[:-1] + chr(ord(TOKEN[-1]) + 1),
        TOKEN[:50] + "\n" + TOKEN[51:],
        TOKEN[:50] + "é" + TOKEN[51:],
        TOKEN[:50] + "\ud800" + TOKEN[51:],
        b"\xff" * 99,
        "A" * 99,
    ],
    ids=["empty", "short", "long", "padded", "twin", "newline", "latin", "surrogate", "bytes", "A"],
)
def test_other_spellings_and_garbage_are_not_ours(text: str | bytes) -> None:
    assert decode(text, ROOTS) is None


def test_the_plain_alphabet_of_base64_is_another_spelling_and_refused() -> None:
    tokens = [encode(ROOTS, ROOTS.active, SID, 0, gen, SECRET) for gen in range(50)]
    other = [token.replace("-", "+").replace("_", "/") for token in tokens]
    changed = [text for token, text in zip(tokens, other, strict=True) if token != text]
    assert changed
    assert [decode(text, ROOTS) for text in changed] == [None] * len(changed)


@given(st.one_of(st.binary(), st.text(), st.binary(min_size=99, max_size=99)))
def test_no_text_makes_the_reader_raise(text: str | bytes) -> None:
    assert decode(text, ROOTS) is None


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_every_place_reads_back(sid: bytes, epoch: int, gen: int) -> None:
    token = decode(encode(ROOTS, ROOTS.active, sid, epoch, gen, SECRET), ROOTS)
    assert token is not None
    assert (token.sid, token.epoch, token.gen) == (sid, epoch, gen)


def test_a_secret_depends_on_everything_that_it_is_made_of() -> None:
    kv = ROOTS.active
    secrets = {
        first_secret(ROOTS, kv, SID, 0, SEED, None),
        first_secret(ROOTS, kv, SID, 1, SEED, None),
        first_secret(ROOTS, kv, SID, 0, SEED, b"a" * 32),
        first_secret(ROOTS, kv, SID, 0, b"e" * 16, None),
        first_secret(ROOTS, kv, b"t" * 16, 0, SEED, None),
        next_secret(ROOTS, kv, SID, 0, 1, SEED, SECRET),
        next_secret(ROOTS, kv, SID, 0, 2, SEED, SECRET),
        next_secret(ROOTS, kv, SID, 0, 1, SEED, b"y" * 32),
    }
    assert len(secrets) == 8
    assert next_secret(ROOTS, kv, SID, 0, 1, SEED, SECRET) in secrets


def test_the_records_show_no_secret() -> None:
    token = decode(TOKEN, ROOTS)
    assert token is not None
    shown = repr(replace(token, secret=b"SECRETSECRET"))
    assert "SECRET" not in shown
