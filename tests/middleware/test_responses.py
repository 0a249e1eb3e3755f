"""Cookies, cache rules and errors that we send ourselves."""

import asyncio
import json
from typing import Any

import pytest

from crossfade.errors import Reason
from crossfade.legacy.base import CookieAttributes
from crossfade.responses import (
    COOKIE_BUDGET,
    TokenCookies,
    cache_control,
    clear_legacy,
    send_error,
    set_cache_control,
    set_legacy,
    vary,
)
from crossfade.settings import CookieSettings

COOKIES = TokenCookies(CookieSettings())
LEGACY = CookieAttributes(name="sid", path="/shop", domain="example.org", max_age=3600)


def test_our_cookies_carry_the_host_prefix_and_all_that_it_demands() -> None:
    expected = b"__Host-crossfade-access=t; Max-Age=60; Path=/; HttpOnly; Secure; SameSite=Lax"
    assert COOKIES.access("t", 60.9) == expected
    assert b"Domain" not in COOKIES.refresh("t", 60)


def test_without_tls_the_prefix_and_secure_go() -> None:
    cookies = TokenCookies(CookieSettings(secure=False, same_site="strict"))
    assert (
        cookies.access("t", 1)
        == b"crossfade-access=t; Max-Age=1; Path=/; HttpOnly; SameSite=Strict"
    )


def test_the_budget_leaves_room_for_name_and_attributes() -> None:
    longest = "t" * COOKIES.access_budget()
    assert len(COOKIES.access(longest, 999_999_999)) == COOKIE_BUDGET


def test_both_cookies_are_cleared_as_they_were_set() -> None:
    for line, name in zip(COOKIES.clear(), ("access", "refresh"), strict=True):
        assert line.startswith(f"__Host-crossfade-{name}=; Max-Age=0; Path=/".encode())


def test_the_legacy_cookie_is_set_with_the_frameworks_own_attributes() -> None:
    assert set_legacy(LEGACY, "v", None) == (
        b"sid=v; Max-Age=3600; Path=/shop; Domain=example.org; HttpOnly; Secure; SameSite=Lax"
    )
    assert b"Max-Age=7;" in set_legacy(LEGACY, "v", 7.9)


@pytest.mark.parametrize("value", ["a;b", 'a"b', "a b", "a\r\nSet-Cookie: x=y", "é", "a\\b", "a,b"])
def test_a_value_that_cookies_cannot_carry_is_refused_unseen(value: str) -> None:
    with pytest.raises(ValueError, match="character") as caught:
        set_legacy(LEGACY, value, None)
    assert value not in str(caught.value)


def test_the_legacy_cookie_is_cleared_at_every_path_it_may_stand_at() -> None:
    lines = clear_legacy(LEGACY, ["/m", "/shop"])
    assert [line.split(b"; ")[3] for line in lines] == [b"Path=/shop", b"Path=/", b"Path=/m"]
    assert all(b"Max-Age=0" in line and b"Domain=example.org" in line for line in lines)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], "Cookie, Authorization"),
        (["Accept"], "Accept, Cookie, Authorization"),
        (["cookie"], "cookie, Authorization"),
        (["Cookie", "accept, authorization"], "Cookie, accept, authorization"),
        (["*"], "*"),
    ],
)
def test_vary_names_what_we_read_besides_what_the_application_said(
    before: list[str], after: str
) -> None:
    headers = [(b"Vary", value.encode()) for value in before]
    vary(headers)
    assert ", ".join(value.decode() for _, value in headers) == after


def test_cache_control_is_replaced_never_added_to() -> None:
    headers = [(b"Cache-Control", b"Max-Age=60"), (b"x", b"y"), (b"cache-control", b"public")]
    assert cache_control(headers) == b"max-age=60"
    set_cache_control(headers, b"no-store")
    assert headers == [(b"x", b"y"), (b"cache-control", b"no-store")]


def sent(status: int, **arguments: Any) -> tuple[dict[bytes, bytes], dict[str, str]]:
    """Send an error; return its headers and body."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(send_error(send, status, **arguments))
    assert messages[0]["status"] == status
    return dict(messages[0]["headers"]), json.loads(messages[1]["body"])


def test_errors_say_a_code_and_never_a_detail() -> None:
    headers, body = sent(401, reason=Reason.BAD_SIGNATURE)
    assert headers[b"www-authenticate"] == b'Bearer error="invalid_token"'
    assert headers[b"cache-control"] == b"no-store"
    assert body["error"] == "invalid_token"
    assert "signature" not in json.dumps(body)


def test_a_missing_credential_is_challenged_without_an_error() -> None:
    assert sent(401)[0][b"www-authenticate"] == b"Bearer"


def test_a_fault_of_ours_says_when_to_come_back() -> None:
    headers, body = sent(503)
    assert int(headers[b"retry-after"]) > 0
    assert body["error"] == "temporarily_unavailable"
