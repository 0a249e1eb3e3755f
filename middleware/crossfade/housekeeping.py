"""The chores of an instance: deletions, the canary, the sentinel, notes, pruning."""

import logging
from collections.abc import Callable

from crossfade.anchors import Anchors
from crossfade.clock import Clock
from crossfade.errors import KeysUnavailable, StoreUnavailable, TokenRejected
from crossfade.events import Events
from crossfade.journal import Ending, Journal
from crossfade.keys.ring import KeyRing
from crossfade.legacy.base import LegacySessions
from crossfade.metrics import Metrics
from crossfade.notes import GateNotes
from crossfade.principal import Identity
from crossfade.rollout.source import Chore, Follower
from crossfade.settings import Settings
from crossfade.stores.bootstrap import prune
from crossfade.stores.canary import CanaryStore
from crossfade.stores.engine import Database
from crossfade.stores.instances import Canary
from crossfade.stores.leases import LeaseStore
from crossfade.stores.logins import LoginStore
from crossfade.tokens.claims import AccessGrant
from crossfade.tokens.issuer import Issuer
from crossfade.tokens.verifier import TokenVerifier

logger = logging.getLogger("crossfade.housekeeping")

CANARY_AUDIENCE = "crossfade:canary"
"""Of the canary token: no application accepts it, whoever reads it from the database."""
_PRUNE_EVERY = 3600.0
_BATCH = 100


class Housekeeping:
    """Builds the chores that the follower does between two polls."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        follower: Follower,
        logins: LoginStore,
        legacy: LegacySessions,
        anchors: Anchors,
        notes: GateNotes,
        canary: "CanaryWatch",
        journal: Journal,
        events: Events,
        clock: Clock,
    ) -> None:
        self._events = events
        self._settings, self._database, self._follower = settings, database, follower
        self._logins, self._legacy, self._anchors = logins, legacy, anchors
        self._notes, self._canary, self._journal, self._clock = notes, canary, journal, clock
        self._leases = LeaseStore(database)

    def chores(self) -> list[Chore]:
        """Return the chores, the quick and important ones first."""
        rollout = self._settings.rollout
        return [
            Chore(name="replay log-outs", every=1.0, run=self._replay),
            Chore(name="delete ended sessions", every=1.0, run=self._delete_ended),
            Chore(name="canary", every=rollout.canary, run=self._canary.watch),
            Chore(name="gate notes", every=1.0, run=self._notes.flush),
            Chore(name="audit", every=1.0, run=self._events.flush),
            Chore(name="sentinel", every=rollout.heartbeat, run=self._anchors.watch_sentinel),
            Chore(name="forget revocations", every=60.0, run=self._forget),
            Chore(name="prune", every=_PRUNE_EVERY, run=self._prune),
        ]

    async def _replay(self) -> None:
        if done := await self._journal.replay(self._end):
            logger.warning("%d log-outs that waited for the database are carried out", done)

    async def _end(self, ending: Ending) -> None:
        if ending.sid:
            await self._logins.end(bytes.fromhex(ending.sid), why="logout", trigger="logout")
        if ending.anchor:
            await self._logins.end_anchor(
                ending.tenant,
                bytes.fromhex(ending.anchor),
                key=None,
                reader=self._legacy.reader,
                why="logout",
                trigger="logout",
            )

    async def _delete_ended(self) -> None:
        for item in await self._logins.due_outbox(_BATCH):
            if item.reader != self._legacy.reader:
                await self._logins.done([item.id])
                continue
            try:
                await self._legacy.delete(item.key)
            except StoreUnavailable:
                await self._logins.failed(item.id)
            else:
                await self._logins.done([item.id])

    async def _forget(self) -> None:
        self._follower.revocations.prune(self._clock.time())

    async def _prune(self) -> None:
        if await self._leases.take("prune", self._follower.instance_id, _PRUNE_EVERY / 2):
            await prune(self._database, self._settings.retention)


class CanaryWatch:
    """Verifies a token of the fleet through the whole path, and says what came of it.

    A process with a wrong key set looks healthy by its own traffic: its users' tokens are simply
    bad. Only a token that must be good shows it.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: CanaryStore,
        follower: Follower,
        keys: Callable[[], KeyRing],
        metrics: Metrics,
        make_issuer: Callable[[str, TokenVerifier], Issuer],
        clock: Clock,
    ) -> None:
        self._every, self._store, self._follower = settings.rollout.canary, store, follower
        self._metrics, self._clock = metrics, clock
        self._verifier = TokenVerifier(
            issuer=settings.issuer,
            audience=CANARY_AUDIENCE,
            keys=keys,
            clock=clock,
            leeway=settings.tokens.leeway,
        )
        self._issuer = make_issuer(CANARY_AUDIENCE, self._verifier)

    async def watch(self) -> None:
        """Verify the fleet's canary once, minting a new one when it is due. A chore.

        Before tokens are accepted too: so the first stage already has a finding of this moment.
        """
        token = await self._store.get(max_age=2 * self._every)
        try:
            if token is None:
                token = self._mint()
                await self._store.put(token)
            self._verifier.verify(token.encode())
        except (TokenRejected, KeysUnavailable) as error:
            reason = error.reason if isinstance(error, TokenRejected) else "keys_unavailable"
            self._follower.canary = Canary(ok=False, why=str(reason))
            self._metrics.inc("canary", "failed")
            logger.error("the canary token does not verify here: %s", reason)  # noqa: TRY400 - no trace needed
        else:
            self._follower.canary = Canary(ok=True)
            self._metrics.inc("canary", "ok")

    def _mint(self) -> str:
        now = self._clock.time()
        return self._issuer.mint(
            AccessGrant(
                identity=Identity(subject="crossfade-canary"),
                sid=bytes(16),
                client="machine",
                client_id="crossfade-canary",
                auth_time=now,
            )
        ).token
