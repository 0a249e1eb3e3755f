"""Every metric, once: name, type, labels with their closed values, and who uses it.

Children are made at start and counted through; `labels()` on the hot path costs three times as
much, and a counter that is born at 1 never fires `increase() > 0`. No label ever holds a user, a
path or a key id.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Literal, cast

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import Receive, Scope, Send

from crossfade.csrf import CsrfOutcome
from crossfade.errors import Reason
from crossfade.rollout.state import Phase
from crossfade.settings import CLIENT_KINDS
from crossfade.tokens.refresh import RefreshOutcome

CREDENTIALS = ("token", "session", "none")
DECISIONS = ("allow", "anonymous", "reject", "error")
"""`reject` is the credential's fault, `error` ours."""
_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: everything that documentation, dashboards and tests need to know of it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...] = ()


def _counter(name: str, help_: str, **labels: tuple[str, ...]) -> Family:
    return Family(name=f"crossfade_{name}_total", kind="counter", help=help_, labels=labels)


def _gauge(name: str, help_: str, **labels: tuple[str, ...]) -> Family:
    return Family(name=f"crossfade_{name}", kind="gauge", help=help_, labels=labels)


def _histogram(
    name: str, help_: str, buckets: tuple[float, ...], **labels: tuple[str, ...]
) -> Family:
    return Family(
        name=f"crossfade_{name}", kind="histogram", help=help_, labels=labels, buckets=buckets
    )


_BACKENDS = ("sql", "sessions")
_CLIENTS: tuple[str, ...] = CLIENT_KINDS
CATALOGUE: tuple[Family, ...] = (
    _counter(
        "decisions",
        "Requests, by the credential that decided and how",
        client=_CLIENTS,
        credential=CREDENTIALS,
        decision=DECISIONS,
    ),
    _counter(
        "presented",
        "Requests, by what they brought, whatever was used",
        client=_CLIENTS,
        presented=("none", "session", "token", "both"),
    ),
    _counter(
        "failures",
        "Credentials refused, by reason",
        client=_CLIENTS,
        credential=("token", "session"),
        reason=tuple(Reason),
    ),
    _counter(
        "fallbacks",
        "Requests that one credential served because the other failed",
        client=_CLIENTS,
        direction=("token_to_session", "session_to_token"),
    ),
    _counter("identity_conflicts", "Token and session named different users", client=_CLIENTS),
    _counter("comparisons", "Token and session both valid, compared", result=("agree", "differ")),
    _histogram(
        "auth_duration_seconds",
        "Time spent deciding, without the application",
        _FAST,
        credential=CREDENTIALS,
    ),
    _histogram(
        "token_size_bytes", "Size of issued access tokens", (256, 512, 1024, 2048, 3072, 4096)
    ),
    _counter(
        "issued",
        "Tokens issued",
        kind=("access", "refresh"),
        grant=("login", "upgrade", "exchange", "refresh"),
    ),
    _counter("refresh", "Refresh attempts, by outcome", outcome=(*RefreshOutcome, "error")),
    _counter("restored", "Logins given their legacy session back", client=_CLIENTS),
    _counter(
        "observed",
        "Transitions of legacy sessions seen in replies",
        transition=("log_in", "log_out", "switch", "rotated", "resurrected", "stale_attach"),
    ),
    _counter(
        "anchors",
        "What became of the legacy session under a login",
        outcome=("pinned", "recreated", "deleted", "store_loss", "error"),
    ),
    _counter(
        "revocations",
        "Revocations by this process",
        trigger=("logout", "user", "operator", "reuse", "superseded", "anchor"),
    ),
    _histogram("revocation_propagation_seconds", "From commit until this process refuses", _SLOW),
    _counter("backend_calls", "Calls to stores", backend=_BACKENDS, outcome=("ok", "error")),
    _counter("audit_events", "Sightings for the audit", outcome=("written", "dropped")),
    _counter("degraded_decisions", "Decided without a backend", backend=_BACKENDS),
    _counter("csrf_checks", "Unsafe requests by cookie", outcome=tuple(CsrfOutcome)),
    _counter(
        "upgrades_skipped",
        "Candidates that were not upgraded, and why",
        why=("not_selected", "not_navigation", "twin", "other_login", "reply", "budget", "refused"),
    ),
    _counter(
        "session_access_unanchored", "Token requests for which no legacy session could be attached"
    ),
    _counter("canary", "Canary tokens verified by this process", result=("ok", "failed")),
    _gauge("rollout_revision", "Revision of the rollout document that this process runs"),
    _gauge("rollout_synced_timestamp_seconds", "When this process last confirmed its state"),
    _gauge("rollout_target_ratio", "Share of subjects that are issued tokens", client=_CLIENTS),
    _gauge("rollout_phase", "1 for the phase that this process runs", phase=tuple(Phase)),
)


class Metrics:
    """The catalogue brought to life on one registry, each child at zero."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types it not
        self._children: dict[tuple[str, ...], Any] = {}
        for family in CATALOGUE:
            metric = _make(family, registry)
            names = tuple(family.labels)
            short = family.name.removeprefix("crossfade_").removesuffix("_total")
            for values in product(*family.labels.values()):
                child = metric.labels(*values) if names else metric
                self._children[(short, *map(str, values))] = child

    def inc(self, name: str, *values: str, by: float = 1) -> None:
        """Count up. `name` without prefix and suffix; `values` in the catalogue's label order.

        Raises:
            KeyError: not in the catalogue; tests find it, a closed set never grows at run time.
        """
        self._children[(name, *values)].inc(by)

    def observe(self, name: str, amount: float, *values: str) -> None:
        """Add one observation to a histogram."""
        self._children[(name, *values)].observe(amount)

    def set(self, name: str, amount: float, *values: str) -> None:
        """Set a gauge."""
        self._children[(name, *values)].set(amount)


@cache
def metrics_for(registry: CollectorRegistry = REGISTRY) -> Metrics:
    """Return the one set of metrics on a registry: two middlewares in a process share it."""
    return Metrics(registry)


def _make(family: Family, registry: CollectorRegistry) -> Any:
    labels = tuple(family.labels)
    if family.kind == "counter":
        return Counter(family.name, family.help, labels, registry=registry)
    if family.kind == "gauge":
        mode = "livemin" if family.name.endswith("_timestamp_seconds") else "livemostrecent"
        if family.name.endswith("_revision"):
            mode = "livemin"
        return Gauge(
            family.name, family.help, labels, registry=registry, multiprocess_mode=cast("Any", mode)
        )
    return Histogram(family.name, family.help, labels, registry=registry, buckets=family.buckets)


class MetricsApp:
    """An ASGI application that answers a scrape: `Route("/metrics", MetricsApp())`.

    Use a Route: `Mount("/metrics")` answers 307 first. With `PROMETHEUS_MULTIPROC_DIR` set it adds
    up all workers of the host. The text is made on the event loop's executor: 200 series take 3 ms.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one scrape in the text format of Prometheus."""
        import asyncio

        if scope["type"] != "http":
            return
        body = await asyncio.to_thread(self._render)
        headers = [
            (b"content-type", CONTENT_TYPE_LATEST.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _render(self) -> bytes:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library types it not
        return generate_latest(registry)
