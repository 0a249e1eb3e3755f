"""Let `python -m crossfade_migrator` be the command `crossfade`."""

from crossfade_migrator.cli import main

main()
