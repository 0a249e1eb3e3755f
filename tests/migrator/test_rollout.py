import asyncio
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet import PLAN, trial
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import RevisionConflict
from crossfade.keys.ring import KeyState
from crossfade.rollout.state import CLIENTS, Phase, RolloutState, RunStatus
from crossfade_migrator import transitions
from crossfade_migrator.errors import (
    FaultFound,
    GateFailed,
    Held,
    Misused,
    NotConverged,
    Stopped,
)
from crossfade_migrator.plan import Plan
from crossfade_migrator.rollout import (
    advance,
    apply_plan,
    history,
    pause,
    resume,
    rollback,
    settle,
    status,
)
from crossfade_migrator.transitions import Target

PLANNED = Plan.from_mapping(PLAN)
LAST_TOKEN = 630.0
"""Access lifetime and leeway of the settings, in seconds."""


async def climb(one, to):
    """Advance until a stage is in force."""
    while (await one.ctx.rollout.head()).document.stage != to:
        await one.bake()
        await one.traffic()
        await advance(one.ctx)


async def state_of(one):
    return (await one.ctx.rollout.head()).document


def test_applying_a_plan_moves_nothing(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            return await one.ctx.rollout.head()

    head = asyncio.run(scenario())
    assert (head.number, head.verb, head.document.salt) == (1, "plan", "trial-1")
    assert replace(head.document, plan=None, salt="") == RolloutState.initial()


def test_accepting_is_acked_by_all_before_anything_is_issued(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            outcome = await advance(one.ctx)
            return outcome, one.fleet.seen

    outcome, seen = asyncio.run(scenario())
    widened, entered = (revision.document for revision in outcome.revisions)
    assert (widened.accept_token, widened.status) == (True, RunStatus.CONVERGING)
    assert not any(widened.issue_token.values())
    assert [revision.number for revision in seen] == [1, 2, 3]
    assert (entered.phase, entered.stage, entered.status) == ("dual", "dual-10", "baking")
    assert entered.issue_token == {"web": 10_000, "mobile": 5_000, "machine": 0}
    assert entered.stage_revision == 3


def test_an_instance_that_does_not_follow_stops_the_advance_and_is_named(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            one.fleet.deaf.add(one.fleet.members[1].id)
            with pytest.raises(NotConverged, match="app:101"):
                await advance(one.ctx, wait=10)
            halfway = await state_of(one)
            one.fleet.deaf.clear()
            again = await advance(one.ctx)
            return halfway, again

    halfway, again = asyncio.run(scenario())
    assert (halfway.status, halfway.accept_token) == (RunStatus.CONVERGING, True)
    assert not any(halfway.issue_token.values())
    assert [revision.document.stage for revision in again.revisions] == ["dual-10"]


def test_who_joins_while_the_fleet_is_counted_must_ack_too(tmp_path: Path) -> None:
    class Joining:
        """A process that starts right before the stage is written."""

        def __init__(self, inner, fleet):
            self.inner, self.fleet, self.follow = inner, fleet, fleet.follow

        def __getattr__(self, name):
            return getattr(self.inner, name)

        async def append(self, expected, state, **change):
            if state.stage is not None and len(self.fleet.members) == 2:
                self.fleet.follow = _nothing
                await self.fleet.start(1)
                self.fleet.follow = self.follow
            return await self.inner.append(expected, state, **change)

    async def scenario():
        async with trial(tmp_path) as one:
            one.ctx.rollout = Joining(one.ctx.rollout, one.fleet)
            begun = one.clock.slept
            outcome = await advance(one.ctx)
            return outcome.after.stage, len(one.fleet.members), one.clock.slept - begun

    stage, members, waited = asyncio.run(scenario())
    assert (stage, members) == ("dual-10", 3)
    assert waited == 3  # for the widening, for the newcomer, for the stage


async def _nothing() -> None:
    pass


def test_a_vanished_instance_is_waited_for_until_it_has_fenced_itself(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            one.fleet.deaf.add(one.fleet.members[0].id)
            await advance(one.ctx)
            return one.clock.slept

    assert 35 <= asyncio.run(scenario()) <= 38


def test_without_a_live_instance_nothing_advances(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path, instances=0) as one:
            with pytest.raises(NotConverged, match="0 live instances, at least 1"):
                await advance(one.ctx, allow_empty=True)
            return await one.ctx.rollout.head()

    assert asyncio.run(scenario()).number == 1


def test_an_empty_fleet_advances_where_that_is_allowed(tmp_path: Path) -> None:
    settings = {"rollout": {"min_instances": 0}}

    async def scenario():
        async with trial(tmp_path, instances=0, settings=settings) as one:
            with pytest.raises(NotConverged):
                await advance(one.ctx)
            return await advance(one.ctx, allow_empty=True)

    assert asyncio.run(scenario()).after.stage == "dual-10"


def test_a_stage_bakes_before_the_next_and_its_gates_must_pass(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            await one.traffic()
            with pytest.raises(Held, match="dual-10 bakes for 59m 59s more"):
                await advance(one.ctx)
            await one.bake()
            return await advance(one.ctx)

    assert asyncio.run(scenario()).after.stage == "dual-50"


def test_silence_holds(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            await one.bake()
            with pytest.raises(Held, match="auth-failure:web is inconclusive: 0/20"):
                await advance(one.ctx)

    asyncio.run(scenario())


def test_harm_refuses_and_writes_nothing(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            await one.bake()
            await one.traffic(failing=12)
            with pytest.raises(GateFailed, match="auth-failure:web"):
                await advance(one.ctx)
            return await one.ctx.rollout.head()

    assert asyncio.run(scenario()).number == 3


@pytest.mark.parametrize("force", [("auth-failure", "bake"), ("auth-failure:web", "bake")])
def test_a_forced_gate_is_recorded_with_its_reason(tmp_path: Path, force: tuple[str, ...]) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            await one.traffic(failing=12)
            with pytest.raises(Misused, match="forcing needs a reason"):
                await advance(one.ctx, force=force)
            return await advance(one.ctx, force=force, reason="a known fault of the tests")

    (revision,) = asyncio.run(scenario()).revisions
    assert (revision.document.stage, revision.reason) == ("dual-50", "a known fault of the tests")
    assert revision.evidence["forced"] == list(force)


def test_what_is_not_there_cannot_be_forced(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            with pytest.raises(Misused, match="nothing called 'other'"):
                await advance(one.ctx, force=["other"], reason="why not")

    asyncio.run(scenario())


def test_a_rollout_goes_through_every_phase_and_is_done(database_url: str) -> None:
    async def scenario():
        async with trial(database_url) as one:
            await climb(one, "tokens")
            await one.bake()
            await one.traffic()
            await advance(one.ctx)
            with pytest.raises(Misused, match="done"):
                await advance(one.ctx)
            return await state_of(one), [revision.document for revision in one.fleet.seen]

    last, seen = asyncio.run(scenario())
    assert (last.status, last.mode, last.leader) == (RunStatus.DONE, "enforce", "token")
    assert [(s.phase, s.accept_session, s.issue_session) for s in seen[-3:-1]] == [
        ("drain", True, False),
        ("tokens", False, False),
    ]


def test_a_dry_run_says_what_it_would_write_and_what_forbids_it(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            ahead = await advance(one.ctx, dry_run=True)
            await advance(one.ctx)
            blocked = await advance(one.ctx, dry_run=True)
            back = await rollback(one.ctx, to="sessions", reason="try", dry_run=True)
            return ahead, blocked, back, await one.ctx.rollout.head()

    ahead, blocked, back, head = asyncio.run(scenario())
    assert head.number == 3
    entered = "phase sessions -> dual, web 0% -> 10%, mobile 0% -> 5%"
    assert ahead.steps == (
        "revision 2: accept tokens; nothing is issued yet",
        f"revision 3, once every live instance acked: enter dual-10: {entered}",
    )
    assert blocked.blocked[0].split(" is ")[0] == "gate auth-failure:web"
    assert back.steps[-1] == "revision 5, once the last token ended: refuse tokens"
    assert back.impact.total_logged_out == 0


def test_a_change_for_another_revision_is_refused(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            for verb in (
                advance(one.ctx, if_revision=1),
                pause(one.ctx, reason="x", if_revision=1),
            ):
                with pytest.raises(RevisionConflict) as conflict:
                    await verb
                assert (conflict.value.expected, conflict.value.head) == (1, 3)

    asyncio.run(scenario())


def test_a_pause_stops_the_clock_of_the_bake(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            await one.bake(3000)
            await pause(one.ctx, reason="lunch")
            with pytest.raises(Stopped, match="paused: lunch"):
                await advance(one.ctx)
            await one.bake(5000)
            await resume(one.ctx)
            report = await status(one.ctx)
            return (
                report,
                await pause(one.ctx, reason="again"),
                await pause(one.ctx, reason="twice"),
            )

    report, paused, twice = asyncio.run(scenario())
    assert (report.baked, report.bake) == (pytest.approx(3000, abs=3), 3600)
    assert (paused.has_changed, twice.has_changed) == (True, False)


def test_going_back_one_stage_is_one_revision_and_waits_for_a_human(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "dual-50")
            outcome = await rollback(one.ctx, reason="refresh 401s")
            with pytest.raises(Stopped, match="rolled back"):
                await advance(one.ctx)
            await resume(one.ctx)
            return outcome, await state_of(one)

    outcome, resumed = asyncio.run(scenario())
    (revision,) = outcome.revisions
    assert (revision.document.stage, revision.document.status) == ("dual-10", "rolled_back")
    assert outcome.target == "dual-10"
    assert (revision.reason, revision.verb) == ("refresh 401s", "rollback")
    assert (resumed.status, resumed.stage_revision) == (RunStatus.BAKING, revision.number + 1)
    assert outcome.convergence.is_complete


def test_tokens_are_accepted_until_the_last_one_has_ended(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "dual-50")
            outcome = await rollback(one.ctx, to="sessions", reason="stop")
            with pytest.raises(Held, match="live for 10m"):
                await settle(one.ctx, wait=False)
            begun = one.clock.time()
            settled = await settle(one.ctx, wait=True)
            return outcome.after, settled, one.clock.time() - begun

    narrowed, settled, seconds = asyncio.run(scenario())
    assert (narrowed.accept_token, narrowed.mode, narrowed.status) == (True, "both", "rolling_back")
    assert not any(narrowed.issue_token.values())
    assert (settled.document.mode, settled.document.status) == ("off", "rolled_back")
    assert LAST_TOKEN - 2 < seconds <= LAST_TOKEN


def test_out_of_tokens_sessions_are_accepted_by_all_before_tokens_narrow(
    database_url: str,
) -> None:
    async def scenario():
        async with trial(database_url) as one:
            await climb(one, "tokens")
            outcome = await rollback(one.ctx, to="sessions", reason="stop", wait=True)
            return [revision.document for revision in outcome.revisions], one.fleet.seen

    (reopened, narrowed, settled), seen = asyncio.run(scenario())
    assert (reopened.accept_session, reopened.issue_session) == (True, True)
    assert all(reopened.issue_token.values())
    assert reopened.leader == "token"
    assert (narrowed.accept_session, narrowed.accept_token) == (True, True)
    assert (settled.accept_token, settled.stage, settled.phase) == (False, None, "sessions")
    assert [revision.document.status for revision in seen[-2:]] == ["rolling_back"] * 2


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFADE_ROOT_SECRET", "r" * 43)
    monkeypatch.setenv("CROSSFADE_WRAPPING_SECRET", "w" * 43)


@pytest.mark.usefixtures("secrets")
def test_a_hard_rollback_is_one_revision_and_revokes_the_keys(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "tokens")
            stolen = await one.ctx.keys.add("ES256", state=KeyState.ACTIVE, actor="ops")
            done = await rollback(one.ctx, to="sessions", hard=True, reason="stolen key")
            return done, stolen, await one.ctx.keys.load()

    done, stolen, ring = asyncio.run(scenario())
    (revision,) = done.revisions
    assert (revision.document.mode, revision.document.status) == ("off", "rolled_back")
    assert ring.get(stolen) is None
    assert ring.signing.kid != stolen


def test_a_hard_rollback_without_the_secrets_narrows_and_says_what_is_left(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "tokens")
            with pytest.raises(FaultFound, match="not revoked"):
                await rollback(one.ctx, to="sessions", hard=True, reason="stolen key")
            return await one.ctx.rollout.head()

    assert asyncio.run(scenario()).document.mode == "off"


def test_a_rollback_goes_on_although_an_instance_is_deaf(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "tokens")
            one.fleet.deaf = {info.id for info in one.fleet.members}
            said: list[str] = []
            outcome = await rollback(one.ctx, to="sessions", reason="stop", progress=said.append)
            return outcome.after, said

    after, said = asyncio.run(scenario())
    assert after.phase is Phase.SESSIONS
    assert any("waiting for" in text and "app:100" in text for text in said)


def test_two_rollbacks_at_once_end_in_one(database_url: str) -> None:
    async def scenario():
        async with trial(database_url) as one:
            await climb(one, "dual-50")
            both = (rollback(one.ctx, to="dual-10", reason=who) for who in ("ana", "bo"))
            outcomes = await asyncio.gather(*both)
            return [len(outcome.revisions) for outcome in outcomes], await state_of(one)

    written, state = asyncio.run(scenario())
    assert sorted(written) == [0, 1]
    assert state.stage == "dual-10"


def test_a_rollback_is_written_on_top_of_whatever_came_between(tmp_path: Path) -> None:
    class Meddling:
        """Somebody who pauses between the look and the write."""

        def __init__(self, inner, ctx):
            self.inner, self.ctx, self.is_done = inner, ctx, False

        def __getattr__(self, name):
            return getattr(self.inner, name)

        async def append(self, expected, state, **change):
            if not self.is_done:
                self.is_done = True
                await pause(self.ctx, reason="lunch")
            return await self.inner.append(expected, state, **change)

    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "dual-50")
            one.ctx.rollout = Meddling(one.ctx.rollout, one.ctx)
            outcome = await rollback(one.ctx, reason="now")
            return outcome.after, [r.verb for r in await history(one.ctx, limit=2)]

    after, verbs = asyncio.run(scenario())
    assert (after.stage, verbs) == ("dual-10", ["rollback", "pause"])


def test_a_rollback_needs_a_reason(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            with pytest.raises(Misused, match="needs a reason"):
                await rollback(one.ctx, reason=" ")

    asyncio.run(scenario())


@pytest.mark.parametrize("to", ["prefer", "tokens", "dual-50", "nowhere"])
def test_what_lies_ahead_or_nowhere_is_no_way_back(tmp_path: Path, to: str) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "dual-10")
            with pytest.raises(Misused):
                await rollback(one.ctx, to=to, reason="stop")

    asyncio.run(scenario())


def test_a_rollback_whose_writer_died_is_carried_through(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "tokens")
            head = await one.ctx.rollout.head()
            reopened = transitions.reopen(head.document, Target.of(PLANNED.stages[0]))
            await one.ctx.rollout.append(
                head.number, reopened, verb="rollback", actor="ana", reason="stop"
            )
            await resume(one.ctx)
            return await state_of(one), (await history(one.ctx, limit=2))[1].reason

    state, reason = asyncio.run(scenario())
    assert (state.stage, state.status, reason) == ("dual-10", "baking", "stop")


@pytest.mark.parametrize("run_status", list(RunStatus))
@pytest.mark.parametrize("stage", ["dual-50", "tokens"])
def test_a_rollback_works_in_every_status(
    tmp_path: Path, run_status: RunStatus, stage: str
) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            head = await one.ctx.rollout.head()
            entered = transitions.enter(
                replace(head.document, accept_token=True),
                Target.of(PLANNED.stage(stage)),
                now=one.clock.time(),
                revision=2,
            )
            odd = replace(entered, status=run_status, frozen=run_status == "frozen")
            await one.ctx.rollout.append(1, odd, verb="test", actor="test")
            await rollback(one.ctx, to="sessions", reason="stop", wait=True)
            return await state_of(one)

    state = asyncio.run(scenario())
    assert (state.mode, state.status, state.stage) == ("off", RunStatus.ROLLED_BACK, None)


def test_a_plan_that_this_version_cannot_read_does_not_bar_the_way_back(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await climb(one, "dual-50")
            head = await one.ctx.rollout.head()
            strange = replace(head.document, plan={"schema": 2})
            await one.ctx.rollout.append(head.number, strange, verb="test", actor="test")
            return await rollback(one.ctx, reason="stop")

    assert asyncio.run(scenario()).after.phase is Phase.SESSIONS


def test_a_plan_must_keep_the_stage_that_is_being_entered(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            one.fleet.deaf.add(one.fleet.members[0].id)
            with pytest.raises(NotConverged):
                await advance(one.ctx, wait=1)
            with pytest.raises(Misused, match="no stage 'dual-10'"):
                await one.apply({**deepcopy(PLAN), "stage": PLAN["stage"][1:]})

    asyncio.run(scenario())


@pytest.mark.parametrize("keys", [{"salt": "trial-2"}, {"stage": PLAN["stage"][1:]}])
def test_a_plan_in_force_keeps_its_salt_and_its_stage(tmp_path: Path, keys: dict[str, Any]) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            with pytest.raises(Misused):
                await one.apply({**deepcopy(PLAN), **keys})

    asyncio.run(scenario())


def test_a_plan_that_the_lint_refuses_is_not_stored(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            bad = Plan.from_mapping({**deepcopy(PLAN), "salt": ""})
            with pytest.raises(FaultFound, match="salt"):
                await apply_plan(one.ctx, bad)
            unchanged = await apply_plan(one.ctx, PLANNED)
            return unchanged.has_changed, (await one.ctx.rollout.head()).number

    assert asyncio.run(scenario()) == (False, 1)


def test_status_says_why_it_waits_and_what_helps(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            ready = await status(one.ctx)
            await advance(one.ctx)
            waiting = await status(one.ctx)
            await one.bake()
            held = await status(one.ctx)
            return ready, waiting, held

    ready, waiting, held = asyncio.run(scenario())
    assert ready.why == ("nothing: dual-10 may begin",)
    assert waiting.why[-1] == "bakes for 59m 59s more"
    assert (held.status, held.stage_number, held.stage_count) == (RunStatus.HELD, 1, 5)
    assert any("--force auth-failure:web" in text for text in held.unblocks)
    assert held.as_json()["issue"]["token"] == {"web": 10, "mobile": 5, "machine": 0}


def test_every_change_names_who_made_it(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            await advance(one.ctx)
            revisions = await history(one.ctx)
            return {r.actor.split(" ")[0] for r in revisions}, await one.ctx.rollout.verify()

    assert asyncio.run(scenario()) == ({"ana"}, [])


# The pure steps, from any state that a plan can lead to.


@st.composite
def reachable(draw):
    stage = draw(st.sampled_from([None, *PLANNED.stages]))
    target = Target.of(stage)
    state = replace(
        RolloutState.initial(), plan=PLAN, salt="trial-1", accept_token=stage is not None
    )
    if stage is not None:
        state = transitions.enter(state, target, now=1.0, revision=2)
    shape = draw(st.sampled_from(["as it is", "paused", "widened", "going back", "reopened"]))
    behind = [None, *PLANNED.stages[: PLANNED.stages.index(stage)]] if stage else [None]
    back = Target.of(draw(st.sampled_from(behind)))
    if shape == "paused":
        return transitions.pause(state, now=2.0, note="")
    ahead = transitions.target_ahead(PLANNED, state)
    if shape == "widened" and ahead is not None:
        return transitions.widen(state, ahead)
    if shape == "going back":
        return transitions.narrow_issuing(state, back, now=2.0, revision=3, last_token=9.0)
    if shape == "reopened" and not state.accept_session:
        return transitions.reopen(state, back)
    return state


@given(reachable())
def test_from_every_state_a_way_leads_to_sessions(state: RolloutState) -> None:
    target = transitions.target_back(PLANNED, state, "sessions")
    if not state.accept_session:
        state = transitions.reopen(state, target)
    state = transitions.narrow_issuing(state, target, now=5.0, revision=9, last_token=9.0)
    assert not any(state.issue_token.values())
    state = transitions.narrow_accepting(state)
    assert (state.mode, state.phase, state.accept_session) == ("off", "sessions", True)


@given(reachable())
def test_step_by_step_back_ends_at_sessions(state: RolloutState) -> None:
    for _ in range(len(PLANNED.stages) + 2):
        target = transitions.target_back(PLANNED, state, None)
        state = transitions.fall_back(state, target, now=5.0, revision=9)
    assert target.is_reached(state)
    assert state.phase is Phase.SESSIONS


@given(reachable())
def test_no_step_ever_issues_what_is_not_accepted_or_drops_both(state: RolloutState) -> None:
    steps = [state]
    if (ahead := transitions.target_ahead(PLANNED, state)) is not None:
        widened = transitions.widen(state, ahead)
        assert widened.accept_session >= state.accept_session
        assert dict(widened.issue_token) == dict(state.issue_token)
        steps += [widened, transitions.enter(widened, ahead, now=1.0, revision=5)]
    steps.append(
        transitions.resume(transitions.pause(state, now=3.0, note=""), now=4.0, revision=6)
    )
    for step in steps:
        assert step.accept_session or step.accept_token
        assert step.accept_token or not any(step.issue_token[client] for client in CLIENTS)
