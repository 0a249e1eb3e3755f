"""Turn every failure into one line with what to do next, and the exit code that scripts rely on."""

import json
import traceback as traces

import click

from crossfade import errors as library
from crossfade_migrator.cli.screen import printable
from crossfade_migrator.errors import (
    Conflict,
    Misconfigured,
    Misused,
    OperatorError,
    Unknown,
    Unreachable,
)


class Refused(Misused):
    """A question was answered with no, or there was nobody to ask."""

    code = "refused"


class Interrupted(OperatorError):
    """Ctrl-C. What is written is whole: every change is one transaction."""

    code = "interrupted"
    exit_code = 130  # what shells expect of a program that Ctrl-C ended


class MissingExtra(Misused):
    """An optional dependency is not installed."""

    code = "missing_extra"


class Unexpected(OperatorError):
    """A fault in Crossfade itself."""

    code = "unexpected"
    exit_code = 70


_MEANING: tuple[tuple[type[library.CrossfadeError], type[OperatorError], str], ...] = (
    (library.RevisionConflict, Conflict, "look at `crossfade history`, then decide anew"),
    (library.OutcomeUnknown, Unknown, "look at `crossfade status` before you repeat it"),
    (library.StoreUnavailable, Unreachable, "nothing was written; see `crossfade doctor`"),
    (library.ConfigurationError, Misconfigured, ""),
    (library.KeysUnavailable, OperatorError, "see `crossfade keys list`"),
    (library.KeyConflict, Conflict, "see `crossfade keys list`"),
)
"""What an error of the library means to an operator; the first class that fits counts."""


def report(error: Exception, arguments: list[str]) -> int:
    """Print a failure to the stream that the arguments ask for; return the exit code.

    The arguments are read as they stand, since a usage error means that they could not be parsed.
    """
    failure = describe(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and "--json" not in arguments:
        click.echo(error.format_message(), err=True)
        return failure.exit_code
    given = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--traceback" in given:
        click.echo("".join(traces.format_exception(error)), err=True, nl=False)
    if "--json" in given:
        click.echo(json.dumps(_document(failure), separators=(",", ":")))
    else:
        _show(failure)
    return failure.exit_code


def describe(error: Exception) -> OperatorError:
    """Say what a failure means to an operator."""
    if isinstance(error, OperatorError):
        return error
    for kind, meaning, hint in _MEANING:
        if isinstance(error, kind):
            return meaning(str(error), hint)
    if isinstance(error, click.Abort):
        return _aborted(error)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "crossfade"
        missing = isinstance(error, click.exceptions.NoArgsIsHelpError)
        message = "a verb is missing" if missing else error.format_message()
        return Misused(message, f"see `{path} --help`")
    if isinstance(error, ModuleNotFoundError):
        return MissingExtra(
            f"the package {error.name} is not installed", "pip install 'crossfade[cli]'"
        )
    return Unexpected(
        f"unexpected {type(error).__name__}: {error}", "repeat it with --traceback and report that"
    )


def _document(failure: OperatorError) -> dict[str, object]:
    error = {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "exit_code": failure.exit_code,
    }
    return {"error": error}


def _aborted(error: click.Abort) -> OperatorError:
    # click makes Abort of Ctrl-C and of a refused prompt alike; only the first has a cause.
    if isinstance(error.__cause__, KeyboardInterrupt):
        return Interrupted("interrupted", "`crossfade status` shows where things stand")
    return Refused("refused; nothing was changed")


def _show(failure: OperatorError) -> None:
    hint = failure.hint if failure.hint not in failure.message else ""
    line = failure.message.rstrip(".") + (f"; {hint}" if hint else "")
    click.secho("error: ", fg="red", bold=True, err=True, nl=False)
    click.echo(printable(" ".join(line.split())), err=True)
