"""Options that take a secret: from stdin or a file, so that it stands in no process list."""

import sys
from pathlib import Path

import click

LIMIT = 65_536


def secret(text: str) -> str:
    """Read `-` from stdin and `@FILE` from a file, without line ends; anything else is the secret.

    Raises click.BadParameter that names the file, never its content.
    """
    if text == "-":
        return sys.stdin.read(LIMIT).rstrip("\r\n")
    if not text.startswith("@"):
        return text
    try:
        with Path(text[1:]).open(encoding="utf-8") as file:
            return file.read(LIMIT).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{text[1:]} cannot be read: {type(error).__name__}") from None
