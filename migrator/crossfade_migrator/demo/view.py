"""What one sees while the demo runs: lines, and on a terminal a panel that moves."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crossfade_migrator.demo.ledger import BROKEN, CART, IDENTITY, LOGOUT, SERVER, Ledger

_LOG_LINES = 20


class View:
    """Tells what happens, on stderr where stdout belongs to JSON."""

    def __init__(self, ledger: Ledger, *, json: bool) -> None:
        self._ledger = ledger
        self.console = Console(file=sys.stderr if json else sys.stdout, highlight=False)
        self._live = (
            Live(
                get_renderable=self._panel,
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        self.stop()

    def stop(self) -> None:
        """Take the panel away; lines may still be printed."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line with the time."""
        self.console.print(Text(f"{self._ledger.seconds:6.1f} s  {text}"), soft_wrap=True)

    def show_log(self, path: Path) -> None:
        """Print the end of the server's own log."""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        self.console.print(Text("The end of the server's log:", style="bold"))
        for line in lines:
            self.console.print(Text(line), soft_wrap=True)

    def _panel(self) -> Table:
        ledger = self._ledger
        table = Table(box=None, pad_edge=False, header_style="dim")
        columns = {
            "phase": ledger.phase,
            "requests": f"{ledger.counts['requests']:,}",
            "a second": f"{ledger.counts['requests'] / max(1.0, ledger.seconds):.0f}",
            "logged out": str(ledger.broken(LOGOUT)),
            "wrong user": str(ledger.broken(IDENTITY)),
            "lost carts": str(ledger.broken(CART)),
            "errors": str(ledger.broken(SERVER)),
            "refused": str(ledger.counts["refused_while_faulty"]),
        }
        is_good = not any(ledger.broken(kind) for kind in BROKEN)
        for name in columns:
            table.add_column(name)
        table.add_row(*columns.values(), style="green" if is_good else "red")
        return table
