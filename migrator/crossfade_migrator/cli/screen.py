"""What people see: lines and tables of at most the terminal's width, coloured on one only."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import IO, Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Replace control characters: no user agent or reason may steer the operator's terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def day_and_time(at: float | None) -> str:
    """Write POSIX seconds as `11-21 20:15:01Z`; a dash for never."""
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC):%m-%d %H:%M:%SZ}"


def full_time(at: float | None) -> str:
    """Write POSIX seconds as RFC 3339 with seconds; a dash for never."""
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def percent(share: int) -> str:
    """Write a share of 100,000 buckets as percent with up to three decimals."""
    return f"{share / 1000:.3f}".rstrip("0").rstrip(".") + "%"


Cell = str | tuple[str, str]
"""What stands in a table: text, or text and style."""


class Screen:
    """A stream that people read. Rich is asked for the layout; colour appears on a terminal only.

    All text is taken literally: no markup, no emoji names, no control characters.
    """

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console

        self.console = Console(file=stream, highlight=False, markup=False, emoji=False)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line, wrapped between words."""
        self._print(printable(text), style=style or None)

    def raw(self, text: str) -> None:
        """Print a text as it stands, unwrapped: a file's content."""
        self.console.print(text, soft_wrap=True, end="")

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Print names and values in two columns."""
        self.table((), facts, first="dim")

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        first: str = "",
        wraps: Sequence[int] = (-1,),
    ) -> None:
        """Print rows under a header; the columns `wraps` give way where space is short."""
        from rich.table import Table
        from rich.text import Text

        rows = list(rows)
        width = max([len(header), *(len(row) for row in rows)])
        table = Table(box=None, pad_edge=False, show_header=bool(header), header_style="bold")
        for number in range(width):
            folds = number in {place % width for place in wraps}
            table.add_column(
                header[number] if header else "",
                style=first if number == 0 else "",
                no_wrap=not folds,
                overflow="fold" if folds else "ellipsis",
            )
        for row in rows:
            cells = (cell if isinstance(cell, tuple) else (str(cell), "") for cell in row)
            table.add_row(*(Text(printable(text), style=style) for text, style in cells))
        self._print(table)

    def _print(self, what: Any, **options: Any) -> None:
        with self.console.capture() as captured:
            self.console.print(what, **options)
        # Rich leaves blanks where it wraps and fills up: noise in a pipe.
        self.console.file.write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))
