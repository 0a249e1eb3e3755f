"""What the clients saw: counts, and every broken expectation with its time, client and phase."""

import time
from collections import Counter
from dataclasses import dataclass, field

LOGOUT = "unexpected_logouts"
IDENTITY = "wrong_identity"
CART = "lost_carts"
SERVER = "server_errors"
REVOKED = "accepted_after_revoke"
SUCCESSOR = "unequal_successors"
REUSE = "reuse_spread"
STRANGER = "strangers_refused"
BOUGHT = "credentials_bought"
COHORT = "outside_cohort"
BROKEN = (LOGOUT, IDENTITY, CART, SERVER, REVOKED, SUCCESSOR, REUSE, STRANGER, BOUGHT, COHORT)
"""All kinds of broken expectations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One broken expectation. `at` is seconds since the start."""

    kind: str
    at: float
    phase: str
    client: str
    what: str

    def __str__(self) -> str:
        """Write it on one line."""
        return f"{self.at:6.1f} s  {self.phase:<12} {self.client:<14} {self.kind}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """Somebody was given tokens. `at` is POSIX seconds."""

    client: str
    user: str
    at: float


@dataclass(slots=True)
class Ledger:
    """Gathers what clients see. `phase` is what the operator is doing, in a word or two."""

    begun: float = field(default_factory=time.monotonic)
    phase: str = "start"
    counts: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    breaches: list[Breach] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    revoke_seconds: list[float] = field(default_factory=list)
    rollback_seconds: list[float] = field(default_factory=list)
    faulty_until: float = 0.0

    @property
    def seconds(self) -> float:
        """Return how long the demo runs."""
        return time.monotonic() - self.begun

    @property
    def is_faulty(self) -> bool:
        """Say whether the injected fault may still be felt."""
        return time.monotonic() < self.faulty_until

    def breach(self, kind: str, client: str, what: str) -> None:
        """Write down a broken expectation."""
        self.breaches.append(
            Breach(kind=kind, at=self.seconds, phase=self.phase, client=client, what=what)
        )

    def broken(self, kind: str) -> int:
        """Count the breaches of one kind."""
        return sum(breach.kind == kind for breach in self.breaches)

    def reply(self, client: str, status: int, *, may_retry: bool) -> None:
        """Count a reply; a 5xx is an error, unless it owns up to the injected fault as it must."""
        self.counts["requests"] += 1
        if status < 500:
            return
        if status == 503 and may_retry and self.is_faulty:
            self.counts["refused_while_faulty"] += 1
        else:
            self.breach(SERVER, client, f"answered {status}")

    def issued(self, client: str, user: str) -> None:
        """Note that somebody was given tokens for a session or at a log-in."""
        self.issues.append(Issue(client=client, user=user, at=time.time()))
