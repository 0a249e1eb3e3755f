"""`crossfade demo`: the whole way on this machine, with simulated users."""

from typing import Literal

import click

from crossfade_migrator.cli.call import Call, Verb


@click.command(cls=Verb)
@click.option(
    "--legacy",
    type=click.Choice(["sql", "signed-cookie"]),
    default="sql",
    help="How the shop keeps its sessions. [sql]",
)
@click.option("--serve", is_flag=True, help="Keep the shop up afterwards.")
@click.pass_obj
def demo(call: Call, legacy: Literal["sql", "signed-cookie"], serve: bool) -> int:
    """Take a small shop from sessions to tokens, back, and up again.

    Real servers, real HTTP, simulated people; takes about two minutes and needs nothing
    else. Leaves with 1 if anybody was logged out or any other promise was broken.
    """
    from crossfade_migrator.demo.main import run_demo

    return run_demo(legacy=legacy, json=call.json, serve=serve)
