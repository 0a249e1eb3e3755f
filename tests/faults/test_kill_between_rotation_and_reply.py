"""A process dies after the rotation was committed and before the client has its answer."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.stores.engine import Database
from crossfade.stores.logins import LoginStore, NewLogin
from crossfade.tokens.refresh import RefreshOutcome, Rotation, decode

ROOTS = RootSecrets([b"o" * 32])
SERVER = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_kill_between_rotation_and_reply import rotate

answer = asyncio.run(rotate(sys.argv[1], sys.argv[2]))
# Committed. Say so, and never get to send the answer.
print(answer.outcome, flush=True)
os.read(0, 1)
print(answer.refresh_token, flush=True)
"""


def store_on(database: Database) -> LoginStore:
    return LoginStore(database, ROOTS, window=60, access_ttl=600, leeway=30, refresh_idle=3_600)


async def open_login(url: str) -> str:
    database = Database(url, timeout=30)
    now = await database.time()
    opened = await store_on(database).open(
        NewLogin(
            identity=Identity(subject="ada"),
            client="mobile",
            client_id="mobile",
            auth_time=now,
            idle=3_600,
            absolute_until=now + 86_400,
            grant="exchange",
        )
    )
    await database.close()
    return opened.refresh_token


async def rotate(url: str, text: str) -> Rotation:
    database = Database(url, timeout=30)
    token = decode(text, ROOTS)
    assert token is not None
    answer = await store_on(database).rotate(token)
    await database.close()
    return answer


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_the_client_repeats_and_gets_the_successor_that_the_dead_process_made(
    database_url: str, signal_number: int
) -> None:
    text = asyncio.run(open_login(database_url))
    command = [sys.executable, "-c", SERVER, database_url, text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"rotated\n"
        os.kill(server.pid, signal_number)
        assert server.stdout.read() == b""
    assert server.returncode == -signal_number
    again = asyncio.run(rotate(database_url, text))
    assert again.outcome is RefreshOutcome.REPLAYED
    assert again.login is not None
    assert again.login.gen == 1
    assert again.refresh_token is not None
    assert asyncio.run(rotate(database_url, again.refresh_token)).outcome is RefreshOutcome.CURRENT


def test_a_process_killed_inside_the_rotation_leaves_the_presented_token_usable(
    database_url: str,
) -> None:
    text = asyncio.run(open_login(database_url))
    server = SERVER.replace("rotate(sys.argv", "stall(sys.argv").replace(
        "import rotate", "import stall"
    )
    command = [sys.executable, "-c", server, database_url, text]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"before the commit\n"
        process.kill()
    assert asyncio.run(rotate(database_url, text)).outcome is RefreshOutcome.ROTATED


async def stall(url: str, text: str) -> None:
    """Do what `rotate` does, and hang with the transaction open."""
    from crossfade.stores.rotation import rotate as rotate_on

    database = Database(url, timeout=30)
    token = decode(text, ROOTS)
    assert token is not None
    async with database.write() as connection:
        await rotate_on(connection, store_on(database)._terms, token, None)
        sys.stdout.write("before the commit\n")
        sys.stdout.flush()
        await asyncio.sleep(30)
