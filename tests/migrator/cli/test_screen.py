import io

import pytest

from crossfade_migrator.cli.screen import (
    Screen,
    day_and_time,
    full_time,
    percent,
    printable,
)
from crossfade_migrator.durations import span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (0.84, "0.8s"), (59.9, "59s"), (432, "7m 12s"), (3600, "1h"), (187200, "2d 4h")],
)
def test_a_span_is_written_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (1, "0.001%"), (500, "0.5%"), (25_000, "25%"), (100_000, "100%")]
)
def test_a_share_is_written_as_percent(share: int, text: str) -> None:
    assert percent(share) == text


def test_times_are_utc_and_never_is_a_dash() -> None:
    assert day_and_time(1_800_000_000) == "01-15 08:00:00Z"
    assert full_time(1_800_000_000) == "2027-01-15T08:00:00Z"
    assert day_and_time(None) == full_time(None) == "-"


def test_control_and_direction_characters_are_made_visible() -> None:
    assert printable("a\x1b[2Jb\u202ec\x9b\x00d\te\n") == "a�[2Jb�c��d\te\n"


def test_a_table_takes_text_literally_and_leaves_no_blanks_behind() -> None:
    stream = io.StringIO()
    Screen(stream).table(("A", "B"), [["[bold]x[/bold]", ":smile:"], ["y", ("z", "red")]])
    assert stream.getvalue() == "A               B\n[bold]x[/bold]  :smile:\ny               z\n"


def test_only_the_chosen_column_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    Screen(stream).table((), [["name", "some words that are long"]])
    assert stream.getvalue() == "name  some words\n      that are long\n"
