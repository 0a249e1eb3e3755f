"""Cross-site request forgery: whether a request by cookie may change something.

Fetch Metadata and Origin answer first, because a page cannot forge them. Only without both does
the signed double-submit token decide: it is bound to the login, so that a planted cookie is of no
use.
"""

import hmac
from collections.abc import Collection
from enum import StrEnum

from crossfade.credentials import Headers
from crossfade.keys.roots import RootSecrets
from crossfade.policy import header

TOKEN_HEADER = b"x-crossfade-csrf"


class CsrfOutcome(StrEnum):
    """What a check found: value of the metric label `outcome`."""

    OK = "ok"
    EXEMPT = "exempt"
    """The route is exempt by its exact path."""
    CROSS_SITE = "cross_site"
    """Fetch Metadata or Origin name another site."""
    MISSING = "missing"
    """Neither of them, and no token."""
    MISMATCH = "mismatch"
    """The token is not this login's."""

    @property
    def is_allowed(self) -> bool:
        """Whether the request may go on."""
        return self in {CsrfOutcome.OK, CsrfOutcome.EXEMPT}


class CsrfGuard:
    """Checks requests whose winner is a cookie. `path` is always `scope["path"]`."""

    def __init__(
        self,
        roots: RootSecrets,
        *,
        issuer: str,
        exempt: Collection[str] = (),
        trusted_origins: Collection[str] = (),
    ) -> None:
        self._roots = roots
        self._exempt = frozenset(exempt)
        self._trusted = frozenset(origin.encode() for origin in (*trusted_origins, issuer))

    def check(self, path: str, headers: Headers, sid: bytes | None) -> CsrfOutcome:
        """Judge one unsafe request. `sid` is the login's, None where no token won."""
        if path in self._exempt:
            return CsrfOutcome.EXEMPT
        origin = header(headers, b"origin")
        if origin is not None and origin in self._trusted:
            return CsrfOutcome.OK
        site = header(headers, b"sec-fetch-site")
        if site is not None:
            is_ours = site in {b"same-origin", b"none"}
            return CsrfOutcome.OK if is_ours else CsrfOutcome.CROSS_SITE
        if origin is not None:
            host = header(headers, b"host") or b""
            is_ours = origin.partition(b"://")[2] == host != b""
            return CsrfOutcome.OK if is_ours else CsrfOutcome.CROSS_SITE
        return self._by_token(headers, sid)

    def token(self, sid: bytes) -> str:
        """Return the double-submit token of a login: 34 hex digits."""
        return self._token(self._roots.active, sid)

    def _by_token(self, headers: Headers, sid: bytes | None) -> CsrfOutcome:
        sent = header(headers, TOKEN_HEADER)
        if sent is None or sid is None:
            return CsrfOutcome.MISSING
        good = any(
            hmac.compare_digest(sent, self._token(kv, sid).encode()) for kv in self._roots.versions
        )
        return CsrfOutcome.OK if good else CsrfOutcome.MISMATCH

    def _token(self, kv: int, sid: bytes) -> str:
        return f"{kv:02x}{self._roots.mac(kv, 'csrf', sid)[:16].hex()}"
