from typing import Any

import click
import pytest

from crossfade import errors as library
from crossfade_migrator.cli.failures import describe
from crossfade_migrator.errors import Held


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (Held("not yet"), "held", 11),
        (library.RevisionConflict(1, 2), "revision_conflict", 13),
        (library.StoreUnavailable("sql"), "store_unreachable", 16),
        (library.OutcomeUnknown("sql"), "outcome_unknown", 17),
        (library.ConfigurationError("x"), "configuration", 2),
        (library.SchemaOutdated("x"), "configuration", 2),
        (library.KeysUnavailable("x"), "error", 1),
        (click.UsageError("x"), "usage", 2),
        (click.Abort(), "refused", 2),
        (ModuleNotFoundError("x", name="psycopg"), "missing_extra", 2),
        (ZeroDivisionError("x"), "unexpected", 70),
    ],
)
def test_every_failure_has_its_code(error: Exception, code: str, exit_code: int) -> None:
    failure = describe(error)
    assert (failure.code, failure.exit_code) == (code, exit_code)


def test_ctrl_c_is_told_from_a_refused_prompt() -> None:
    abort = click.Abort()
    abort.__cause__ = KeyboardInterrupt()
    assert describe(abort).exit_code == 130


def test_an_unknown_verb_is_one_line_and_code_2(crossfade: Any) -> None:
    done = crossfade("advnace")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: No such command 'advnace'; see `crossfade --help`\n"


def test_an_error_is_one_object_with_json(crossfade: Any) -> None:
    done = crossfade("instances", "--json")
    assert done.code == 16
    error = done.document["error"]
    assert set(error) == {"code", "message", "hint", "exit_code"}
    assert (error["code"], error["exit_code"]) == ("store_unreachable", 16)
    assert error["hint"] == "run `crossfade db upgrade`"
    assert done.err == ""


def test_a_database_that_is_not_there_is_not_created_by_looking(crossfade: Any) -> None:
    assert crossfade("instances").code == 16
    assert not crossfade.database.exists()


def test_a_database_without_tables_says_the_command(crossfade: Any) -> None:
    crossfade.database.touch()
    done = crossfade("instances")
    assert done.code == 2
    assert done.err.count("crossfade db upgrade") == 1


def test_a_wrong_setting_is_one_line_naming_the_key(crossfade: Any) -> None:
    text = crossfade.settings.read_text().replace("[rollout]", "[rollout]\npol = 1")
    crossfade.settings.write_text(text)
    done = crossfade("instances")
    assert done.code == 2
    assert "`rollout.pol`" in done.err or "rollout.pol" in done.err
    assert done.err.count("\n") == 1


def test_a_trace_is_shown_on_request_only(crossfade: Any) -> None:
    assert "Traceback" not in crossfade("instances").err
    assert "Traceback" in crossfade("instances", "--traceback").err


def test_options_count_before_and_behind_the_verb(crossfade: Any) -> None:
    assert crossfade("--json", "instances").document == crossfade("instances", "--json").document


def test_json_behind_a_double_dash_is_not_an_option(crossfade: Any) -> None:
    assert crossfade("plan", "lint", "--", "--json").out == ""


def test_control_characters_of_an_argument_do_not_reach_the_terminal(crossfade: Any) -> None:
    done = crossfade("plan", "lint", "no\x1b[31mfile\x07")
    assert done.code == 2
    assert "\x1b" not in done.err
    assert "\x07" not in done.err
