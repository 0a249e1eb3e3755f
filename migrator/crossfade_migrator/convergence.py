"""Wait until the fleet follows, and refuse changes that it is not ready for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.errors import StoreUnavailable
from crossfade.stores.instances import GRACE, InstanceRow
from crossfade.stores.rollout import Requirement, Revision
from crossfade_migrator.context import Context
from crossfade_migrator.errors import NotConverged

Progress = Callable[[str], None]
"""Told, in words, what a verb is doing."""

INTERVAL = 0.1
"""Seconds between two looks at the fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """How far the fleet follows a revision.

    Attributes:
        acked, live: instances. laggards: names of those that do not run it yet.
        seconds: how long was waited.
    """

    acked: int
    live: int
    laggards: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Say whether every instance that matters runs the revision."""
        return not self.laggards

    def __str__(self) -> str:
        """Write it as `12/12 instances in 0.4 s`."""
        text = f"{self.acked}/{self.live} instances in {self.seconds:.1f} s"
        return f"{text}, missing {', '.join(self.laggards)}" if self.laggards else text


def ignore(_text: str) -> None:
    """Report progress to nobody."""


async def converge(
    ctx: Context, revision: Revision, *, wait: float, progress: Progress = ignore
) -> Convergence:
    """Wait until all live instances acked the revision, at most `wait` seconds; say how far it got.

    A process that vanished without a goodbye is waited for until it has fenced itself.

    Raises:
        StoreUnavailable: nobody can tell.
    """
    begun = ctx.clock.monotonic()
    told = ""
    while True:
        instances = await ctx.instances.live(ctx.settings.rollout.instance_ttl)
        state = measure(instances, revision, seconds=ctx.clock.monotonic() - begun)
        if state.is_complete or state.seconds >= wait:
            return state
        text = f"revision {revision.number}: waiting for {', '.join(state.laggards)}"
        if text != told:
            progress(told := text)
        await ctx.clock.sleep(INTERVAL)


async def converge_regardless(
    ctx: Context, revision: Revision, *, progress: Progress = ignore
) -> Convergence | None:
    """Wait as a rollback does: until whoever does not follow has fenced itself, then go on.

    None: the database could not tell. A rollback that is written is never failed for that.
    """
    try:
        seconds = ctx.settings.rollout.instance_ttl + GRACE
        state = await converge(ctx, revision, wait=seconds, progress=progress)
    except StoreUnavailable as error:
        progress(f"revision {revision.number} is written; who follows is unknown: {error}")
        return None
    progress(f"revision {revision.number} on {state}")
    return state


def measure(
    instances: Sequence[InstanceRow], revision: Revision, *, seconds: float = 0.0
) -> Convergence:
    """Say how far these instances follow a revision."""
    behind = [one for one in instances if not one.has_acked(revision)]
    return Convergence(
        acked=len(instances) - len(behind),
        live=len(instances),
        laggards=tuple(f"{one.name} (vanished)" if one.is_vanished else one.name for one in behind),
        seconds=seconds,
    )


def enough_alive(ctx: Context, *, allow_empty: bool) -> Requirement:
    """Require at least `min_instances` live instances, and never none unless that is allowed."""

    async def require(connection: AsyncConnection, _head: Revision) -> None:
        rollout = ctx.settings.rollout
        instances = await ctx.instances.live(rollout.instance_ttl, connection)
        alive = sum(not one.is_vanished for one in instances)
        needed = rollout.min_instances if allow_empty else max(1, rollout.min_instances)
        if alive < needed:
            raise NotConverged(
                f"{alive} live instances, at least {needed} are needed",
                "start the application, or see `crossfade instances`",
            )

    return require


def all_acked(ctx: Context, *, allow_empty: bool) -> Requirement:
    """Require besides that every live instance runs the very revision that is replaced."""
    alive = enough_alive(ctx, allow_empty=allow_empty)

    async def require(connection: AsyncConnection, head: Revision) -> None:
        await alive(connection, head)
        instances = await ctx.instances.live(ctx.settings.rollout.instance_ttl, connection)
        if not (state := measure(instances, head)).is_complete:
            raise not_converged(head, state)

    return require


def not_converged(head: Revision, state: Convergence) -> NotConverged:
    """Return the error that names who does not follow."""
    return NotConverged(
        f"revision {head.number} is not run by {', '.join(state.laggards)}",
        "see `crossfade instances`; mend or stop them, then say it again",
    )
