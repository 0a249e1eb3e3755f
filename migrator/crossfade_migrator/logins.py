"""List and end the logins of a user, in both worlds."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from crossfade.stores.logins import LoginRow
from crossfade.tokens.refresh import Login
from crossfade_migrator.context import Context
from crossfade_migrator.errors import Misused

TRIGGER = "operator"
"""What audit and metrics call a login that the command line ended."""

_SID_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What was ended: how many logins, and with one given, that one."""

    ended: int
    login: Login | None = None


def sid_text(sid: bytes) -> str:
    """Write a login's id as its tokens do: base64url without padding, 22 characters."""
    return base64.urlsafe_b64encode(sid).rstrip(b"=").decode()


def read_sid(text: str) -> bytes:
    """Read a login's id. Raises Misused if it is none."""
    try:
        sid = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        sid = b""
    if len(sid) != _SID_BYTES or sid_text(sid) != text:
        raise Misused("that is no login id: 22 letters, digits, - and _", _SEE_LIST)
    return sid


async def list_logins(ctx: Context, subject: str, *, tenant: str = "") -> Sequence[LoginRow]:
    """Return the live logins of a user, the oldest first. Raises StoreUnavailable."""
    return await ctx.logins.live(tenant, subject)


async def find(ctx: Context, sid: bytes) -> Login:
    """Return a login, ended or not. Raises Misused if there is none."""
    login = await ctx.logins.get(sid)
    if login is None:
        raise Misused("there is no login with that id", _SEE_LIST)
    return login


async def revoke(ctx: Context, sid: bytes) -> Revoked:
    """End one login and its legacy session; one that has ended stays so.

    Raises:
        Misused: there is no such login.
        StoreUnavailable: nothing was written.
    """
    before = await find(ctx, sid)
    after = await ctx.logins.end(sid, why=TRIGGER, trigger=TRIGGER, actor=ctx.actor)
    return Revoked(ended=int(before.ended_at is None), login=after)


async def revoke_all(
    ctx: Context, subject: str, *, tenant: str = "", except_sid: bytes | None = None
) -> Revoked:
    """End all logins of a user, and refuse all legacy sessions that began before now.

    Raises StoreUnavailable; what was ended stays ended, and older log-ins are void all the same.
    """
    ended = await ctx.logins.end_all(
        tenant, subject, except_sid=except_sid, why=TRIGGER, trigger=TRIGGER, actor=ctx.actor
    )
    return Revoked(ended=ended)


_SEE_LIST = "see `crossfade logins list SUBJECT`"
