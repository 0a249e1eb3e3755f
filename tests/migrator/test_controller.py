import asyncio
from copy import deepcopy
from pathlib import Path

import pytest
from fleet import PLAN, trial

from crossfade.errors import StoreUnavailable
from crossfade.rollout.state import RunStatus
from crossfade.stores.instances import Canary
from crossfade_migrator.controller import RunEnd, run
from crossfade_migrator.errors import Misused, Unreachable
from crossfade_migrator.rollout import advance, pause, resume, rollback


def busy(one, *, failing_at=None, failing=12):
    """Let people come at every look; in one stage tokens fail."""
    follow = one.fleet.follow

    async def follow_and_visit():
        await follow()
        state = (await one.ctx.rollout.head()).document
        if state.stage is not None:
            await one.traffic(failing=failing if state.stage == failing_at else 0)

    one.fleet.follow = follow_and_visit


def test_it_goes_through_every_stage_and_ends_when_all_is_done(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            busy(one)
            result = await run(one.ctx)
            return result, [revision.actor_kind for revision in await one.ctx.rollout.history()]

    result, kinds = asyncio.run(scenario())
    assert (result.end, result.exit_code) == (RunEnd.DONE, 0)
    assert result.advanced == ("dual-10", "dual-50", "prefer", "drain", "tokens")
    assert result.head.document.status is RunStatus.DONE
    assert set(kinds[:-1]) == {"controller"}


@pytest.mark.parametrize(("until", "stage"), [("dual-50", "dual-50"), ("prefer", "prefer")])
def test_it_ends_once_the_asked_stage_or_phase_is_in_force(
    tmp_path: Path, until: str, stage: str
) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            busy(one)
            return await run(one.ctx, until=until)

    result = asyncio.run(scenario())
    assert (result.end, result.head.document.stage) == (RunEnd.REACHED, stage)


def test_harm_rolls_back_with_the_evidence_and_waits_for_a_human(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            busy(one, failing_at="dual-50")
            result = await run(one.ctx)
            again = await run(one.ctx)
            return result, again

    result, again = asyncio.run(scenario())
    assert (result.end, result.exit_code) == (RunEnd.ROLLED_BACK, 12)
    assert (result.head.document.stage, result.head.actor_kind) == ("dual-10", "controller")
    assert result.head.evidence["gates"][0]["token"] == {"subjects": 60, "failures": 12}
    assert (again.end, again.exit_code, again.advanced) == (RunEnd.STOPPED, 15, ())


def test_a_failing_canary_rolls_back_and_names_the_instance(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            busy(one)
            await run(one.ctx, until="dual-50")
            one.fleet.canary[one.fleet.members[1].id] = Canary(ok=False, why="unknown_kid")
            broken = await run(one.ctx)
            one.fleet.canary.clear()
            await one.fleet.follow()
            await resume(one.ctx)
            return broken, await run(one.ctx, until="prefer")

    broken, mended = asyncio.run(scenario())
    assert broken.end is RunEnd.ROLLED_BACK
    assert "app:101 (unknown_kid)" in broken.why
    assert mended.end is RunEnd.REACHED


def test_a_gate_that_pauses_does_not_go_back(tmp_path: Path) -> None:
    document = deepcopy(PLAN)
    document["gate"][0]["on_fail"] = "pause"

    async def scenario():
        async with trial(tmp_path) as one:
            await one.apply(document)
            busy(one, failing_at="dual-50")
            return await run(one.ctx)

    result = asyncio.run(scenario())
    assert (result.end, result.exit_code) == (RunEnd.PAUSED, 15)
    assert (result.head.document.stage, result.head.document.status) == ("dual-50", "paused")


def test_a_gate_that_observes_only_reports(tmp_path: Path) -> None:
    document = deepcopy(PLAN)
    document["gate"][0]["mode"] = "observe"

    async def scenario():
        said = []
        async with trial(tmp_path) as one:
            await one.apply(document)
            busy(one, failing_at="dual-50")
            return await run(one.ctx, until="prefer", progress=said.append), said

    result, said = asyncio.run(scenario())
    assert result.end is RunEnd.REACHED
    assert any("auth-failure:web would have acted" in text for text in said)


def test_silence_is_held_and_then_paused(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            result = await run(one.ctx)
            return result, one.clock.slept

    result, slept = asyncio.run(scenario())
    assert (result.end, result.advanced) == (RunEnd.PAUSED, ("dual-10",))
    assert "0/20 token subjects" in result.why
    assert 3 * 3600 <= slept < 3 * 3600 + 2500


def test_without_canary_reports_nothing_advances(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            busy(one)
            one.fleet.is_canary_on = False
            return await run(one.ctx)

    result = asyncio.run(scenario())
    assert (result.end, result.advanced) == (RunEnd.PAUSED, ("dual-10",))
    assert "canary" in result.why


def test_a_fleet_that_does_not_follow_pauses_after_four_looks(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            follow, deaf = one.fleet.follow, one.fleet.members[0].id

            async def follow_but_one():
                one.fleet.deaf.add(deaf)
                await follow()
                await one.ctx.instances.heartbeat(deaf)

            one.fleet.follow = follow_but_one
            return await run(one.ctx)

    result = asyncio.run(scenario())
    assert (result.end, result.head.document.status) == (RunEnd.PAUSED, "paused")
    assert "4 looks in a row failed: revision 2 is not run by app:100" in result.why


class Failing:
    """A rollout store whose database is away for some calls."""

    def __init__(self, inner, calls):
        self.inner, self.calls = inner, calls

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def head(self):
        self.calls -= 1
        if self.calls >= 0:
            raise StoreUnavailable("sql", "away")
        return await self.inner.head()


@pytest.mark.parametrize(("calls", "end"), [(3, RunEnd.REACHED), (4, RunEnd.PAUSED)])
def test_errors_are_waited_out_and_then_pause_but_never_roll_back(
    tmp_path: Path, calls: int, end: RunEnd
) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            one.ctx.rollout = Failing(one.ctx.rollout, calls)
            one.clock.fleet = None
            return await run(one.ctx, until="dual-10", every=1)

    result = asyncio.run(scenario())
    assert (result.end, result.head.document.stage) == (end, "dual-10")


def test_a_database_that_stays_away_ends_the_run_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            one.ctx.rollout = Failing(one.ctx.rollout, 99)
            one.clock.fleet = None
            with pytest.raises(Unreachable, match="stands where it is"):
                await run(one.ctx)

    asyncio.run(scenario())


def test_it_ends_when_somebody_pauses(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            await pause(one.ctx, reason="lunch")
            return await run(one.ctx)

    result = asyncio.run(scenario())
    assert (result.end, result.why) == (RunEnd.STOPPED, "the rollout is paused: lunch")


def test_it_settles_a_rollback_that_was_left_halfway(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            await rollback(one.ctx, to="sessions", reason="stop")
            return await run(one.ctx)

    result = asyncio.run(scenario())
    assert (result.end, result.head.document.mode) == (RunEnd.STOPPED, "off")
    assert result.head.document.status is RunStatus.ROLLED_BACK


def test_interrupted_at_any_moment_anybody_can_go_on(tmp_path: Path) -> None:
    async def scenario(at):
        folder = tmp_path / str(at)
        folder.mkdir()
        async with trial(folder) as one:
            busy(one)
            task = asyncio.create_task(run(one.ctx, until="dual-50"))
            for _ in range(at):
                await asyncio.sleep(0.004)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await one.ctx.rollout.verify() == []
            return await run(one.ctx, until="dual-50")

    for at in range(0, 50, 10):
        assert asyncio.run(scenario(at)).head.document.stage == "dual-50"


@pytest.mark.parametrize("until", ["nowhere", "sessions"])
def test_an_unknown_end_is_refused(tmp_path: Path, until: str) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            with pytest.raises(Misused, match=f"no stage or phase '{until}'"):
                await run(one.ctx, until=until)

    asyncio.run(scenario())
