"""Options that several verbs have, spelled and explained once."""

from collections.abc import Callable
from typing import Any

import click

Option = Callable[[Any], Any]

dry_run_option: Option = click.option("--dry-run", is_flag=True, help="Say what would be done.")

if_revision_option: Option = click.option(
    "--if-revision",
    type=click.IntRange(0),
    metavar="N",
    help="Only if the rollout is at this revision.",
)

reason_option: Option = click.option(
    "--reason", metavar="TEXT", default="", help="Why, for the record."
)
