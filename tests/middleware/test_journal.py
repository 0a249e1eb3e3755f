"""The file of log-outs that wait for the database: nothing in it is ever forgotten."""

import os
from pathlib import Path

import pytest

from crossfade.errors import StoreUnavailable
from crossfade.journal import Ending, Journal

pytestmark = pytest.mark.anyio
FIRST, SECOND = Ending(sid="00" * 16), Ending(tenant="t", anchor="11" * 32)


class Ends:
    """What was ended; fails once it has ended as many as it may."""

    def __init__(self, most: int = 100) -> None:
        self.done: list[Ending] = []
        self.most = most

    async def __call__(self, ending: Ending) -> None:
        if len(self.done) >= self.most:
            raise StoreUnavailable("sql")
        self.done.append(ending)


@pytest.fixture
async def journal(tmp_path: Path) -> Journal:
    found = Journal(tmp_path / "crossfade.journal")
    await found.append(FIRST)
    await found.append(SECOND)
    return found


async def test_what_was_written_down_is_carried_out_once(journal: Journal, tmp_path: Path) -> None:
    ends = Ends()
    assert await journal.replay(ends) == 2
    assert await journal.replay(ends) == 0
    assert ends.done == [FIRST, SECOND]
    assert os.listdir(tmp_path) == []


async def test_without_a_journal_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert await Journal(tmp_path / "crossfade.journal").replay(Ends()) == 0


async def test_what_fails_stays_and_is_done_later(journal: Journal) -> None:
    assert await journal.replay(Ends(most=1)) == 1
    ends = Ends()
    await journal.replay(ends)
    assert SECOND in ends.done


async def test_what_is_written_down_meanwhile_is_not_lost(journal: Journal) -> None:
    third = Ending(sid="22" * 16)

    async def end(ending: Ending) -> None:
        if ending == FIRST:
            await journal.append(third)

    ends = Ends()
    await journal.replay(end)
    await journal.replay(ends)
    assert ends.done == [third]


async def test_a_process_that_dies_in_the_middle_loses_nothing(journal: Journal) -> None:
    class Killed(BaseException):
        pass

    async def die(ending: Ending) -> None:
        raise Killed

    with pytest.raises(Killed):
        await journal.replay(die)
    ends = Ends()
    await journal.replay(ends)
    assert ends.done == [FIRST, SECOND]


async def test_what_another_process_left_behind_is_taken_over(
    journal: Journal, tmp_path: Path
) -> None:
    left = (tmp_path / "crossfade.journal").rename(tmp_path / "crossfade.journal.999999")
    ends = Ends()
    assert await journal.replay(ends) == 0
    os.utime(left, (0, 0))
    await journal.replay(ends)
    assert ends.done == [FIRST, SECOND]


async def test_a_damaged_line_costs_only_itself(journal: Journal, tmp_path: Path) -> None:
    with (tmp_path / "crossfade.journal").open("ab") as file:
        file.write(b'{"sid": "33\n\xff\n[]\n{"other": 1}\n')
    await journal.append(FIRST)
    ends = Ends()
    await journal.replay(ends)
    assert ends.done == [FIRST, SECOND, FIRST]


async def test_the_journal_is_for_its_owner_alone(journal: Journal, tmp_path: Path) -> None:
    assert (tmp_path / "crossfade.journal").stat().st_mode & 0o777 == 0o600
