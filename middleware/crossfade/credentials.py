"""Take the credentials out of raw header bytes. Pure: no clock, no I/O, nothing is verified here.

Cookies are split by our own parser, because the usual ones trim exotic white space from names (so
that ` __Host-x` planted by a sub-domain passes for ours), let the last twin win, and undo octal
escapes. Only space and tab are trimmed (RFC 6265bis 5.6).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from crossfade.tokens.jws import looks_like_jwt

MOST_TWINS = 4
"""Of several cookies of ours with one name, how many are tried."""

Headers = Sequence[tuple[bytes, bytes]]


class Authorization(Enum):
    """What the Authorization header held."""

    ABSENT = "absent"
    EMPTY = "empty"
    """`Bearer` with nothing, `undefined` or `null`: a slip, counted and otherwise absent."""
    BEARER = "bearer"
    """A bearer that looks like a JWT: ours to judge."""
    FOREIGN = "foreign"
    """Another scheme, or a bearer that is no JWT: the application's own."""
    SEVERAL = "several"
    """Two bearers: RFC 6750 2 allows one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieNames:
    """Names of our own cookies, as bytes."""

    access: bytes
    refresh: bytes


class Credentials(NamedTuple):
    """What one request brought, unverified. A tuple, because one is made for every request.

    Attributes:
        authorization: what the Authorization header held; `bearer` is set only for BEARER.
        scheme: the foreign scheme in lower case, else empty.
        access, refresh: distinct values of our cookies, at most four each.
        pairs: all cookies in order, as (name, value).
    """

    authorization: Authorization
    bearer: bytes | None = None
    scheme: str = ""
    access: tuple[bytes, ...] = ()
    refresh: tuple[bytes, ...] = ()
    pairs: tuple[tuple[bytes, bytes], ...] = ()

    def __repr__(self) -> str:
        """Show nothing of them."""
        return "<Credentials>"

    @property
    def are_ours(self) -> bool:
        """Whether the request carries a cookie of ours or a bearer that may be ours."""
        return bool(self.access or self.refresh or self.bearer)

    def cookies(self) -> Mapping[bytes, Sequence[bytes]]:
        """Return all cookies by name, each with its values in order."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.pairs:
            found.setdefault(name, []).append(value)
        return found


_NOTHING = Credentials(authorization=Authorization.ABSENT)
_BEGINNING = b"eyJ"  # base64url of `{"`: a JWT that was cut or mangled must still be seen
_EMPTY_BEARERS = frozenset({b"", b"undefined", b"null"})


def extract(headers: Headers, names: CookieNames) -> Credentials:
    """Return the credentials of a request."""
    authorizations: list[bytes] = []
    pairs: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"cookie":
            pairs += split_cookies(value)
        elif name == b"authorization":
            authorizations.append(value)
    if not (pairs or authorizations):
        return _NOTHING
    authorization, bearer, scheme = _authorization(authorizations)
    return Credentials(
        authorization=authorization,
        bearer=bearer,
        scheme=scheme,
        access=_values(pairs, names.access),
        refresh=_values(pairs, names.refresh),
        pairs=tuple(pairs),
    )


def split_cookies(header: bytes) -> list[tuple[bytes, bytes]]:
    """Split one Cookie header into (name, value); a part without `=` is a nameless cookie."""
    pairs = []
    for part in header.split(b";"):
        name, equals, value = part.partition(b"=")
        if equals:
            pairs.append((name.strip(b" \t"), value.strip(b" \t")))
        elif stripped := part.strip(b" \t"):
            pairs.append((b"", stripped))
    return pairs


def join_cookies(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write one Cookie header: bridges to WSGI join two headers with a comma and lose both."""
    return b"; ".join(
        name + b"=" + value if name or b"=" in value else value for name, value in pairs
    )


def replace_cookies(
    headers: Headers, pairs: Sequence[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return the headers with one Cookie header of these pairs, or none if there are none."""
    kept = [header for header in headers if header[0] != b"cookie"]
    if pairs:
        kept.append((b"cookie", join_cookies(pairs)))
    return kept


def _values(pairs: Sequence[tuple[bytes, bytes]], name: bytes) -> tuple[bytes, ...]:
    found = [value for own, value in pairs if own == name]
    if len(found) > 1:
        found = list(dict.fromkeys(found))[:MOST_TWINS]
    return tuple(found)


def _authorization(values: Sequence[bytes]) -> tuple[Authorization, bytes | None, str]:
    if not values:
        return Authorization.ABSENT, None, ""
    bearers, scheme = [], ""
    for value in values:
        own_scheme, _, credential = value.strip(b" \t").partition(b" ")
        if own_scheme.lower() == b"bearer":
            bearers.append(credential.strip(b" \t"))
        else:
            scheme = own_scheme.lower().decode("latin-1")[:32]
    if len(bearers) > 1:
        return Authorization.SEVERAL, None, ""
    if not bearers:
        return Authorization.FOREIGN, None, scheme
    if bearers[0] in _EMPTY_BEARERS:
        return Authorization.EMPTY, None, ""
    if not (bearers[0].startswith(_BEGINNING) or looks_like_jwt(bearers[0])):
        return Authorization.FOREIGN, None, "bearer"
    return Authorization.BEARER, bearers[0], ""
