"""Put the parts together, once a process; another key source or clock is given here."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry

from crossfade import __version__
from crossfade.anchors import Anchors
from crossfade.authenticator import Authenticator
from crossfade.bridge import Bridge
from crossfade.clock import Clock, SystemClock
from crossfade.credentials import replace_cookies
from crossfade.csrf import CsrfGuard
from crossfade.endpoints import Endpoints
from crossfade.events import Events
from crossfade.handle import Handle
from crossfade.housekeeping import CanaryWatch, Housekeeping
from crossfade.journal import Ending, Journal
from crossfade.keys.ring import KeyRing
from crossfade.legacy.base import LegacySessions
from crossfade.legacy.registry import build
from crossfade.logins import Logins
from crossfade.metrics import Metrics, metrics_for
from crossfade.notes import GateNotes
from crossfade.observer import Observer
from crossfade.request import Authenticated
from crossfade.responses import TokenCookies
from crossfade.rollout.source import Follower, KeySource
from crossfade.settings import Settings
from crossfade.sockets import Sockets
from crossfade.stores.audit import AuditStore
from crossfade.stores.canary import CanaryStore
from crossfade.stores.engine import Database
from crossfade.stores.feed import FeedStore
from crossfade.stores.gates import GateStore
from crossfade.stores.instances import InstanceStore
from crossfade.stores.keys import KeyStore
from crossfade.stores.logins import LoginStore
from crossfade.stores.pulse import PulseStore
from crossfade.stores.rollout import RolloutStore
from crossfade.stores.sentinels import SentinelStore
from crossfade.tokens.issuer import Issuer
from crossfade.tokens.verifier import TokenVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """All parts of one process."""

    settings: Settings
    database: Database
    legacy: LegacySessions
    follower: Follower
    verifier: TokenVerifier
    store: LoginStore
    anchors: Anchors
    logins: Logins
    bridge: Bridge
    observer: Observer
    authenticator: Authenticator
    endpoints: Endpoints
    csrf: CsrfGuard
    metrics: Metrics
    sockets: Sockets
    journal: Journal
    again: Callable[[], "Assembly"]
    """Makes the same parts anew: no connection and no task survives a fork."""
    replace_cookies = staticmethod(replace_cookies)

    def handle(self, request: Authenticated) -> Handle:
        """Return what `scope["crossfade"]` holds."""
        return Handle(request)

    async def settle(self, request: Authenticated) -> None:
        """Write down what a request could not do because the database was away."""
        for tenant, key in request.queue:
            await self.journal.append(Ending(tenant=tenant, anchor=self.anchors.digest(key).hex()))
        for sid in request.unended:
            await self.journal.append(Ending(sid=sid.hex()))

    async def close(self) -> None:
        """Stop following and close the databases."""
        await self.follower.stop()
        await self.legacy.close()
        await self.database.close()


def assemble(
    settings: Settings,
    *,
    clock: Clock | None = None,
    keys: Callable[[Database], KeySource] | None = None,
    environment: Mapping[str, str] = os.environ,
    registry: CollectorRegistry = REGISTRY,
    pins: bool = True,
    restores: bool = True,
    knows_dead_anchors: bool = True,
) -> Assembly:
    """Build everything from settings; nothing is opened yet.

    Args:
        clock: another clock than the machine's; it then stands in for the database's too.
        keys: another source of keys than the database; gets the database, returns the source.
        pins, restores, knows_dead_anchors: switched off only to prove by a drill that they are
            needed.

    Raises:
        ConfigurationError: a setting, a secret or an extra is missing or wrong.
    """
    given_clock, clock = clock, clock or SystemClock()
    secrets = settings.secrets(environment)
    roots, tokens = secrets.root, settings.tokens
    metrics = metrics_for(registry)
    database = Database(
        settings.resolve_url(settings.database.url),
        timeout=settings.database.timeout,
        clock=given_clock,
        count=lambda outcome: metrics.inc("backend_calls", "sql", outcome),
    )
    legacy = build(settings, environment)
    store = LoginStore(
        database,
        roots,
        window=tokens.window,
        access_ttl=tokens.access_ttl,
        leeway=tokens.leeway,
        refresh_idle=tokens.refresh_idle,
    )
    sockets, cookies = Sockets(), TokenCookies(settings.cookies)
    follower = Follower(
        pulse=PulseStore(database),
        rollout=RolloutStore(database),
        instances=InstanceStore(database),
        feed=FeedStore(database),
        keys=keys(database) if keys else KeyStore(database, secrets.wrapping),
        settings=settings.rollout,
        max_staleness=tokens.max_staleness,
        clock=clock,
        metrics=metrics,
        sockets=sockets,
        version=__version__,
        check_schema=database.check_schema,
        database_time=database.time,
        any_login=store.any_live,
    )

    def ring() -> KeyRing:
        return follower.keys

    verifier = TokenVerifier(
        issuer=settings.issuer,
        audience=settings.audience,
        keys=ring,
        clock=clock,
        leeway=tokens.leeway,
        roots=roots,
    )

    def issuer_for(audience: str, own: TokenVerifier) -> Issuer:
        return Issuer(
            issuer=settings.issuer,
            audience=audience,
            keys=ring,
            verifier=own,
            roots=roots,
            clock=clock,
            access_ttl=tokens.access_ttl,
        )

    anchors = Anchors(
        legacy=legacy,
        store=store,
        sentinels=SentinelStore(database),
        roots=roots,
        revocations=follower.revocations,
        clock=clock,
        metrics=metrics,
        watch_every=settings.rollout.heartbeat,
        is_on=tokens.bridge == "on",
        pins=pins,
    )
    follower.listeners.append(anchors.hear)
    logins = Logins(
        settings=settings,
        store=store,
        legacy=legacy,
        anchors=anchors,
        issuer=issuer_for(settings.audience, verifier),
        state=lambda: follower.state,
        revocations=follower.revocations,
        metrics=metrics,
        clock=clock,
        access_budget=cookies.access_budget(),
        restores=restores,
    )
    bridge = Bridge(legacy=legacy, cookies=cookies, metrics=metrics, clock=clock)
    observer = Observer(
        bridge=bridge,
        legacy=legacy,
        settings=settings.legacy,
        anchors=anchors,
        logins=logins,
        store=store,
        cookies=cookies,
        metrics=metrics,
        clock=clock,
        upgrades_per_second=settings.rollout.upgrades_per_second,
        knows_dead_anchors=knows_dead_anchors,
    )
    events = Events(audit=AuditStore(database, roots), metrics=metrics, monotonic=clock.monotonic)
    notes = GateNotes(store=GateStore(database), roots=roots, state=lambda: follower.state)
    csrf = CsrfGuard(
        roots,
        issuer=settings.issuer,
        exempt=settings.csrf.exempt,
        trusted_origins=settings.csrf.trusted_origins,
    )
    authenticator = Authenticator(
        settings=settings,
        roots=roots,
        follower=follower,
        verifier=verifier,
        legacy=legacy,
        anchors=anchors,
        logins=logins,
        bridge=bridge,
        cookies=cookies,
        metrics=metrics,
        notes=notes,
        events=events,
        clock=clock,
    )
    endpoints = Endpoints(
        settings=settings,
        roots=roots,
        follower=follower,
        authenticator=authenticator,
        bridge=bridge,
        anchors=anchors,
        logins=logins,
        store=store,
        legacy=legacy,
        cookies=cookies,
        csrf=csrf,
        clock=clock,
    )
    journal = Journal(settings.base / settings.journal)
    canary = CanaryWatch(
        settings=settings,
        store=CanaryStore(database),
        follower=follower,
        keys=ring,
        metrics=metrics,
        make_issuer=issuer_for,
        clock=clock,
    )
    follower.chores = Housekeeping(
        settings=settings,
        database=database,
        follower=follower,
        logins=store,
        legacy=legacy,
        anchors=anchors,
        notes=notes,
        canary=canary,
        journal=journal,
        events=events,
        clock=clock,
    ).chores()
    return Assembly(
        settings=settings,
        database=database,
        legacy=legacy,
        follower=follower,
        verifier=verifier,
        store=store,
        anchors=anchors,
        logins=logins,
        bridge=bridge,
        observer=observer,
        authenticator=authenticator,
        endpoints=endpoints,
        csrf=csrf,
        metrics=metrics,
        sockets=sockets,
        journal=journal,
        again=partial(
            assemble,
            settings,
            clock=given_clock,
            keys=keys,
            environment=environment,
            registry=registry,
            pins=pins,
            restores=restores,
            knows_dead_anchors=knows_dead_anchors,
        ),
    )
