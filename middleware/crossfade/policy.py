"""What configured rules say about a request: its client kind, and how its route is treated."""

from collections.abc import Sequence

from crossfade.credentials import Headers
from crossfade.settings import ClientKind, ClientRule, RouteRule

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 9.2.1)."""


class ClientClassifier:
    """Decide a client's kind from configured rules, never from a raw header value.

    The first rule whose conditions all hold decides; without one a client is `web`.
    """

    def __init__(self, rules: Sequence[ClientRule]) -> None:
        self._rules = [
            (
                rule.kind,
                rule.path or "",
                rule.header.lower().encode() if rule.header else None,
                (rule.matches or "").lower().encode(),
            )
            for rule in rules
        ]

    def kind(self, path: str, headers: Headers) -> ClientKind:
        """Return the kind of the client that sent these headers to this path."""
        for kind, prefix, wanted, start in self._rules:
            if path.startswith(prefix) and (
                wanted is None
                or any(n == wanted and v.lower().startswith(start) for n, v in headers)
            ):
                return kind
        return "web"


class Routes:
    """The route classes, by path prefix; the longest matching prefix decides."""

    def __init__(self, rules: Sequence[RouteRule]) -> None:
        self._rules = sorted(rules, key=lambda rule: len(rule.path), reverse=True)

    def login_required(self, path: str) -> bool:
        """Say whether an unknown session is answered 503 on this path."""
        return any(rule.login_required for rule in self._match(path))

    def no_renew(self, path: str) -> bool:
        """Say whether replies on this path cannot carry cookies."""
        return any(rule.no_renew for rule in self._match(path))

    def _match(self, path: str) -> list[RouteRule]:
        return [rule for rule in self._rules if path.startswith(rule.path)][:1]


def header(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a header; `name` in lower case. None if absent."""
    for own, value in headers:
        if own == name:
            return value
    return None


def is_document_navigation(method: str, headers: Headers) -> bool:
    """Say whether a person went to a page of ours, from our own pages or by hand.

    Judged by Fetch Metadata alone: a browser too old to send it is not upgraded silently.
    """
    return (
        method == "GET"
        and header(headers, b"sec-fetch-mode") == b"navigate"
        and header(headers, b"sec-fetch-dest") == b"document"
        and header(headers, b"sec-fetch-site") in {b"same-origin", b"none"}
    )


def wants_json(headers: Headers) -> bool:
    """Say whether the client is an API client by what it accepts."""
    accept = header(headers, b"accept") or b""
    return b"application/json" in accept and b"text/html" not in accept
