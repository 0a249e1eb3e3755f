"""Open WebSockets, so that a revocation reaches them: they are closed with 1008."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from crossfade.tokens.revocation import Revocable


class Denials(Protocol):
    """What the sockets ask of the revocation view."""

    def is_revoked(self, token: Revocable) -> bool:
        """Say whether the login, the subject or the key was revoked."""
        ...

    def is_buried(self, digest: bytes) -> bool:
        """Say whether the legacy session of that anchor must not be ok any more."""
        ...


@dataclass(eq=False, slots=True)
class OpenSocket:
    """One open socket: what authenticated it, and the event that ends it.

    Attributes:
        claim: the token or the session that won; None for a stranger's socket.
        anchor: digest of the session that won; None where a token did.
        until: when it ends at the latest, POSIX seconds; None = with its session.
    """

    claim: Revocable | None
    anchor: bytes | None
    until: float | None
    closing: asyncio.Event = field(default_factory=asyncio.Event)


class Sockets:
    """The open sockets of this process."""

    def __init__(self) -> None:
        self._open: set[OpenSocket] = set()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def enter(self, socket: OpenSocket) -> None:
        """Register a socket at its handshake."""
        self._open.add(socket)

    def leave(self, socket: OpenSocket) -> None:
        """Forget a socket that closed."""
        self._open.discard(socket)

    def sweep(self, denials: Denials, now: float) -> int:
        """Tell every socket whose credential died to close; return how many."""
        dead = [socket for socket in self._open if _is_dead(socket, denials, now)]
        for socket in dead:
            socket.closing.set()
            self._open.discard(socket)
        return len(dead)


def _is_dead(socket: OpenSocket, denials: Denials, now: float) -> bool:
    if socket.until is not None and now >= socket.until:
        return True
    if socket.claim is not None and denials.is_revoked(socket.claim):
        return True
    return socket.anchor is not None and denials.is_buried(socket.anchor)
