import asyncio
import json
from collections.abc import Callable
from typing import Any

from crossfade.stores.instances import Canary, InstanceInfo
from crossfade_migrator.context import Context

SHORT = """\
schema = 1
name = "short"
salt = "s"
[defaults]
bake = "1ms"
min_subjects = 0
[[stage]]
name = "dual-10"
phase = "dual"
issue = { web = 10 }
[[stage]]
name = "dual-50"
phase = "dual"
issue = { web = 50 }
"""


def _with_plan(crossfade: Any) -> Any:
    plan = crossfade.folder / "plan.toml"
    plan.write_text(SHORT)
    assert crossfade("plan", "apply", str(plan), "--yes").code == 0
    return crossfade


def _run(crossfade: Any, *options: str, canary: Callable[[str | None], Canary]) -> Any:
    """Run the controller beside one process that follows every revision."""

    async def follow(context: Context) -> Any:
        info = InstanceInfo(id="one", host="web-1", pid=7, boot_id="b", version="0.1.0")
        await context.instances.join(info)
        arguments = ("run", "--every", "50ms", "--yes", "--json", *options)
        run = asyncio.create_task(asyncio.to_thread(crossfade, *arguments))
        while not run.done():
            head = await context.rollout.head()
            await context.instances.ack("one", head.number, head.sha256)
            await context.instances.heartbeat("one", canary=canary(head.document.stage))
            await asyncio.sleep(0.02)
        return await run

    return crossfade.within(follow)


def test_a_run_takes_the_rollout_to_the_stage_that_was_named(upgraded: Any) -> None:
    done = _run(_with_plan(upgraded), "--until", "dual-50", canary=lambda _: Canary(ok=True))
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert (lines[-1]["end"], lines[-1]["stage"]) == ("reached", "dual-50")
    assert lines[-1]["advanced"] == ["dual-10", "dual-50"]
    assert all(set(line) == {"at", "text"} for line in lines[:-1])


def test_a_canary_that_fails_ends_the_run_by_a_rollback_with_code_12(upgraded: Any) -> None:
    def canary(stage: str | None) -> Canary:
        return Canary(ok=stage != "dual-50", why="unknown_kid")

    done = _run(_with_plan(upgraded), canary=canary)
    result = json.loads(done.out.splitlines()[-1])
    assert (done.code, result["end"], result["stage"]) == (12, "rolled_back", "dual-10")
    newest = upgraded("history", "-n", "1", "--json").document["revisions"][0]
    assert (newest["verb"], newest["actor_kind"]) == ("rollback", "controller")
    assert newest["evidence"]["gates"][0]["gate"] == "canary"


def test_a_run_that_is_paused_leaves_with_15(upgraded: Any) -> None:
    assert _with_plan(upgraded)("pause", "--reason", "lunch", "--yes").code == 0
    assert upgraded("run", "--yes").code == 15


def test_an_unknown_goal_is_code_2(upgraded: Any) -> None:
    assert _with_plan(upgraded)("run", "--until", "nowhere", "--yes").code == 2


def test_a_run_needs_consent(upgraded: Any) -> None:
    assert _with_plan(upgraded)("run").code == 2
