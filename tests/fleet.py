"""A simulated fleet on a real database: processes that follow the rollout while a verb waits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from crossfade.settings import Settings
from crossfade.stores.bootstrap import create_all
from crossfade.stores.engine import Database
from crossfade.stores.gates import Observation
from crossfade.stores.instances import Canary, InstanceInfo
from crossfade.stores.rollout import Revision
from crossfade.testing import ManualClock
from crossfade_migrator.context import Context
from crossfade_migrator.plan import Plan
from crossfade_migrator.rollout import apply_plan

SETTINGS: dict[str, Any] = {
    "schema": 1,
    "issuer": "https://shop.example",
    "audience": "shop",
    "database": {"url": "sqlite:///crossfade.db", "timeout": "30s"},
    "legacy": {"framework": "sql", "sql": {"url": "sqlite:///shop.db", "absolute": "1h"}},
    "rollout": {"min_instances": 1, "instance_ttl": "30s"},
}
PLAN: dict[str, Any] = {
    "schema": 1,
    "name": "trial",
    "salt": "trial-1",
    "defaults": {"bake": "1h", "min_subjects": 20, "evaluate_every": "20m", "max_hold": "2h"},
    "gate": [{"name": "auth-failure", "kind": "compare", "clients": ["web"]}],
    "stage": [
        {"name": "dual-10", "phase": "dual", "issue": {"web": 10, "mobile": 5}},
        {"name": "dual-50", "phase": "dual", "issue": {"web": 50, "mobile": 50}},
        {"name": "prefer", "phase": "prefer", "issue": {"web": 100, "mobile": 100}},
        {"name": "drain", "phase": "drain", "bake": "1h"},
        {"name": "tokens", "phase": "tokens"},
    ],
}


class Fleet:
    """Some processes. Each applies what it finds whenever the clock of the verb is slept on."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.members: list[InstanceInfo] = []
        self.deaf: set[str] = set()
        self.seen: list[Revision] = []
        self.canary: dict[str, Canary] = {}
        self.is_canary_on = True

    async def start(self, count: int) -> None:
        """Start processes that run the head."""
        for _ in range(count):
            info = InstanceInfo(
                id=str(uuid4()),
                host="app",
                pid=100 + len(self.members),
                boot_id=str(uuid4()),
                version="1",
            )
            self.members.append(info)
            await self._ctx.instances.join(info)
        await self.follow()

    async def follow(self) -> None:
        """Let every process that is not deaf apply the head and report."""
        head = await self._ctx.rollout.head()
        if not self.seen or self.seen[-1].number != head.number:
            self.seen.append(head)
        for info in self.members:
            if info.id in self.deaf:
                continue
            canary = self.canary.get(info.id, Canary(ok=True)) if self.is_canary_on else None
            await self._ctx.instances.ack(info.id, head.number, head.sha256)
            await self._ctx.instances.heartbeat(info.id, canary=canary)


class FollowingClock(ManualClock):
    """Sleeping moves time by a second at least, and the fleet follows meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet: Fleet | None = None
        self.slept = 0.0

    async def sleep(self, seconds: float) -> None:
        """Move time at once."""
        seconds = max(1.0, seconds)
        self.slept += seconds
        self.advance(seconds)
        if self.fleet is not None:
            await self.fleet.follow()


class Trial:
    """A context, its clock and its fleet."""

    def __init__(self, ctx: Context, clock: FollowingClock) -> None:
        self.ctx = ctx
        self.clock = clock
        self.fleet = Fleet(ctx)
        clock.fleet = self.fleet
        self.said: list[str] = []

    async def apply(self, document: dict[str, Any] | None = None) -> Plan:
        """Store a plan."""
        plan = Plan.from_mapping(PLAN if document is None else document)
        await apply_plan(self.ctx, plan, reason="try it")
        return plan

    async def bake(self, seconds: float = 3601.0) -> None:
        """Let time pass while the fleet runs."""
        self.clock.advance(seconds)
        await self.fleet.follow()

    async def traffic(self, *, failing: int = 0, client: str = "web", many: int = 60) -> None:
        """Let people come: in each arm `many`, of the token arm `failing` meet a fault."""
        head = await self.ctx.rollout.head()
        people = [
            Observation(
                client=client,
                subject=f"{arm}{number}".encode().ljust(16),
                arm=arm,
                network=number.to_bytes(2) + arm[:1].encode(),
                failed=arm == "token" and number < failing,
            )
            for arm in ("token", "session")
            for number in range(many)
        ]
        await self.ctx.gates.note(head.document.stage_revision, people)


@asynccontextmanager
async def trial(
    place: Path | str, *, instances: int = 2, settings: dict[str, Any] | None = None
) -> AsyncIterator[Trial]:
    """Open a database, in a folder or at a URL, with a fleet on it and the plan applied."""
    clock = FollowingClock()
    url = place if isinstance(place, str) else f"sqlite:///{place / 'crossfade.db'}"
    database = Database(url, timeout=30, clock=clock)
    try:
        await create_all(database)
        checked = Settings.from_mapping({**SETTINGS, **(settings or {})})
        one = Trial(Context(settings=checked, database=database, clock=clock, actor="ana"), clock)
        await one.apply()
        if instances:
            await one.fleet.start(instances)
        yield one
    finally:
        await database.close()
