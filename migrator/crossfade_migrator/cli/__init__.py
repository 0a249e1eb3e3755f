"""The `crossfade` command. Verbs are listed here and imported only when they run."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from crossfade_migrator import __version__
from crossfade_migrator.cli.call import shared_options

VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Begin": {
        "init": ("init", "Write settings, secrets and a plan for this application."),
        "db": ("db", "Upgrade the database's schema, delete what has expired."),
        "doctor": ("doctor", "Check settings, database, keys, instances and cookies."),
        "demo": ("demo", "Take a small shop to tokens and back, with simulated users."),
    },
    "Move": {
        "plan": ("plan", "Check, show and apply a rollout plan."),
        "advance": ("rollout", "Go on to the plan's next stage."),
        "pause": ("rollout", "Stop this rollout's clock."),
        "resume": ("rollout", "Go on after a pause or a rollback."),
        "rollback": ("rollout", "Go back to an earlier stage or phase, at once."),
        "run": ("run", "Steer: advance while gates pass, roll back if one fails."),
    },
    "Watch": {
        "status": ("status", "Show where the rollout stands, why it waits, what unblocks it."),
        "gate": ("gate", "Evaluate the gates of the present stage."),
        "instances": ("instances", "List the processes of the application."),
        "history": ("history", "List who changed the rollout, when and why."),
        "audit": ("audit", "List what happened to logins, keys and the rollout."),
    },
    "Care": {
        "keys": ("keys", "List and rotate signing keys."),
        "logins": ("logins", "List and end the logins of a user."),
    },
}
"""Every verb: section of the help -> verb -> (module in this package, its one-line help)."""

_PLACES = {verb: place for section in VERBS.values() for verb, place in section.items()}


class Crossfade(click.Group):
    """The root command: finds verbs lazily and turns every failure into one line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help."""
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one verb; None if there is no such verb."""
        if cmd_name not in _PLACES:
            return None
        module = import_module(f"crossfade_migrator.cli.{_PLACES[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by section, without importing one."""
        for section, verbs in VERBS.items():
            with formatter.section(section):
                formatter.write_dl([(verb, text) for verb, (_, text) in verbs.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and leave with its exit code; people's text goes to stderr."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                arguments,
                prog_name or "crossfade",
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except Exception as error:  # the last door: nothing leaves as a bare trace
            if not standalone_mode:
                raise
            from crossfade_migrator.cli.failures import report

            code = report(error, arguments)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


@click.group("crossfade", cls=Crossfade, context_settings={"help_option_names": ["-h", "--help"]})
@shared_options
@click.version_option(__version__, "-V", "--version", message="crossfade %(version)s")
def cli() -> None:
    """Move a live application from server-side sessions to JWTs, and back.

    Every verb takes --json, and every verb that changes something --dry-run. See `crossfade VERB
    --help`.
    """


def main() -> None:
    """Run the command line of this process."""
    cli()


__all__ = ["VERBS", "cli", "main"]
