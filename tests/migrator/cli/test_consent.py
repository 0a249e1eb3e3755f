import os
import pty
import select
import sys
from typing import Any

import pytest

GO = ("--yes", "--allow-empty", "--json")


def _at_a_terminal(crossfade: Any, *arguments: str, typed: str) -> tuple[int, str]:
    """Run the command at a real terminal, type once asked, return its code and what it showed."""
    command = ["crossfade_migrator", "--config", str(crossfade.settings), *arguments]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", *command])
    shown = b""
    while chunk := _read(terminal):
        shown += chunk
        # A person answers a prompt that stands still, not one that is being written.
        if typed and shown.endswith(b": ") and not select.select([terminal], [], [], 0.3)[0]:
            os.write(terminal, typed.encode())
            typed = ""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown.decode()


def _read(terminal: int) -> bytes:
    if not select.select([terminal], [], [], 60)[0]:
        return b""
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other side is closed
        return b""


def _revision(crossfade: Any) -> int:
    number: int = crossfade("status", "--json").document["revision"]
    return number


def test_yes_at_the_terminal_lets_it_happen(planned: Any) -> None:
    code, shown = _at_a_terminal(planned, "advance", "--allow-empty", typed="y\n")
    assert code == 0
    assert "enter dual-10" in shown
    assert _revision(planned) == 4


@pytest.mark.parametrize("typed", ["n\n", "\n", "\x03", "\x04"])
def test_anything_else_leaves_everything_as_it_was(planned: Any, typed: str) -> None:
    code, shown = _at_a_terminal(planned, "advance", "--allow-empty", typed=typed)
    assert code == 2
    assert "nothing was changed" in shown
    assert _revision(planned) == 2


@pytest.mark.parametrize(("typed", "code"), [("shop-to-tokens\n", 0), ("yes\n", 2), ("\n", 2)])
def test_a_rollback_wants_the_plans_name_and_shows_whom_it_touches(
    planned: Any, typed: str, code: int
) -> None:
    assert planned("advance", *GO).code == 0
    arguments = ("rollback", "--reason", "x")
    found, shown = _at_a_terminal(planned, *arguments, typed=typed)
    assert found == code
    assert "logs out nobody" in shown.split("Type shop-to-tokens")[0]
    assert (_revision(planned) > 4) is (code == 0)


def test_a_terminal_gets_colour_and_a_pipe_does_not(planned: Any) -> None:
    assert "\x1b[" in _at_a_terminal(planned, "status", typed="")[1]
    assert "\x1b[" not in planned("status").out


def test_init_asks_for_what_is_missing(crossfade: Any) -> None:
    folder = crossfade.folder / "new"
    folder.mkdir()
    typed = "https://a.example\na\nstarlette\n\n\n\n\n\n\n"
    code, shown = _at_a_terminal(crossfade, "init", "--folder", str(folder), typed=typed)
    assert code == 0
    assert "EdDSA" in shown
    assert (folder / "crossfade.toml").exists()


def test_ctrl_c_ends_the_questions_of_init_and_writes_nothing(crossfade: Any) -> None:
    folder = crossfade.folder / "new"
    folder.mkdir()
    code, _ = _at_a_terminal(crossfade, "init", "--folder", str(folder), typed="\x03")
    assert code == 2
    assert list(folder.iterdir()) == []
