import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from crossfade.keys.ring import KeyState
from crossfade.stores.instances import InstanceInfo
from crossfade.stores.schema import keys
from crossfade_migrator.context import Context


def _states(crossfade: Any) -> dict[str, str]:
    rows = crossfade("keys", "list", "--json").document["keys"]
    return {row["kid"]: row["state"] for row in rows}


async def _join(context: Context) -> None:
    info = InstanceInfo(id="one", host="web-1", pid=7, boot_id="b", version="0.1.0")
    await context.instances.join(info)


async def _outlive(context: Context) -> None:
    async with context.database.write() as connection:
        long_ago = context.database.now() - 3600.0
        retiring = keys.c.state == KeyState.RETIRING
        await connection.execute(update(keys).where(retiring).values(retiring_at=long_ago))


def test_a_rotation_lets_a_new_key_sign_and_the_former_verify(upgraded: Any) -> None:
    (former,) = _states(upgraded)
    done = upgraded("keys", "rotate", "--yes", "--json")
    assert done.code == 0
    assert done.document["former"] == former
    assert _states(upgraded) == {former: "retiring", done.document["kid"]: "active"}


def test_a_key_signs_only_once_every_instance_lists_it(upgraded: Any) -> None:
    upgraded.within(_join)
    (former,) = _states(upgraded)
    done = upgraded("keys", "rotate", "--yes", "--wait", "100ms")
    assert done.code == 14
    assert "web-1:7" in done.err
    waiting = next(kid for kid, state in _states(upgraded).items() if state == "next")
    upgraded.within(lambda context: context.instances.heartbeat("one", kids=[former, waiting]))
    done = upgraded("keys", "rotate", "--yes", "--json")
    assert done.document["kid"] == waiting
    assert (done.document["made"], done.document["instances"]) == (False, 1)


def test_a_rotation_goes_on_as_soon_as_the_instances_follow(upgraded: Any) -> None:
    upgraded.within(_join)

    async def follow(context: Context) -> Any:
        rotation = asyncio.create_task(
            asyncio.to_thread(upgraded, "keys", "rotate", "--yes", "--json")
        )
        while not rotation.done():
            kids = [row.kid for row in await context.keys.list()]
            await context.instances.heartbeat("one", kids=kids)
            await asyncio.sleep(0.05)
        return await rotation

    done = upgraded.within(follow)
    assert (done.code, done.document["instances"]) == (0, 1)


def test_a_key_is_retired_once_its_last_token_has_ended(upgraded: Any) -> None:
    (first,) = _states(upgraded)
    assert upgraded("keys", "rotate", "--yes", "--json").document["retired"] == []
    assert upgraded("keys", "rotate", "--yes", "--json").document["retired"] == []
    upgraded.within(_outlive)
    retired = upgraded("keys", "rotate", "--yes", "--json").document["retired"]
    assert first in retired
    assert _states(upgraded)[first] == "retired"


def test_a_rotation_needs_consent(upgraded: Any) -> None:
    done = upgraded("keys", "rotate")
    assert done.code == 2
    assert "--yes" in done.err
    assert list(_states(upgraded).values()) == ["active"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_dry_run_makes_no_key(upgraded: Any, options: tuple[str, ...]) -> None:
    assert upgraded("keys", "rotate", "--dry-run", *options).code == 0
    assert len(_states(upgraded)) == 1


def test_another_algorithm_makes_a_key_of_its_own(upgraded: Any) -> None:
    kid = upgraded("keys", "rotate", "--yes", "--algorithm", "EdDSA", "--json").document["kid"]
    rows = upgraded("keys", "list", "--json").document["keys"]
    assert next(row["algorithm"] for row in rows if row["kid"] == kid) == "EdDSA"


def test_the_list_says_that_a_wrapping_secret_is_gone_and_no_secret(upgraded: Any) -> None:
    secrets = upgraded.folder / "crossfade.secrets"
    secrets.write_text(secrets.read_text().replace("w" * 40, "v" * 40))
    done = upgraded("keys", "list")
    assert "no, secret is gone" in done.out
    assert "PRIVATE" not in done.out + upgraded("keys", "list", "--json").out
