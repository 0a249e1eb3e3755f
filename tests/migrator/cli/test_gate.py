from typing import Any

from crossfade.stores.gates import Observation
from crossfade.stores.instances import Canary, InstanceInfo
from crossfade_migrator.context import Context

GO = ("--yes", "--allow-empty", "--json")
GATE = '\n[[gate]]\nname = "auth-failure"\nkind = "compare"\nclients = ["web"]\n'


async def _join(context: Context) -> None:
    info = InstanceInfo(id="one", host="web-1", pid=7, boot_id="b", version="0.1.0")
    head = await context.instances.join(info)
    await context.instances.ack("one", head.number, head.sha256)
    await context.instances.heartbeat("one", canary=Canary(ok=True))


async def _observe(context: Context, failing: int) -> None:
    head = await context.rollout.head()
    batch = [
        Observation(
            client="web", subject=bytes([arm == "token", n]) * 8, arm=arm, failed=n < failures
        )
        for arm, failures in (("token", failing), ("session", 0))
        for n in range(100)
    ]
    await context.gates.note(head.document.stage_revision, batch)


def _begun(crossfade: Any) -> Any:
    plan = crossfade.folder / "plan.toml"
    plan.write_text(plan.read_text() + GATE)
    assert crossfade("plan", "apply", str(plan), "--yes").code == 0
    assert crossfade("advance", *GO).code == 0
    return crossfade


def test_nothing_to_watch_is_a_plain_sentence(upgraded: Any) -> None:
    assert upgraded("gate", "eval").out == "no gate watches this stage\n"


def test_silence_is_inconclusive_with_code_11(planned: Any) -> None:
    done = _begun(planned)("gate", "eval")
    assert done.code == 11
    assert "canary: no live instance" in done.out
    assert "inconclusive" in done.out


def test_gates_that_pass_leave_with_0(planned: Any) -> None:
    _begun(planned).within(_join)
    planned.within(lambda context: _observe(context, failing=0))
    done = planned("gate", "eval", "--json")
    verdicts = {gate["gate"]: gate["verdict"] for gate in done.document["gates"]}
    assert (done.code, verdicts) == (0, {"canary": "pass", "auth-failure": "pass"})


def test_a_gate_that_fails_leaves_with_10_and_shows_its_numbers(planned: Any) -> None:
    _begun(planned).within(_join)
    planned.within(lambda context: _observe(context, failing=40))
    done = planned("gate", "eval")
    assert done.code == 10
    assert "40/100 40.00%" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    advance = planned("advance", "--yes", "--json")
    assert advance.code == 10
