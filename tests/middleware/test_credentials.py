"""Credentials out of raw header bytes: what is read, what is passed on, and what is nobody's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.credentials import (
    MOST_TWINS,
    Authorization,
    CookieNames,
    Credentials,
    extract,
    join_cookies,
    replace_cookies,
    split_cookies,
)

NAMES = CookieNames(access=b"__Host-crossfade-access", refresh=b"__Host-crossfade-refresh")
JWT = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.c2ln"


def of(*headers: tuple[str, bytes]) -> Credentials:
    """Extract from headers."""
    return extract([(name.encode(), value) for name, value in headers], NAMES)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Bearer " + JWT, Authorization.BEARER),
        (b"bearer " + JWT, Authorization.BEARER),
        (b"BEARER   " + JWT + b" ", Authorization.BEARER),
        (b"Bearer", Authorization.EMPTY),
        (b"Bearer ", Authorization.EMPTY),
        (b"Bearer undefined", Authorization.EMPTY),
        (b"Bearer null", Authorization.EMPTY),
        (b"Basic dTpw", Authorization.FOREIGN),
        (b"Token abc", Authorization.FOREIGN),
        (b"Bearer 0123456789abcdef", Authorization.FOREIGN),
        (b"Bearer sk_live_51H8", Authorization.FOREIGN),
        (b"Bearer SG.ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc", "foreign"),
        (b"Bearer MTk4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs", Authorization.FOREIGN),
        (b"", Authorization.FOREIGN),
    ],
)
def test_the_authorization_header_is_sorted_by_whose_it_is(
    value: bytes, expected: Authorization | str
) -> None:
    found = of(("authorization", value))
    assert found.authorization == Authorization(expected)
    assert (found.bearer == JWT) == (found.authorization is Authorization.BEARER)


def test_a_mangled_jwt_is_still_ours_to_refuse() -> None:
    for text in (JWT[:-1] + b"!", JWT.replace(b".", b"..", 1), JWT + b".x", b"eyJ.x", b"eyJhbGci"):
        assert of(("authorization", b"Bearer " + text)).authorization is Authorization.BEARER


def test_two_bearers_are_several_and_a_proxys_basic_beside_one_is_not() -> None:
    twice = of(("authorization", b"Bearer " + JWT), ("authorization", b"Bearer x"))
    beside = of(("authorization", b"Basic dTpw"), ("authorization", b"Bearer " + JWT))
    assert twice.authorization is Authorization.SEVERAL
    assert (beside.authorization, beside.bearer) == (Authorization.BEARER, JWT)


def test_the_foreign_scheme_is_known_without_its_credential() -> None:
    found = of(("authorization", b"Basic dTpw"))
    assert (found.scheme, found.bearer) == ("basic", None)
    assert "dTpw" not in repr(found)


@pytest.mark.parametrize(
    "space", [b"\x0b", b"\x0c", b"\x1c", b"\x1f", b"\x85", b"\xa0", b"\r", b"\n"]
)
def test_exotic_white_space_makes_no_prefixed_cookie(space: bytes) -> None:
    header = b"a=1; " + space + NAMES.access + b"=planted; " + NAMES.refresh + space + b"=planted"
    found = of(("cookie", header))
    assert (found.access, found.refresh) == ((), ())


def test_space_and_tab_around_names_and_values_are_trimmed() -> None:
    found = of(("cookie", b" \t" + NAMES.access + b" =\t x ;b=2"))
    assert found.access == (b"x",)


def test_twins_of_ours_are_all_seen_up_to_a_number() -> None:
    header = b"; ".join(NAMES.access + b"=%d" % (number % 9) for number in range(18))
    found = of(("cookie", header))
    assert found.access == tuple(b"%d" % number for number in range(MOST_TWINS))


def test_cookies_of_several_headers_are_read_in_order() -> None:
    found = of(("cookie", b"s=1"), ("x", b"y"), ("cookie", b"s=2; t"))
    assert found.cookies() == {b"s": [b"1", b"2"], b"": [b"t"]}


def test_names_compare_exactly() -> None:
    found = of(
        ("cookie", b"__host-crossfade-access=a; x__Host-crossfade-access=b; crossfade-access=c")
    )
    assert found.access == ()


def test_no_credential_is_shown() -> None:
    shown = repr(
        of(("cookie", NAMES.access + b"=secret"), ("authorization", b"Bearer ey.secret.x"))
    )
    assert "secret" not in shown


def test_one_cookie_header_goes_on_and_other_headers_stay() -> None:
    headers = [(b"cookie", b"a=1"), (b"host", b"h"), (b"cookie", b"b=2")]
    assert replace_cookies(headers, [(b"b", b"2"), (b"", b"c")]) == [
        (b"host", b"h"),
        (b"cookie", b"b=2; c"),
    ]
    assert replace_cookies(headers, []) == [(b"host", b"h")]


@given(st.binary(max_size=200))
def test_any_bytes_are_split_and_the_parts_split_the_same_again(header: bytes) -> None:
    pairs = split_cookies(header)
    assert split_cookies(join_cookies(pairs)) == [pair for pair in pairs if pair != (b"", b"")]


@given(st.lists(st.tuples(st.sampled_from([b"cookie", b"authorization"]), st.binary(max_size=80))))
def test_any_headers_are_extracted(headers: list[tuple[bytes, bytes]]) -> None:
    found = extract(headers, NAMES)
    assert (found.bearer is None) == (found.authorization is not Authorization.BEARER)
    assert len(found.access) <= MOST_TWINS
