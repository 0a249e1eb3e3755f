"""One call of the command: the options that all verbs share, its streams, its one answer."""

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.context import Context

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class Call:
    """What was asked for beside the verb's own options.

    Attributes:
        config: path of the settings, None for `$CROSSFADE_CONFIG` or `crossfade.toml`.
        json: answer with one JSON object on stdout.
        yes: answer every question with yes.
        actor: who to record beside the operating system's user and host.
        traceback: show the whole trace of a failure.
    """

    def __init__(self) -> None:
        self.config: str | None = None
        self.json = False
        self.yes = False
        self.actor: str | None = None
        self.traceback = False

    @asynccontextmanager
    async def open(self, *, new: bool = False) -> "AsyncIterator[Context]":
        """Open settings and database for a verb; `new` is for the one that makes the database.

        Raises:
            Unreachable: the file of a SQLite database is not there; it is not created.
        """
        from crossfade.settings import Settings
        from crossfade_migrator.context import Context
        from crossfade_migrator.database import missing_file
        from crossfade_migrator.errors import Unreachable

        settings = Settings.load(self.config)
        if not new and (file := missing_file(settings.resolve_url(settings.database.url))):
            raise Unreachable(f"there is no database {file}", "run `crossfade db upgrade`")
        opened = Context.open(self.config, actor=self.actor or "", check_schema=not new)
        async with opened as context:
            yield context

    def answer(self, document: Mapping[str, Any], show: "Callable[[Screen], None]") -> None:
        """Give the one answer of a call: the object for programs, or `show` it to people."""
        if self.json:
            import json

            click.echo(json.dumps(document, separators=(",", ":")))
            return
        from crossfade_migrator.cli.screen import Screen

        show(Screen(sys.stdout))

    @contextmanager
    def counting(self, what: str) -> "Iterator[Callable[[str, int], None]]":
        """Show how many rows of which table are done, on a terminal's stderr only."""
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn

        console = Console(stderr=True)
        columns = (
            SpinnerColumn(),
            TextColumn(what),
            TextColumn("{task.description} {task.completed:,}"),
        )
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task("", total=None)
            yield lambda table, rows: bar.update(task, description=table, advance=rows)

    def say(self, text: str) -> None:
        """Tell people what goes on, on stderr, so that stdout stays the answer."""
        from crossfade_migrator.cli.screen import printable

        click.echo(printable(text), err=True)


def shared_options(function: _Decorated) -> _Decorated:
    """Add the options that may stand before or after any verb."""
    for option in reversed(_shared()):
        function = option(function)
    return function


class Verb(click.Command):
    """A command whose callback is a coroutine; the one place that enters the event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_parameters())

    def invoke(self, ctx: click.Context) -> Any:
        """Run the callback and return its exit code."""
        result = super().invoke(ctx)
        if not inspect.iscoroutine(result):
            return result
        import asyncio

        try:
            return asyncio.run(result)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # for the hint that names the verb
            raise


class Verbs(click.Group):
    """A verb with verbs of its own."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_parameters())


def _shared_parameters() -> list[click.Parameter]:
    blank: Callable[..., None] = shared_options(lambda: None)
    parameters: list[click.Parameter] = blank.__click_params__  # type: ignore[attr-defined] # click's
    return parameters[::-1]


def _shared() -> list[Callable[[Any], Any]]:
    return [
        _remembered("--config", metavar="FILE", help="Settings; else $CROSSFADE_CONFIG."),
        _remembered("--json", is_flag=True, help="One JSON object on stdout."),
        _remembered("--yes", is_flag=True, help="Do not ask."),
        _remembered("--actor", metavar="NAME", help="Who does this, for the record."),
        _remembered("--traceback", is_flag=True, help="Show the trace of a failure."),
    ]


def _remembered(name: str, **options: Any) -> Callable[[Any], Any]:
    """Return an option that is kept in the Call instead of being handed to the callback."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        call = ctx.ensure_object(Call)
        if value and param.name:
            setattr(call, param.name, value)

    return click.option(name, callback=keep, expose_value=False, **options)
