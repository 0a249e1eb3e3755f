import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
from fleet import PLAN, trial
from hypothesis import given
from hypothesis import strategies as st

from crossfade.stores.gates import Count, Window
from crossfade.stores.instances import Canary, InstanceRow
from crossfade_migrator.gates import GateResult, Verdict, canary, compare, e_value, evaluate
from crossfade_migrator.plan import Gate, Plan

PLANNED = Plan.from_mapping(PLAN)
STAGE = PLANNED.stages[0]
GATE = Gate(name="auth-failure", kind="compare", clients=("web",))
ALIVE = InstanceRow(
    id="i",
    host="app",
    pid=1,
    boot_id="b",
    version="1",
    joined_at=0.0,
    seen_at=0.0,
    age=0.0,
    revision=1,
    document_sha256="",
    kids=(),
    clock_offset=0.0,
    canary=Canary(ok=True),
    is_vanished=False,
)


def window(token=0, session=0, token_subjects=100, session_subjects=900):
    return Window(
        token_failures=token,
        session_failures=session,
        token_subjects=token_subjects,
        session_subjects=session_subjects,
    )


def judge(token=(60, 0), session=(60, 0), windows=(), stage=STAGE, gate=GATE):
    counts = {
        ("web", arm): Count(subjects=subjects, failures=failures)
        for arm, (subjects, failures) in (("token", token), ("session", session))
    }
    return compare(gate, "web", stage, counts=counts, windows=windows, threshold=100)


def test_without_a_failure_there_is_no_evidence() -> None:
    assert e_value([]) == 1
    assert e_value([window()]) == 1


def test_three_token_failures_without_another_are_enough_at_a_small_share() -> None:
    assert e_value([window(token=2)]) < 100 < e_value([window(token=3)])


def test_failures_as_the_shares_are_prove_nothing() -> None:
    assert e_value([window(token=1, session=9)] * 5) < 1


@pytest.mark.parametrize(
    "silent",
    [
        window(token=9, session_subjects=0),
        window(token=9, token_subjects=0),
        window(token=9, token_subjects=960, session_subjects=40),
    ],
    ids=["no session subjects", "no token subjects", "nearly all have tokens"],
)
def test_windows_that_cannot_compare_say_nothing(silent: Window) -> None:
    assert e_value([silent]) == 1


def test_a_hopeless_fault_is_a_number_still() -> None:
    assert 1e100 < e_value([window(token=10_000)] * 9) < float("inf")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 99), st.integers(1, 99))
def test_more_token_failures_are_never_less_evidence(
    token: int, session: int, with_token: int, without: int
) -> None:
    here = window(token, session, with_token, without)
    there = replace(here, token_failures=token + 1)
    assert e_value([there]) >= e_value([here]) or with_token / (with_token + without) > 0.95


def _highest(rng, share, token_rate, session_rate, looks=100):
    """Return the largest e-value of a rollout that is looked at after every window."""
    seen, highest = [], 0.0
    for _ in range(looks):
        token = sum(rng.random() < token_rate for _ in range(int(100 * share)))
        session = sum(rng.random() < session_rate for _ in range(int(100 * (1 - share))))
        if token or session:
            seen.append(window(token, session, int(1000 * share), int(1000 * (1 - share))))
            highest = max(highest, e_value(seen))
    return highest


def test_looking_often_does_not_raise_false_alarms() -> None:
    rng = random.Random(20261121)
    alarms = sum(_highest(rng, 0.1, 0.02, 0.02) >= 100 for _ in range(150))
    assert alarms <= 3  # at most 1 % is promised; 1.5 expected at the very most


def test_a_jump_of_failures_is_found() -> None:
    rng = random.Random(20261121)
    assert all(_highest(rng, 0.1, 0.3, 0.005, looks=20) >= 100 for _ in range(40))


@pytest.mark.parametrize(
    ("result", "verdict", "words"),
    [
        (judge(), Verdict.PASS, "token 0/60, session 0/60"),
        (judge(windows=[window(token=5)]), Verdict.FAIL, "reached 100"),
        (judge(token=(4, 4), windows=[window(token=4)]), Verdict.FAIL, "token 4/4"),
        (judge(token=(19, 0)), Verdict.INCONCLUSIVE, "19/20"),
        (judge(token=(0, 0), session=(0, 0)), Verdict.INCONCLUSIVE, "0/20"),
        (judge(session=(0, 0)), Verdict.INCONCLUSIVE, "no session subjects"),
        (judge(stage=PLANNED.stages[2]), Verdict.SKIPPED, "at 100%"),
        (judge(token=(3, 0), stage=PLANNED.stages[2]), Verdict.INCONCLUSIVE, "3/20"),
    ],
)
def test_the_verdict_follows_from_the_numbers(
    result: GateResult, verdict: Verdict, words: str
) -> None:
    assert result.verdict is verdict
    assert words in result.why
    assert result.blocks == (verdict in {"fail", "inconclusive"})


def test_silence_passes_only_where_the_plan_says_so() -> None:
    unwatched = replace(STAGE, min_subjects=0)
    assert judge(token=(0, 0), session=(0, 0), stage=unwatched).verdict is Verdict.PASS


def test_a_gate_that_only_observes_holds_nothing_up() -> None:
    observing = Gate(name="g", kind="compare", mode="observe")
    result = judge(windows=[window(token=9)], gate=observing)
    assert (result.verdict, result.blocks) == (Verdict.FAIL, False)


def test_one_instance_that_refuses_the_canary_fails_the_gate_by_name() -> None:
    broken = replace(ALIVE, pid=2, canary=Canary(ok=False, why="unknown_kid"))
    result = canary([ALIVE, broken], patience=30)
    assert result.verdict is Verdict.FAIL
    assert result.why == "1 of 2 refuse it: app:2 (unknown_kid)"


@pytest.mark.parametrize(
    ("instances", "verdict"),
    [
        ([ALIVE], Verdict.PASS),
        ([], Verdict.INCONCLUSIVE),
        ([ALIVE, replace(ALIVE, canary=None)], Verdict.INCONCLUSIVE),
        ([replace(ALIVE, canary=Canary(ok=True, age=31))], Verdict.INCONCLUSIVE),
        ([ALIVE, replace(ALIVE, is_vanished=True, canary=Canary(ok=False))], Verdict.PASS),
    ],
    ids=["verified", "nobody", "never tried", "stopped to look", "vanished"],
)
def test_the_canary_needs_a_fresh_answer_of_every_live_instance(
    instances: list[InstanceRow], verdict: Verdict
) -> None:
    assert canary(instances, patience=30).verdict is verdict


def test_before_tokens_are_accepted_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    async def scenario():
        async with trial(tmp_path) as one:
            return await evaluate(one.ctx, await one.ctx.rollout.head(), PLANNED)

    assert asyncio.run(scenario()) == []
