"""List and rotate signing keys, so that no verifier meets a key that it cannot know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossfade.keys.jwks import KeyAlgorithm
from crossfade.keys.ring import KeyState
from crossfade.stores.keys import KeyRow
from crossfade_migrator.context import Context
from crossfade_migrator.errors import NotConverged

POLL = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a rotation did, or would do.

    Attributes:
        kid: the key that signs now; empty in a dry run that would make one.
        former: the key that signed before, None if none did.
        made: the key was made for this rotation, not left over from one before.
        retired: keys whose last token has ended, and which verify no more.
        instances: how many live processes know the key.
    """

    kid: str
    former: str | None
    made: bool
    retired: tuple[str, ...]
    instances: int


async def list_keys(ctx: Context) -> Sequence[KeyRow]:
    """Return all keys, the oldest first. Raises StoreUnavailable."""
    return await ctx.keys.list()


async def rotate(
    ctx: Context,
    *,
    algorithm: KeyAlgorithm | None = None,
    wait: float = 60.0,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Rotation:
    """Publish a next key, wait until every live instance lists it, then let it sign.

    A rotation that was broken off goes on with the key it had made. `wait` is in seconds.

    Raises:
        NotConverged: an instance does not list the key in time; the old key goes on signing.
        StoreUnavailable: the database did not answer; nothing is half done.
    """
    wanted = algorithm or ctx.settings.tokens.algorithm
    rows = await ctx.keys.list()
    former = next((row.kid for row in rows if row.state is KeyState.ACTIVE), None)
    waiting = [
        r.kid for r in rows if r.state is KeyState.NEXT and r.algorithm == wanted and r.can_sign
    ]
    outlived = await _outlived(ctx, rows)
    if dry_run:
        live = await ctx.instances.live(ctx.settings.rollout.instance_ttl)
        kid = waiting[0] if waiting else ""
        return Rotation(
            kid=kid, former=former, made=not waiting, retired=outlived, instances=len(live)
        )
    kid = waiting[0] if waiting else await ctx.keys.add(wanted, actor=ctx.actor)
    progress(f"key {kid} is published; waiting for every instance to list it")
    instances = await _wait_for_instances(ctx, kid, wait)
    await ctx.keys.activate(kid, actor=ctx.actor)
    for old in outlived:
        await ctx.keys.retire(old, actor=ctx.actor)
    return Rotation(kid=kid, former=former, made=not waiting, retired=outlived, instances=instances)


async def _outlived(ctx: Context, rows: Sequence[KeyRow]) -> tuple[str, ...]:
    """Return the retiring keys whose longest-lived token has ended everywhere."""
    tokens = ctx.settings.tokens
    # The last instance may have signed with it until it heard of its successor.
    horizon = tokens.access_ttl + tokens.leeway + tokens.max_staleness
    now = await ctx.database.time()
    return tuple(
        row.kid
        for row in rows
        if row.state is KeyState.RETIRING
        and row.retiring_at is not None
        and row.retiring_at + horizon < now
    )


async def _wait_for_instances(ctx: Context, kid: str, wait: float) -> int:
    """Return how many instances list the key, once all of them do."""
    deadline = ctx.clock.monotonic() + wait
    while True:
        live = await ctx.instances.live(ctx.settings.rollout.instance_ttl)
        missing = [row.name for row in live if kid not in row.kids]
        if not missing:
            return len(live)
        if ctx.clock.monotonic() >= deadline:
            raise NotConverged(
                f"{len(missing)} of {len(live)} instances do not list key {kid[:8]}:"
                f" {', '.join(missing[:5])}",
                "the old key goes on signing; repeat it when `crossfade instances` is well",
            )
        await ctx.clock.sleep(POLL)
