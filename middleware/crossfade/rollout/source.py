"""Follow the truth: one task a process that keeps rollout, keys and revocations fresh.

It joins the fleet before it serves, polls, acks each revision at once, reports that it lives, and
knows how old its last good news are. That age is its lease: past `max_staleness` tokens count as
unknown, so that a process that was cut off cannot go on accepting what the fleet has revoked.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from crossfade.clock import Clock
from crossfade.errors import CrossfadeError, KeysUnavailable, StoreUnavailable
from crossfade.keys.ring import KeyRing
from crossfade.metrics import Metrics
from crossfade.rollout.state import Mode, Phase, RolloutState
from crossfade.settings import CLIENT_KINDS, RolloutSettings
from crossfade.sockets import Sockets
from crossfade.stores.feed import FeedStore
from crossfade.stores.instances import Canary, InstanceInfo, InstanceStore
from crossfade.stores.pulse import PulseStore
from crossfade.stores.rollout import Revision, RolloutStore
from crossfade.tokens.revocation import FeedEntry, FeedGap, FeedKind, Revocations

logger = logging.getLogger("crossfade.follower")

# What an instance does that never read the document: sessions serve, tokens are unknown, none is
# made.
_BLIND = RolloutState(accept_token=True)
BOOT_ID = str(uuid.uuid4())


class KeySource(Protocol):
    """Where keys come from: our database, files, or a key management service."""

    async def load(self) -> KeyRing:
        """Return the present ring. Raises StoreUnavailable or KeysUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Something the follower does every few seconds besides following.

    Attributes:
        every: seconds between two runs, by this process's own clock.
    """

    name: str
    every: float
    run: Callable[[], Awaitable[None]]


class Follower:
    """Keeps one process in step; `state`, `keys` and `revocations` are always there."""

    def __init__(
        self,
        *,
        pulse: PulseStore,
        rollout: RolloutStore,
        instances: InstanceStore,
        feed: FeedStore,
        keys: KeySource,
        settings: RolloutSettings,
        max_staleness: float,
        clock: Clock,
        metrics: Metrics,
        sockets: Sockets,
        version: str,
        check_schema: Callable[[], Awaitable[None]],
        database_time: Callable[[], Awaitable[float]],
        any_login: Callable[[], Awaitable[bool]],
    ) -> None:
        self._pulse, self._rollout, self._instances = pulse, rollout, instances
        self._feed, self._keys = feed, keys
        self._settings, self._max_staleness = settings, max_staleness
        self._clock, self._metrics, self._sockets = clock, metrics, sockets
        self._version = version
        self._check_schema, self._database_time = check_schema, database_time
        self._any_login = any_login
        self.state = _BLIND
        self.revision = 0
        self.keys = KeyRing.empty()
        self.revocations = Revocations()
        self.instance_id = ""
        self.canary: Canary | None = None
        self.chores: list[Chore] = []
        self.listeners: list[Callable[[Sequence[FeedEntry]], None]] = []
        self.may_have_logins = True
        self._has_joined = False
        self._synced_at = float("-inf")
        self._keys_read_at = float("-inf")
        self._beaten_at = float("-inf")
        self._done_at: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether the tasks live, in this very process and loop."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def staleness(self) -> float:
        """Seconds since the start of the last good read; infinite before the first."""
        return self._clock.monotonic() - self._synced_at

    @property
    def is_stale(self) -> bool:
        """Whether the lease has run out: tokens are unknown, and none is issued."""
        return self._clock.monotonic() - self._synced_at > self._max_staleness

    async def start(self) -> None:
        """Join the fleet and begin to follow.

        A database that does not answer is waited for in the background: the application starts, its
        sessions serve. Raises SchemaOutdated where the database lacks our tables.
        """
        try:
            await self._check_schema()
            await self._join()
        except StoreUnavailable as error:
            logger.warning("starting without news of the rollout: %s", error)
        self._tasks = [
            asyncio.create_task(self._follow(), name="crossfade-follower"),
            asyncio.create_task(self._work(), name="crossfade-chores"),
        ]

    async def ready(self, within: float) -> None:
        """Wait until the first good read, or for that many seconds at most."""
        if not self._ready.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), within)

    async def stop(self) -> None:
        """Say goodbye and stop; bounded by the stores' own deadlines."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self.instance_id:
            with contextlib.suppress(StoreUnavailable):
                await self._instances.leave(self.instance_id)
            self.instance_id, self._has_joined = "", False

    async def sync(self) -> None:
        """Read all news once. Raises StoreUnavailable; what was known before stays."""
        started = self._clock.monotonic()
        pulse = await self._pulse.take()
        known = (self.revocations.epoch, self.revocations.cursor)
        if (pulse.feed_epoch, pulse.feed_seq) != known:
            await self._read_feed()
        if not self.keys or started - self._keys_read_at >= self._settings.heartbeat:
            await self._read_keys()
        if pulse.revision != self.revision:
            await self._apply(await self._rollout.head())
        self._synced_at = started
        self._ready.set()
        self._metrics.set("rollout_synced_timestamp_seconds", self._clock.time())
        self._sockets.sweep(self.revocations, self._clock.time())

    async def _join(self) -> None:
        self.instance_id = str(uuid.uuid4())
        await self._read_keys()
        head = await self._instances.join(
            InstanceInfo(
                id=self.instance_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                boot_id=BOOT_ID,
                version=self._version,
                kids=self.keys.kids,
                clock_offset=await self._clock_offset(),
            )
        )
        await self._read_feed()
        await self._apply(head)
        await self.sync()
        self._beaten_at = self._clock.monotonic()
        self._has_joined = True

    async def _follow(self) -> None:
        while True:
            try:
                if not self._has_joined:
                    await self._join()
                await self.sync()
            except StoreUnavailable as error:
                logger.warning("no news of the rollout for %.1f s: %s", self.staleness, error)
            except Exception:  # it must not end: the process would go stale for good
                logger.exception("the follower goes on after an error")
            self._sockets.sweep(self.revocations, self._clock.time())
            await self._pause()

    async def _work(self) -> None:
        """Report and do the chores beside following: news must never wait for a slow write."""
        while True:
            try:
                if self._has_joined:
                    await self._beat()
            except StoreUnavailable as error:
                logger.warning("no heartbeat: %s", error)
            except Exception:  # as above
                logger.exception("the heartbeat goes on after an error")
            await self._do_chores()
            await self._pause()

    async def _pause(self) -> None:
        # Spread, so that many workers of one host do not ask in the same instant.
        await self._clock.sleep(self._settings.poll * random.uniform(0.8, 1.2))  # noqa: S311

    async def _do_chores(self) -> None:
        for chore in self.chores:
            now = self._clock.monotonic()
            if now - self._done_at.get(chore.name, float("-inf")) < chore.every:
                continue
            self._done_at[chore.name] = now
            try:
                await chore.run()
            except (CrossfadeError, OSError) as error:
                logger.warning("%s: %s", chore.name, error)
            except Exception:  # one chore must not end the others
                logger.exception("%s", chore.name)

    async def _read_feed(self) -> None:
        if self.revocations.epoch:
            page = await self._feed.after(self.revocations.cursor)
            if page.head.epoch == self.revocations.epoch:
                try:
                    self.revocations.apply(page.entries, page.head)
                except FeedGap:
                    logger.exception("the revocation feed has a gap: loading all of it")
                else:
                    self._note_delays(page.entries)
                    for hear in self.listeners:
                        hear(page.entries)
                    if any(entry.kind is FeedKind.KEY for entry in page.entries):
                        await self._read_keys()
                    return
        full = await self._feed.load_all()
        self.revocations.reset(full.entries, full.head)

    def _note_delays(self, entries: Iterable[FeedEntry]) -> None:
        for entry in entries:
            delay = self._clock.time() - entry.at
            self._metrics.observe("revocation_propagation_seconds", max(0.0, delay))

    async def _read_keys(self) -> None:
        self._keys_read_at = self._clock.monotonic()
        try:
            loaded = await self._keys.load()
        except KeysUnavailable:
            loaded = KeyRing.empty()
        if loaded != self.keys:
            # The verifier drops what it remembers when the ring becomes another object.
            self.keys = loaded

    async def _apply(self, head: Revision) -> None:
        self.state, self.revision = head.document, head.number
        # Before the first token and after the last login there is nothing to observe for.
        self.may_have_logins = self.state.mode is not Mode.OFF or await self._any_login()
        self._metrics.set("rollout_revision", head.number)
        for kind in CLIENT_KINDS:
            self._metrics.set("rollout_target_ratio", self.state.issue_token[kind] / 100_000, kind)
        for phase in Phase:
            self._metrics.set("rollout_phase", float(phase is self.state.phase), phase)
        await self._instances.ack(self.instance_id, head.number, head.sha256)

    async def _beat(self) -> None:
        now = self._clock.monotonic()
        if now - self._beaten_at < self._settings.heartbeat:
            return
        self._beaten_at = now
        canary, self.canary = self.canary, None
        is_known = await self._instances.heartbeat(
            self.instance_id,
            kids=self.keys.kids,
            clock_offset=await self._clock_offset(),
            canary=canary,
        )
        if not is_known:
            self._has_joined = False  # the follower joins anew before it reads on

    async def _clock_offset(self) -> float:
        return self._clock.time() - await self._database_time()

    @property
    def mode(self) -> Mode:
        """Which decision table applies now."""
        return self.state.mode
