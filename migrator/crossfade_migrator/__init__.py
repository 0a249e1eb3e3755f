"""The operator's part: the command `crossfade`, its verbs and its demo."""

__version__ = "0.1.0"
"""Written out: looking it up in the installed metadata costs more than all of `--help`."""
