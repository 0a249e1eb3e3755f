"""Count whom a change would log out, before it is made."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select

from crossfade.rollout.state import RolloutState
from crossfade.stores.engine import present
from crossfade.stores.schema import logins
from crossfade_migrator.context import Context
from crossfade_migrator.transitions import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """Whom a change touches, by client kind.

    Attributes:
        live: logins that hold tokens now.
        logged_out: those among them that would have to log in again.
        why: the reason for these numbers, in words.
    """

    live: Mapping[str, int]
    logged_out: Mapping[str, int]
    why: str

    @property
    def total_logged_out(self) -> int:
        """Return how many logins would have to log in again."""
        return sum(self.logged_out.values())


async def impact(
    ctx: Context, state: RolloutState, target: Target, *, hard: bool = False
) -> Impact:
    """Say whom it would log out to go from here to the target.

    With the bridge on nobody: browsers get their session back by their refresh token, others go on
    at the token endpoint. With `bridge = "off"` whoever has no live session beside the tokens.

    Raises:
        StoreUnavailable: nothing was counted.
    """
    live = await _count(ctx)
    if target.phase.accepts_token or not state.accept_token:
        return Impact(live=live, logged_out={}, why="tokens stay accepted")
    if ctx.settings.tokens.bridge == "on":
        why = "refresh tokens bring sessions back"
        if hard:
            why = f"{why}; access tokens in use fail at once, the next request mends that"
        return Impact(live=live, logged_out={}, why=why)
    alone = await _count(ctx, _is_alone(ctx))
    return Impact(
        live=live, logged_out=alone, why="the bridge is off: no session stands beside these"
    )


def _is_alone(ctx: Context) -> ColumnElement[bool]:
    now = ctx.database.now()
    return or_(logins.c.anchor.is_(None), logins.c.anchor_until <= now)


async def _count(ctx: Context, *conditions: ColumnElement[bool]) -> Mapping[str, int]:
    async with ctx.database.read() as connection:
        now = present(connection)
        query = (
            select(logins.c.client, func.count().label("number"))
            .where(
                logins.c.ended_at.is_(None),
                logins.c.idle_until > now,
                logins.c.absolute_until > now,
                *conditions,
            )
            .group_by(logins.c.client)
        )
        rows = await connection.execute(query)
        return {row.client: row.number for row in rows}
