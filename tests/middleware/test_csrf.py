"""May a request by cookie change something: Fetch Metadata, Origin, and the token without both."""

import pytest

from crossfade.csrf import TOKEN_HEADER, CsrfGuard, CsrfOutcome
from crossfade.keys.roots import RootSecrets

ROOTS = RootSecrets([b"r" * 43])
SID, OTHER = b"1" * 16, b"2" * 16
GUARD = CsrfGuard(
    ROOTS,
    issuer="https://shop.example",
    exempt=("/hooks/pay",),
    trusted_origins=("https://app.example",),
)


def check(sid: bytes | None = SID, path: str = "/cart", **headers: str) -> CsrfOutcome:
    """Check one request told by its headers."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return GUARD.check(path, raw, sid)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"sec_fetch_site": "same-origin"}, "ok"),
        ({"sec_fetch_site": "none"}, "ok"),
        ({"sec_fetch_site": "same-site"}, "cross_site"),
        ({"sec_fetch_site": "cross-site"}, "cross_site"),
        ({"sec_fetch_site": "made-up"}, "cross_site"),
        ({"origin": "https://shop.example"}, "ok"),
        ({"origin": "https://app.example", "sec_fetch_site": "cross-site"}, "ok"),
        ({"origin": "https://evil.example", "host": "shop.example"}, "cross_site"),
        ({"origin": "https://shop.example.evil.example", "host": "shop.example"}, "cross_site"),
        ({"origin": "null", "host": "shop.example"}, "cross_site"),
        ({"origin": "", "host": ""}, "cross_site"),
        ({"origin": "http://localhost:8000", "host": "localhost:8000"}, "ok"),
        ({"origin": "http://localhost:8001", "host": "localhost:8000"}, "cross_site"),
        ({}, "missing"),
        ({"host": "shop.example"}, "missing"),
    ],
)
def test_each_request_has_one_outcome(headers: dict[str, str], expected: str) -> None:
    assert check(**headers) == expected


def test_without_both_the_logins_own_token_decides() -> None:
    name = TOKEN_HEADER.decode()
    assert check(**{name: GUARD.token(SID)}) is CsrfOutcome.OK
    assert check(**{name: GUARD.token(OTHER)}) is CsrfOutcome.MISMATCH
    assert check(**{name: "nonsense"}) is CsrfOutcome.MISMATCH
    assert check(None, **{name: GUARD.token(SID)}) is CsrfOutcome.MISSING


def test_the_token_does_not_help_another_site() -> None:
    headers = {TOKEN_HEADER.decode(): GUARD.token(SID), "sec_fetch_site": "cross-site"}
    assert check(**headers) is CsrfOutcome.CROSS_SITE


def test_a_token_outlives_a_change_of_the_root_secret_until_the_old_one_goes() -> None:
    both = CsrfGuard(RootSecrets([b"n" * 43, b"r" * 43]), issuer="https://shop.example")
    new = CsrfGuard(RootSecrets([b"n" * 43]), issuer="https://shop.example")
    header = [(TOKEN_HEADER, GUARD.token(SID).encode())]
    assert both.check("/", header, SID) is CsrfOutcome.OK
    assert new.check("/", header, SID) is CsrfOutcome.MISMATCH


def test_only_the_exact_path_is_exempt() -> None:
    evil = {"sec_fetch_site": "cross-site"}
    assert check(path="/hooks/pay", **evil) is CsrfOutcome.EXEMPT
    for path in ("/hooks/pay/", "/hooks/payx", "/x/hooks/pay", "/hooks"):
        assert check(path=path, **evil) is CsrfOutcome.CROSS_SITE


def test_a_wrong_byte_in_a_header_is_a_refusal() -> None:
    assert GUARD.check("/", [(b"origin", b"\xff://[")], SID) is CsrfOutcome.CROSS_SITE
    assert GUARD.check("/", [(b"origin", b"http://[x"), (b"host", b"x")], SID) is not CsrfOutcome.OK
