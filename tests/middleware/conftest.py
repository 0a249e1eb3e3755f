"""The shop behind the middleware: `sql` keeps its sessions in a table, `signed` in cookies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from crossfaded import World, world


@pytest.fixture
async def sql(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as one:
        yield one


@pytest.fixture
async def signed(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, legacy="signed") as one:
        yield one


@pytest.fixture(params=["sql", "signed"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, legacy=request.param) as one:
        yield one
