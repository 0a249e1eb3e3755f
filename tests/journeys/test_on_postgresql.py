"""The same way on PostgreSQL, with two processes that share it."""

import asyncio
from pathlib import Path

import pytest
from crossfaded import ACCESS_TTL, LEEWAY, C, R, S, world

pytestmark = pytest.mark.anyio


async def test_two_processes_carry_a_person_through_all_phases_and_back(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with (
        world(tmp_path, url=postgresql_url) as one,
        world(tmp_path, url=postgresql_url) as two,
    ):
        here = await one.user()
        there = two.browser()
        await here.put("tea")
        for phase in ("dual", "prefer", "drain", "tokens"):
            await one.phase(phase)
            await two.sync()
            await here.get("/")
            here.copy_to(there)
            assert await there.cart() == ["tea"]
            assert await here.cart() == ["tea"]
        here.drop(S)
        there.drop(S)
        for process in (one, two):
            await process.later(ACCESS_TTL + LEEWAY + 1)
        found = await asyncio.gather(here.me(), there.me())
        assert found == ["u001", "u001"]
        assert here.jar[R] == there.jar[R]
        await one.phase("sessions")
        await two.sync()
        assert await here.cart() == ["tea"]
        assert {C, R}.isdisjoint(here.jar)


async def test_a_log_out_in_one_process_holds_in_the_other(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with (
        world(tmp_path, url=postgresql_url) as one,
        world(tmp_path, url=postgresql_url) as two,
    ):
        await one.phase("prefer")
        await two.sync()
        here, copy = await one.user(), two.browser()
        here.copy_to(copy)
        assert await copy.me() == "u001"
        await here.post("/logout")
        await two.sync()
        assert await copy.me() is None
        audited = await one.audited()
        assert audited.count("login.ended") == 1


async def test_many_navigations_over_two_processes_end_in_one_login(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with (
        world(tmp_path, url=postgresql_url) as one,
        world(tmp_path, url=postgresql_url) as two,
    ):
        user = await one.user()
        await one.phase("dual")
        await two.sync()
        tabs = [process.browser() for process in (one, two) for _ in range(10)]
        for tab in tabs:
            user.copy_to(tab)
        await asyncio.gather(*(tab.get("/") for tab in tabs))
        assert len({tab.jar[R] for tab in tabs}) == 1
