import asyncio
from pathlib import Path
from typing import Any

import pytest
from fleet import Trial, trial
from sqlalchemy import insert

from crossfade.rollout.state import Phase
from crossfade.stores.schema import logins
from crossfade_migrator.impact import impact
from crossfade_migrator.rollout import advance
from crossfade_migrator.transitions import Target

SESSIONS = Target.of(None)
DUAL = Target(stage=None, phase=Phase.DUAL, issue=SESSIONS.issue)


async def _login(one: Trial, number: int, client: str, **columns: Any) -> None:
    now = one.clock.time()
    row = {
        "sid": number.to_bytes(16),
        "tenant": "",
        "subject": f"u{number}",
        "actor": "",
        "client": client,
        "client_id": client,
        "epoch": 0,
        "gen": 0,
        "kv": 1,
        "seed": bytes(16),
        "cur": bytes(32),
        "replays": 0,
        "rotated_at": now,
        "created_at": now,
        "auth_time": now,
        "idle_until": now + 9_999,
        "absolute_until": now + 9_999,
        "anchor": number.to_bytes(32),
        "anchor_until": now + 9_999,
        **columns,
    }
    async with one.ctx.database.write() as connection:
        await connection.execute(insert(logins).values(row))


async def _people(one: Trial) -> None:
    past = one.clock.time() - 1
    await _login(one, 1, "web")
    await _login(one, 2, "web", anchor=None)
    await _login(one, 3, "mobile", anchor_until=past)
    await _login(one, 4, "web", ended_at=past)
    await _login(one, 5, "web", idle_until=past)


@pytest.mark.parametrize(
    ("bridge", "target", "logged_out"),
    [
        ("on", SESSIONS, {}),
        ("off", SESSIONS, {"web": 1, "mobile": 1}),
        ("off", DUAL, {}),
    ],
    ids=["bridge on", "bridge off", "tokens stay accepted"],
)
def test_whoever_has_no_session_beside_the_tokens_is_counted(
    tmp_path: Path, bridge: str, target: Target, logged_out: dict[str, int]
) -> None:
    async def scenario() -> None:
        async with trial(tmp_path, settings={"tokens": {"bridge": bridge}}) as one:
            await advance(one.ctx)
            await _people(one)
            state = (await one.ctx.rollout.head()).document
            found = await impact(one.ctx, state, target)
            assert found.live == {"web": 2, "mobile": 1}
            assert found.logged_out == logged_out
            assert found.total_logged_out == sum(logged_out.values())

    asyncio.run(scenario())
