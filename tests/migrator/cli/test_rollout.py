from typing import Any

import pytest

from crossfade.stores.instances import InstanceInfo
from crossfade_migrator.context import Context

GO = ("--yes", "--allow-empty", "--json")
FORCE = ("--force", "bake", "--force", "canary")
REHEARSAL = ("--reason", "rehearsal")


def _status(crossfade: Any) -> dict[str, Any]:
    found: dict[str, Any] = crossfade("status", "--json").document
    return found


def _revision(crossfade: Any) -> int:
    number: int = _status(crossfade)["revision"]
    return number


async def _join(context: Context) -> None:
    info = InstanceInfo(id="one", host="web-1", pid=7, boot_id="b", version="0.1.0")
    await context.instances.join(info)


def test_advance_enters_the_first_stage_in_two_revisions(planned: Any) -> None:
    done = planned("advance", *GO)
    assert done.code == 0
    document = done.document
    assert (document["stage"], document["phase"], document["status"]) == (
        "dual-10",
        "dual",
        "baking",
    )
    assert len(document["revisions"]) == 2
    assert _status(planned)["issue"]["token"] == {"web": 10.0, "mobile": 10.0, "machine": 0.0}


def test_a_dry_run_says_the_steps_and_whom_they_touch_and_writes_nothing(planned: Any) -> None:
    before = _revision(planned)
    done = planned("advance", "--dry-run")
    assert done.code == 0
    assert "would write" in done.out
    assert "logs out nobody" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert _revision(planned) == before


def test_a_stage_that_still_bakes_holds_with_code_11(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    shown = planned("advance", "--dry-run")
    done = planned("advance", *GO)
    assert (shown.code, done.code) == (11, 11)
    assert "NOT ALLOWED NOW" in shown.out
    assert done.document["error"]["code"] == "held"


def test_force_goes_past_the_bake_with_a_reason_only(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    assert planned("advance", *FORCE, *GO).code == 2
    done = planned("advance", *FORCE, *REHEARSAL, *GO)
    assert (done.code, done.document["stage"]) == (0, "dual-50")


def test_without_a_live_process_nothing_advances_and_nothing_is_written(planned: Any) -> None:
    before = _revision(planned)
    done = planned("advance", "--yes", "--json")
    assert done.code == 14
    assert _revision(planned) == before


def test_a_process_that_does_not_follow_stops_the_advance_after_widening(planned: Any) -> None:
    planned.within(_join)
    done = planned("advance", "--yes", "--wait", "200ms")
    assert done.code == 14
    assert "web-1:7" in done.err
    status = _status(planned)
    assert (status["status"], status["issue"]["token"]["web"]) == ("converging", 0.0)
    assert status["accept"] == {"session": True, "token": True}


def test_a_stage_that_is_written_and_not_followed_leaves_with_14(planned: Any) -> None:
    assert planned("advance", *GO).code == 0

    async def join_and_follow_until_now(context: Context) -> None:
        await _join(context)
        head = await context.rollout.head()
        await context.instances.ack("one", head.number, head.sha256)

    planned.within(join_and_follow_until_now)
    done = planned("advance", *FORCE, *REHEARSAL, "--wait", "200ms", *GO)
    assert (done.code, done.document["changed"], done.document["stage"]) == (14, True, "dual-50")
    assert done.document["convergence"]["laggards"] == ["web-1:7"]


def test_what_is_held_is_said_without_asking(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    done = planned("advance", "--allow-empty")
    assert done.code == 11
    assert "terminal" not in done.err


def test_a_change_for_another_revision_names_who_was_faster(planned: Any) -> None:
    before = _revision(planned)
    assert planned("--actor", "bo", "advance", *GO).code == 0
    done = planned("advance", "--if-revision", str(before), *GO)
    error = done.document["error"]
    assert (done.code, error["code"]) == (13, "revision_conflict")
    assert "advance by bo (" in error["message"]
    assert f"not {before}" in error["message"]


def test_rollback_goes_back_and_nothing_advances_before_resume(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    assert planned("advance", *FORCE, *REHEARSAL, *GO).code == 0
    done = planned("rollback", "--to", "dual-10", "--reason", "401s on iOS", "--yes", "--json")
    assert (done.code, done.document["stage"]) == (0, "dual-10")
    assert done.document["impact"]["logged_out"] == {}
    assert planned("advance", *GO).code == 15
    assert planned("resume", "--yes").code == 0
    assert _status(planned)["status"] == "baking"


def test_rollback_wants_a_reason(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    before = _revision(planned)
    done = planned("rollback", "--yes")
    assert done.code == 2
    assert '--reason "' in done.err
    assert _revision(planned) == before


@pytest.mark.parametrize("to", ["prefer", "nowhere"])
def test_rollback_goes_only_back_and_only_to_what_there_is(planned: Any, to: str) -> None:
    assert planned("advance", *GO).code == 0
    assert planned("rollback", "--to", to, "--reason", "x", "--yes").code == 2


def test_a_rollback_to_sessions_waits_for_the_last_token_to_end(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    done = planned("rollback", "--reason", "rehearsal", "--yes", "--json")
    assert (done.code, done.document["status"]) == (0, "rolling_back")
    assert 600 < _status(planned)["narrow_in_seconds"] <= 630
    assert "narrows" in planned("status").out
    assert planned("resume", "--no-wait", "--yes").code == 11


def test_a_hard_rollback_is_over_at_once(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    done = planned("rollback", "--hard", "--reason", "stolen key", "--yes", "--json")
    assert (done.document["phase"], done.document["status"]) == ("sessions", "rolled_back")
    assert _status(planned)["accept"] == {"session": True, "token": False}


def test_a_rollback_without_need_changes_nothing(planned: Any) -> None:
    before = _revision(planned)
    done = planned("rollback", "--reason", "panic", "--yes")
    assert done.code == 0
    assert done.out.startswith("nothing to do")
    assert _revision(planned) == before


def test_pause_stops_and_resume_goes_on(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    assert planned("pause", "--reason", "lunch", "--yes").code == 0
    assert planned("advance", *GO).code == 15
    assert "paused: lunch" in planned("status").out
    assert planned("resume", "--yes").code == 0
    assert _status(planned)["status"] == "baking"


@pytest.mark.parametrize(
    "arguments",
    [
        ("advance", "--allow-empty", *FORCE, *REHEARSAL),
        ("pause",),
        ("resume",),
        ("rollback", "--reason", "x"),
    ],
)
def test_without_a_terminal_and_without_yes_nothing_changes(
    planned: Any, arguments: tuple[str, ...]
) -> None:
    assert planned("advance", *GO).code == 0
    assert planned("advance", *FORCE, *REHEARSAL, *GO).code == 0
    before = _revision(planned)
    done = planned(*arguments, typed="y\n")
    assert done.code == 2
    assert _revision(planned) == before


@pytest.mark.parametrize("verb", ["pause", "resume", "rollback"])
def test_every_changing_verb_has_a_dry_run(planned: Any, verb: str) -> None:
    assert planned("advance", *GO).code == 0
    before = _revision(planned)
    reason = ("--reason", "x") if verb == "rollback" else ()
    done = planned(verb, "--dry-run", "--json", *reason)
    assert (done.code, done.document["dry_run"], done.document["changed"]) == (0, True, False)
    assert _revision(planned) == before


def test_advance_without_a_plan_says_how_to_get_one(upgraded: Any) -> None:
    done = upgraded("advance", *GO)
    assert done.code == 2
    assert "plan apply" in done.document["error"]["hint"] + done.document["error"]["message"]
