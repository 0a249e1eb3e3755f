"""The commands of README, the operator's page and the runbooks are run as they are written."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.walk import ROOT, Walk

RUNBOOKS = sorted((ROOT / "runbooks").glob("*.md"))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Walk]:
    """The shop before the first command."""
    walk = Walk(tmp_path)
    yield walk
    walk.stop()


@pytest.fixture
def rollout(shop: Walk) -> Walk:
    """The shop in the first stage of the plan that `init` wrote."""
    shop.set_up()
    for verb in (("plan", "apply"), ("advance",)):
        result = shop.crossfade(*verb)
        assert result.returncode == 0, result.stderr
    return shop


def test_the_way_through_the_readme_works_as_it_is_written(shop: Walk) -> None:
    assert shop.follow(ROOT / "README.md") >= 12


def test_the_operators_day_works_as_it_is_written(rollout: Walk) -> None:
    assert rollout.follow(ROOT / "migrator" / "README.md") >= 12


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_the_steps_of_a_runbook_work_as_they_are_written(rollout: Walk, page: Path) -> None:
    assert rollout.follow(page) >= 5
