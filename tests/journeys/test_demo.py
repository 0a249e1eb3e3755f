"""The whole demo from outside: real servers, real clients, up, down and up again."""

import json
import subprocess
import sys
from typing import Any

import pytest

PROMISES = {
    "1-identity",
    "2-nobody-logged-out",
    "3-revocation",
    "4-one-successor",
    "5-reuse",
    "7-fault-is-503",
    "9-cohort",
    "15-log-in",
    "16-no-better-credential",
}
ZERO = (
    "unexpected_logouts",
    "wrong_identity",
    "lost_carts",
    "accepted_after_revoke",
    "server_errors",
)


def demo(*options: str) -> dict[str, Any]:
    """Run the command and return its one object."""
    command = [sys.executable, "-m", "crossfade_migrator", "demo", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.count("\n") == 1, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if all(report["invariants"].values()) else 1)
    return report


def check(report: dict[str, Any]) -> None:
    assert {key: report[key] for key in ZERO} == dict.fromkeys(ZERO, 0), report["breaches"]
    assert report["failure"] is None
    assert report["invariants"] == dict.fromkeys(PROMISES, True)
    assert report["users"] >= 150
    assert report["rollbacks"] == 2
    assert 0 < report["revoke_seconds_max"] <= 2
    assert 0 < report["rollback_seconds_max"] <= 10
    assert min(report[key] for key in ("requests", "upgrades", "refreshes", "restored")) > 0
    assert report["final_phase"] == "dual"


@pytest.mark.long
def test_a_shop_goes_to_tokens_and_back_and_nobody_is_logged_out() -> None:
    check(demo())


@pytest.mark.long
def test_a_shop_with_signed_cookies_goes_to_tokens_and_back_too() -> None:
    check(demo("--legacy", "signed-cookie"))


@pytest.mark.long
@pytest.mark.parametrize("without", ["pinning", "restore", "dead-anchor"])
def test_without_a_part_of_the_bridge_the_demo_fails(without: str) -> None:
    call = f"sys.exit(run_demo(json=True, without={without!r}))"
    script = f"import sys; from crossfade_migrator.demo.main import run_demo; {call}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["unexpected_logouts"] > 0
    assert not report["invariants"]["2-nobody-logged-out"]
