"""The public names, and what importing them costs."""

import subprocess
import sys
from importlib import import_module

import crossfade

BLOCKED = (
    "sqlalchemy",
    "aiosqlite",
    "msgspec",
    "prometheus_client",
    "itsdangerous",
    "psycopg",
    "click",
    "rich",
    "alembic",
    "uvicorn",
    "jinja2",
)


def test_the_public_names_are_sorted_and_each_is_what_its_home_holds() -> None:
    assert crossfade.__all__ == sorted(crossfade._HOMES)
    for name, home in crossfade._HOMES.items():
        assert getattr(crossfade, name) is getattr(import_module(f"crossfade.{home}"), name)
    assert set(dir(crossfade)) == {*crossfade.__all__, "__version__"}


def test_the_names_are_about_twenty_and_documented() -> None:
    assert 15 <= len(crossfade.__all__) <= 25
    assert all(getattr(crossfade, name).__doc__ for name in crossfade.__all__)


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which the extras are not installed."""
    block = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
    return subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, check=False
    )


def test_a_verifying_service_needs_the_base_dependencies_alone() -> None:
    names = "Identity, Principal, Reason, TokenAuth, TokenMiddleware, TokenRejected, Verifier"
    done = run(f"from crossfade import {names}, VerifiedToken, KeysUnavailable; print('fine')")
    assert (done.stdout.strip(), done.stderr) == ("fine", "")


def test_without_the_extra_one_line_names_it() -> None:
    done = run("from crossfade import CrossfadeMiddleware")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "pip install 'crossfade[server]'" in last


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, crossfade; print(sorted(m for m in sys.modules if 'crossfade' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'crossfade.middleware'" not in done.stdout
    assert "'crossfade']" in done.stdout.replace("'__editable__", "'")
