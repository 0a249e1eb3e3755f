"""Options that take a duration, written as settings write it: 30s, 10m, 24h, 7d."""

import click


def duration(text: str) -> float:
    """Read seconds. Raises click.BadParameter that shows the accepted forms."""
    from crossfade.settings import Seconds

    try:
        return float(Seconds.parse(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
