"""What the operator does, step by step, while the shop is open."""

import asyncio
import time
from collections.abc import Callable, Coroutine

from websockets.exceptions import WebSocketException

from crossfade_migrator.context import Context
from crossfade_migrator.controller import RunEnd, run
from crossfade_migrator.demo import probes
from crossfade_migrator.demo.cast import Cast, Sleepers
from crossfade_migrator.demo.clients import Street
from crossfade_migrator.demo.crowd import Crowd
from crossfade_migrator.demo.house import House
from crossfade_migrator.demo.ledger import SERVER, Ledger
from crossfade_migrator.plan import Plan
from crossfade_migrator.rollout import advance, apply_plan, resume, rollback

Say = Callable[[str], None]


class Failed(Exception):
    """The demo did not go as it must: a step of the rollout itself failed."""


class Scenario:
    """The whole way, up, down and up again."""

    def __init__(
        self, ctx: Context, house: House, street: Street, crowd: Crowd, plan: Plan, say: Say
    ) -> None:
        self.ctx, self.house, self.street, self.crowd = ctx, house, street, crowd
        self.plan, self.say = plan, say
        self.ledger: Ledger = street.ledger
        self._probes: list[asyncio.Task[None]] = []
        self._cast = Cast(plan.salt)

    async def play(self) -> None:
        """Take the plan through everything. Raises Failed where a verb does not do its work."""
        await self._open()
        await self._first_step()
        await self._fault()
        await self._all_the_way()
        await self._back()
        await self._up_again()
        await self._join_probes()

    async def _open(self) -> None:
        self._enter("sessions", "the shop opens; it knows sessions and nothing else")
        self.crowd.start(within=4)
        await asyncio.sleep(4.5)
        await asyncio.gather(self._newcomers(), self._compare())

    async def _first_step(self) -> None:
        await apply_plan(self.ctx, self.plan, reason="the demo")
        self.say(f"plan {self.plan.name}: {', '.join(stage.name for stage in self.plan.stages)}")
        await advance(self.ctx, reason="the first third", progress=self.say)
        self._enter("dual-30", "three in ten get tokens beside their sessions")
        self._newcomers_soon()
        await self._compare()

    async def _fault(self) -> None:
        sleepers = await self._lay_down("dual-30")
        self._enter("fault", "one worker loses its keys; nobody tells the controller")
        self.ledger.faulty_until = float("inf")
        self.house.strike()
        struck_at = time.monotonic()
        result = await run(self.ctx, until="prefer", progress=self._timed(self.say))
        if result.end is not RunEnd.ROLLED_BACK:
            raise Failed(f"the controller did not roll back: {result.end}, {result.why}")
        self.ledger.counts["rollbacks"] += 1
        self.say(f"rolled back by its gate {time.monotonic() - struck_at:.1f} s after the fault")
        self.house.mend()
        self.ledger.faulty_until = time.monotonic() + 2
        self._enter("rolled back", "the worker has its keys again; those who slept wake up")
        await self._wake(sleepers)
        await asyncio.gather(self._newcomers(), self._compare())

    async def _all_the_way(self) -> None:
        await resume(self.ctx, reason="the worker is mended", progress=self.say)
        await self._run_to("dual-30", "three in ten again, the same people")
        await self._compare()
        await self._run_to("dual-70", "seven in ten")
        self._test_revocation()
        await self._compare()
        await self._run_to("prefer", "everybody has tokens, and tokens lead")
        self._test_tokens()
        self._newcomers_soon()
        await self._compare()
        self._long = await self._lay_down("prefer")
        await self._run_to("drain", "sessions are handed out no more")
        self._test_revocation()
        self._newcomers_soon()
        await self._compare()
        await self._run_to("tokens", "tokens alone authenticate")
        self._test_tokens()
        self._newcomers_soon()
        await self._compare()
        self._test_revocation()

    async def _back(self) -> None:
        sleepers = await self._lay_down("tokens")
        await self._join_probes()
        self._enter("rollback", "somebody wants everything back: to sessions")
        outcome = await rollback(
            self.ctx,
            to="sessions",
            reason="the demo goes back",
            wait=True,
            progress=self._timed(self.say),
        )
        if outcome.after.accept_token:
            raise Failed("tokens are still accepted after the rollback")
        self.ledger.counts["rollbacks"] += 1
        self._enter("sessions again", "accept is narrow; those who slept wake up")
        await asyncio.gather(self._wake(sleepers), self._wake(self._long))
        await asyncio.gather(self._newcomers(), self._compare())

    async def _up_again(self) -> None:
        await resume(self.ctx, reason="up again", progress=self.say)
        await self._run_to("dual-30", "up again, the same people as before")
        self._newcomers_soon()
        await self._compare()

    @property
    def extras(self) -> int:
        """Return how many people came besides the crowd."""
        return self._cast.given

    async def close(self) -> None:
        """Stop what still runs, after a step that failed."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    def _enter(self, phase: str, what: str) -> None:
        self.ledger.phase = phase
        self.say(f"{phase}: {what}")

    async def _run_to(self, stage: str, what: str) -> None:
        result = await run(self.ctx, until=stage, progress=self.say)
        if result.end is not RunEnd.REACHED:
            raise Failed(f"the controller did not reach {stage}: {result.end}, {result.why}")
        self._enter(stage, what)

    async def _compare(self) -> None:
        answered = await self.crowd.roll_call()
        self.say(f"{answered} of {len(self.crowd)} people compared who they are and their carts")

    def _timed(self, say: Say) -> Say:
        """Measure a rollback by what its verb says: from the decision until all instances acked."""
        marks: dict[str, float] = {}

        def listen(text: str) -> None:
            say(text)
            now = time.monotonic()
            is_revision = text.startswith("revision ")
            if "failed" in text or is_revision:
                marks.setdefault("decided", now)
            if is_revision and ": back to" in text:
                marks["written"] = now
            elif is_revision and " on " in text and "written" in marks and "acked" not in marks:
                marks["acked"] = now
                self.ledger.rollback_seconds.append(now - marks["decided"])

        return listen

    def _probe(self, probe: Coroutine[None, None, None]) -> None:
        self._probes.append(asyncio.create_task(self._noted(probe)))

    async def _noted(self, probe: Coroutine[None, None, None]) -> None:
        try:
            await probe
        except (OSError, WebSocketException) as error:
            self.ledger.breach(SERVER, "probe", f"a socket broke: {type(error).__name__}")

    async def _join_probes(self) -> None:
        probes_, self._probes = self._probes, []
        await asyncio.gather(*probes_)

    def _test_revocation(self) -> None:
        some = self._cast.someone
        self._probe(probes.thief_after_log_out(self.street, some("web", 70)))
        self._probe(probes.operator_ends_login(self.street, self.ctx, some("web", 70)))
        self._probe(probes.person_ends_other_login(self.street, some("web", 70)))

    def _test_tokens(self) -> None:
        some = self._cast.someone
        self._probe(probes.thief_reuses_refresh_token(self.street, some("mobile", 100)))
        self._probe(probes.refresh_in_parallel(self.street, some("mobile", 100)))
        self._probe(probes.token_thief(self.street, some("web", 100)))

    async def _newcomers(self) -> None:
        await probes.newcomers(self.street, *self._cast.newcomers())

    async def _lay_down(self, stage: str) -> Sleepers:
        """Let some log in freshly, get tokens, fill a cart, and fall silent."""
        share = self.plan.stage(stage)
        percent = 100 if share is None else share.issue["web"] // 1000
        sleepers = self._cast.sleepers(self.street, percent)
        count = await sleepers.lie_down()
        self.say(f"{count} people with tokens fall silent")
        return sleepers

    async def _wake(self, sleepers: Sleepers) -> None:
        await asyncio.sleep(max(0.0, sleepers.until - time.monotonic()))
        count = await sleepers.wake()
        self.say(f"{count} who slept for {sleepers.slept:.0f} s woke up logged in")

    def _newcomers_soon(self) -> None:
        self._probe(self._newcomers())
