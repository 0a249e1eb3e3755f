"""What we say ourselves: cookies, cache rules, and the errors of RFC 6749 and 6750."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.types import Send

from crossfade.errors import Reason
from crossfade.legacy.base import CookieAttributes
from crossfade.settings import CookieSettings

RawHeaders = list[tuple[bytes, bytes]]
COOKIE_BUDGET = 4096
"""Octets of name, value and attributes that every browser keeps (RFC 6265bis 5.6)."""
_VARY = (b"vary", b"Cookie, Authorization")
_LENGTH_OF_VARY = len(b"vary")
_LENGTH_OF_CACHE_CONTROL = len(b"cache-control")
_EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
_CHARACTERS_OF_A_COOKIE = frozenset(range(0x21, 0x7F)) - set(b'",;\\')


class TokenCookies:
    """Writes our two cookies.

    The access cookie lives as long as the refresh cookie, so that an expired token still arrives
    and says whose it was.
    """

    def __init__(self, settings: CookieSettings) -> None:
        self.access_name = settings.access
        self.refresh_name = settings.refresh
        self._attributes = "; Path=/; HttpOnly" + ("; Secure" if settings.secure else "")
        self._attributes += f"; SameSite={settings.same_site.capitalize()}"

    def access(self, token: str, max_age: float) -> bytes:
        """Return the Set-Cookie value that carries an access token."""
        return self._set(self.access_name, token, max_age)

    def refresh(self, token: str, max_age: float) -> bytes:
        """Return the Set-Cookie value that carries a refresh token."""
        return self._set(self.refresh_name, token, max_age)

    def access_budget(self) -> int:
        """Return how many octets an access token may have to fit its cookie."""
        return COOKIE_BUDGET - len(self._set(self.access_name, "", 10**8))

    def clear_access(self) -> list[bytes]:
        """Return the Set-Cookie values that remove the access cookie."""
        return [self._set(self.access_name, "", 0)]

    def clear(self) -> list[bytes]:
        """Return the Set-Cookie values that remove both cookies."""
        return [*self.clear_access(), self._set(self.refresh_name, "", 0)]

    def _set(self, name: str, value: str, max_age: float) -> bytes:
        return f"{name}={value}; Max-Age={int(max_age)}{self._attributes}".encode("ascii")


def set_legacy(cookie: CookieAttributes, value: str, max_age: float | None) -> bytes:
    """Return a Set-Cookie value with the framework's own attributes, or two cookies would result.

    Raises:
        ValueError: the value cannot stand in a cookie; nothing of it is in the text.
    """
    if not _CHARACTERS_OF_A_COOKIE.issuperset(value.encode("latin-1", "replace")):
        raise ValueError("the session's cookie value holds a character that cookies cannot carry")
    age = cookie.max_age if max_age is None else int(max_age)
    return _legacy(cookie, value, f"; Max-Age={age}" if age is not None else "", cookie.path)


def clear_legacy(cookie: CookieAttributes, seen_paths: Iterable[str] = ()) -> list[bytes]:
    """Return the Set-Cookie values that remove the legacy cookie at every path it may stand at.

    Some frameworks set the cookie below the path an application is mounted at: `seen_paths` has
    those.
    """
    paths = dict.fromkeys((cookie.path, "/", *seen_paths))
    return [_legacy(cookie, "", f"; Max-Age=0; Expires={_EPOCH}", path) for path in paths]


def _legacy(cookie: CookieAttributes, value: str, life: str, path: str) -> bytes:
    parts = [f"{cookie.name}={value}{life}; Path={path}"]
    if cookie.domain:
        parts.append(f"Domain={cookie.domain}")
    if cookie.http_only:
        parts.append("HttpOnly")
    if cookie.secure:
        parts.append("Secure")
    if cookie.same_site:
        parts.append(f"SameSite={cookie.same_site.capitalize()}")
    return "; ".join(parts).encode("latin-1")


def challenge(reason: Reason | None) -> bytes:
    """Return the WWW-Authenticate value: RFC 6750 3.1 codes and nothing more."""
    if reason is None:
        return b"Bearer"
    return b'Bearer error="invalid_token"'


def vary(headers: RawHeaders) -> None:
    """Add `Vary: Cookie, Authorization` to what the application varies by."""
    found: list[str] = []
    for name, value in headers:
        if len(name) == _LENGTH_OF_VARY and name.lower() == b"vary":
            found += [part.strip() for part in value.decode("latin-1").split(",") if part.strip()]
    if not found:
        headers.append(_VARY)
        return
    lower = {part.lower() for part in found}
    if "*" in lower or {"cookie", "authorization"} <= lower:
        return
    found += [part for part in ("Cookie", "Authorization") if part.lower() not in lower]
    headers[:] = [h for h in headers if h[0].lower() != b"vary"]
    headers.append((b"vary", ", ".join(found).encode("latin-1")))


def cache_control(headers: RawHeaders) -> bytes | None:
    """Return the application's own Cache-Control in lower case, None if it has none."""
    for name, value in headers:
        if len(name) == _LENGTH_OF_CACHE_CONTROL and name.lower() == b"cache-control":
            return value.lower()
    return None


def set_cache_control(headers: RawHeaders, value: bytes) -> None:
    """Replace Cache-Control: two of them would be joined, and the laxer one may win."""
    headers[:] = [header for header in headers if header[0].lower() != b"cache-control"]
    headers.append((b"cache-control", value))


async def send_json(
    send: Send,
    status: int,
    body: Mapping[str, Any] | None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole JSON response that no cache keeps; `body` None sends no content."""
    payload = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    own = [(b"cache-control", b"no-store"), (b"content-length", str(len(payload)).encode())]
    if body is not None:
        own.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": payload})


_ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request", "The request carries credentials that exclude each other."),
    401: ("invalid_token", "The access token is expired, revoked or not valid here: refresh it."),
    403: ("csrf_failed", "The request did not come from this site's own pages."),
    409: ("identity_conflict", "You are signed in as two users: reload the page, then try again."),
    503: ("temporarily_unavailable", "Authentication is not available: try again shortly."),
}
RETRY_AFTER = 2
"""Seconds in Retry-After: one deadline of our own stores."""


async def send_error(
    send: Send,
    status: int,
    *,
    code: str | None = None,
    reason: Reason | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Answer a request that does not reach the application. Clients see a code, never a detail."""
    default, description = _ERRORS[status]
    extra = list(headers)
    if status == 401:
        extra.append((b"www-authenticate", challenge(reason)))
    if status == 503:
        extra.append((b"retry-after", str(RETRY_AFTER).encode()))
    body = {"error": code or default, "error_description": description}
    await send_json(send, status, body, extra)
