"""Which reader the settings mean; each is imported only where it is used, with its libraries."""

from collections.abc import Mapping

from crossfade.errors import ConfigurationError
from crossfade.legacy.base import LegacySessions
from crossfade.settings import Settings, StarletteSettings


def build(settings: Settings, environment: Mapping[str, str]) -> LegacySessions:
    """Return the reader of `legacy.framework`; its owner closes it.

    Raises:
        ConfigurationError: a setting or secret is wrong or missing, or the extra that holds the
            reader's libraries is not installed.
    """
    try:
        return _BUILDERS[settings.legacy.framework](settings, environment)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the reader {settings.legacy.framework!r} needs {error.name}:"
            " pip install 'crossfade[server]'"
        ) from error


def _sql(settings: Settings, _environment: Mapping[str, str]) -> LegacySessions:
    from crossfade.legacy.sql import SqlTableSessions
    from crossfade.stores.engine import Database

    if (own := settings.legacy.sql) is None:
        raise ConfigurationError("`legacy.framework` is 'sql': add [legacy.sql]")
    url = settings.resolve_url(own.url)
    return SqlTableSessions(settings.legacy, Database(url, timeout=own.timeout, backend="sessions"))


def _starlette(settings: Settings, environment: Mapping[str, str]) -> LegacySessions:
    from crossfade.legacy.starlette import StarletteSessions

    variable = (settings.legacy.starlette or StarletteSettings()).secret_variable
    if not (secret := environment.get(variable)):
        raise ConfigurationError(
            f"the environment variable {variable} is empty: it must hold the `secret_key` of the"
            " application's SessionMiddleware"
        )
    return StarletteSessions(settings.legacy, secret)


_BUILDERS = {"sql": _sql, "starlette": _starlette}
