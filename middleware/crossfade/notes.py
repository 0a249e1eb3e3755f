"""What this process saw of subjects and their failures, for the gates."""

import ipaddress
from collections.abc import Callable

from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.rollout.state import RolloutState
from crossfade.stores.gates import GateStore, Observation

_MOST = 50_000
"""Subjects held between two writes; beyond that new ones wait for the next batch."""


class GateNotes:
    """The notes of one process. The arm is the cohort, never the path that answered."""

    def __init__(
        self, *, store: GateStore, roots: RootSecrets, state: Callable[[], RolloutState]
    ) -> None:
        self._store, self._roots, self._state = store, roots, state
        self._noted: dict[tuple[str, str, str], tuple[str, bool]] = {}
        self._written: set[tuple[str, str, str]] = set()
        self._stage = 0

    def note(self, client: str, identity: Identity, address: str, *, failed: bool) -> None:
        """Note one subject; what is already written and no news costs one look-up."""
        state = self._state()
        if state.stage is None:
            return
        if state.stage_revision != self._stage:
            self._stage = state.stage_revision
            self._noted.clear()
            self._written.clear()
        place = (client, identity.tenant, identity.subject)
        if not failed and place in self._written:
            return
        if len(self._noted) < _MOST:
            before = self._noted.get(place)
            self._noted[place] = (address, failed or (before is not None and before[1]))

    async def flush(self) -> None:
        """Write what was gathered. A chore. Raises StoreUnavailable; the notes then stay."""
        if not self._noted:
            return
        state, stage = self._state(), self._stage
        if state.stage_revision != stage:
            self._noted.clear()  # of a stage that is over: its arms were other ones
            return
        noted, self._noted = self._noted, {}
        batch = [self._observation(state, place, seen) for place, seen in noted.items()]
        try:
            await self._store.note(stage, batch)
        except BaseException:
            if self._stage == stage:
                self._noted = noted | self._noted
            raise
        if len(self._written) > _MOST:
            self._written.clear()
        self._written.update(noted)

    def _observation(
        self, state: RolloutState, place: tuple[str, str, str], seen: tuple[str, bool]
    ) -> Observation:
        client, tenant, subject = place
        address, failed = seen
        kv = self._roots.active
        network = _network(address)
        return Observation(
            client=client,
            subject=self._roots.mac(kv, "gate-subject", tenant.encode(), subject.encode())[:16],
            arm="token" if state.selects(client, subject) else "session",
            network=self._roots.mac(kv, "gate-network", network)[:8] if network else b"",
            failed=failed,
        )


def _network(address: str) -> bytes:
    """Return the /24 or /48 of an address; empty for none, and for the machine itself."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return b""
    if ip.is_loopback:
        return b""
    prefix = 24 if ip.version == 4 else 48
    return ipaddress.ip_network((ip, prefix), strict=False).network_address.packed
