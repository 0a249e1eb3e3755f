"""Audit of what was seen and changed nothing: tampered cookies, two users on one request.

They come from clients, who could fill a disk with them: one row a minute for each kind and subject,
with how often it was seen, and a bounded number between two writes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from crossfade.errors import Reason
from crossfade.metrics import Metrics
from crossfade.principal import Identity
from crossfade.stores.audit import AuditStore

_EVENTS = {
    Reason.SESSION_TAMPERED: "session.tampered",
    Reason.IDENTITY_CONFLICT: "identity.conflict",
}
_MOST = 1_000
_QUIET = 60.0


@dataclass(slots=True)
class _Seen:
    since: float
    times: int = 0


class Events:
    """The sightings of one process."""

    def __init__(
        self, *, audit: AuditStore, metrics: Metrics, monotonic: Callable[[], float]
    ) -> None:
        self._audit, self._metrics, self._monotonic = audit, metrics, monotonic
        self._seen: dict[tuple[str, str, Identity | None], _Seen] = {}

    def saw(self, reason: Reason | None, client: str, identity: Identity | None) -> None:
        """Note one sighting; what does not fit is counted as dropped."""
        event = _EVENTS.get(reason) if reason is not None else None
        if event is None:
            return
        place = (event, client, identity)
        if place not in self._seen and len(self._seen) >= _MOST:
            self._metrics.inc("audit_events", "dropped")
            return
        seen = self._seen.setdefault(place, _Seen(self._monotonic()))
        seen.times += 1

    async def flush(self) -> None:
        """Write what is due. A chore. Raises StoreUnavailable; the sightings then stay."""
        now = self._monotonic()
        due = {place: seen for place, seen in self._seen.items() if seen.times}
        for (event, client, identity), seen in due.items():
            times, seen.times = seen.times, 0
            try:
                await self._audit.note(event, client, identity, {"times": times})
            except BaseException:
                seen.times += times
                raise
            self._metrics.inc("audit_events", "written")
        for place, seen in list(self._seen.items()):
            if not seen.times and now - seen.since >= _QUIET:
                del self._seen[place]
