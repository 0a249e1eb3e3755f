from typing import Any

from sqlalchemy import update

from crossfade.stores.instances import Canary, InstanceInfo
from crossfade.stores.schema import instances
from crossfade_migrator.context import Context


async def _join(context: Context, name: str = "web-1", *, follows: bool = True) -> None:
    info = InstanceInfo(id=name, host=name, pid=7, boot_id="b", version="0.1.0", kids=("k",))
    head = await context.instances.join(info)
    if follows:
        await context.instances.ack(name, head.number, head.sha256)


def _listed(crossfade: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = crossfade("instances", "--json").document["instances"]
    return found


def test_who_follows_the_head_is_told_from_who_does_not(upgraded: Any) -> None:
    upgraded.within(_join)
    upgraded.within(lambda context: _join(context, "web-2", follows=False))
    assert [(row["host"], row["acked"]) for row in _listed(upgraded)] == [
        ("web-1", True),
        ("web-2", False),
    ]
    out = upgraded("instances").out
    assert "0 behind" in out
    assert out.endswith("1 of 2 run revision 1\n")


def test_a_canary_that_fails_is_named_with_its_reason(upgraded: Any) -> None:
    upgraded.within(_join)
    canary = Canary(ok=False, why="unknown_kid")
    upgraded.within(lambda context: context.instances.heartbeat("web-1", canary=canary))
    (row,) = _listed(upgraded)
    assert (row["canary_ok"], row["canary_why"]) == (False, "unknown_kid")
    assert "fails: unknown_kid" in upgraded("instances").out


def test_a_silent_process_is_shown_as_such(upgraded: Any) -> None:
    upgraded.within(_join)

    async def fall_silent(context: Context) -> None:
        async with context.database.write() as connection:
            then = context.database.now() - 32.0
            await connection.execute(update(instances).values(seen_at=then))

    upgraded.within(fall_silent)
    assert _listed(upgraded)[0]["vanished"] is True
    assert "silent" in upgraded("instances").out


def test_no_process_is_a_plain_sentence(upgraded: Any) -> None:
    assert upgraded("instances").out.startswith("no process of the application reports")
    assert upgraded("instances", "--json").document == {"revision": 1, "instances": []}
