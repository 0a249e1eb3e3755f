"""Read the audit: what happened to logins, keys and the rollout."""

from dataclasses import dataclass

from crossfade.principal import Identity
from crossfade.stores.audit import AuditRow
from crossfade_migrator.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some entries, oldest first. `after` goes on behind them; None if there are no more."""

    entries: tuple[AuditRow, ...]
    after: int | None


async def read(
    ctx: Context,
    *,
    age: float,
    subject: str | None = None,
    tenant: str = "",
    limit: int = 50,
    after: int = 0,
) -> Page:
    """Return entries of the last `age` seconds, of everybody or of one subject.

    A subject whose personal data was erased is still found, by hash. Raises StoreUnavailable.
    """
    since = await ctx.database.time() - age
    who = None if subject is None else Identity(subject=subject, tenant=tenant)
    rows = await ctx.audit.page(since, who, limit + 1, after=after)
    shown = tuple(rows[:limit])
    return Page(entries=shown, after=shown[-1].id if len(rows) > limit else None)
