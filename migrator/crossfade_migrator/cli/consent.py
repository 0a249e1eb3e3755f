"""Ask before something changes. Without a terminal and without --yes the answer is no."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from crossfade_migrator.cli.call import Call
from crossfade_migrator.cli.failures import Refused
from crossfade_migrator.cli.screen import printable


def ask(call: Call, question: str) -> None:
    """Go on if the operator says yes. Raises Refused without a terminal, Abort on no."""
    if not call.yes:
        _need_terminal()
        with prompting():
            click.confirm(printable(question), abort=True, err=True)


def ask_for_name(call: Call, warning: str, name: str) -> None:
    """Go on if the operator types `name`: for what may put people out. Raises as `ask` does."""
    if call.yes:
        return
    _need_terminal()
    click.echo(printable(warning), err=True)
    question = f"Type {printable(name)} to continue"
    with prompting():
        typed = click.prompt(question, err=True, default="", show_default=False)
    if typed.strip() != name:
        raise click.Abort


@contextmanager
def prompting() -> Iterator[None]:
    """Let Ctrl-C end a prompt; the event loop's own handler would wait for the loop."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _need_terminal() -> None:
    if not sys.stdin.isatty():
        raise Refused(
            "there is no terminal to ask on", "nothing was changed; add --yes if you mean it"
        )
