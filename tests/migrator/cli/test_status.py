import json
import signal
import subprocess
import sys
from typing import Any

GO = ("--yes", "--allow-empty", "--json")


def test_a_fresh_deployment_says_what_comes_first(upgraded: Any) -> None:
    done = upgraded("status")
    assert done.code == 0
    assert done.out.splitlines()[0] == "no plan   revision 1   IDLE"
    assert "no plan is applied" in done.out
    assert "crossfade plan apply plan.toml" in done.out


def test_status_says_why_it_waits_and_what_unblocks_it(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    out = planned("status").out
    assert out.splitlines()[0] == "shop-to-tokens   revision 4   BAKING"
    assert "1/3 dual-10, phase dual" in out
    assert "tokens to web 10%, mobile 10%" in out
    assert "waits for  no live instance" in out
    assert "bakes for 59m" in out
    assert "unblocks   start the application" in out


def test_status_fits_80_columns_whatever_a_reason_says(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    reason = "a very long reason \x1b[31m" * 12
    assert planned("pause", "--reason", reason, "--yes").code == 0
    out = planned("status").out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_the_object_has_the_state_and_the_reasons(planned: Any) -> None:
    document = planned("status", "--json").document
    assert document["plan"] == "shop-to-tokens"
    assert (document["phase"], document["status"], document["next_stage"]) == (
        "sessions",
        "idle",
        "dual-10",
    )
    assert document["why"] == ["no live instance"]
    assert document["instances"] == {"live": 0, "acked": 0, "laggards": []}


def test_watching_gives_one_object_a_line_and_ctrl_c_ends_it_well(planned: Any) -> None:
    command = [sys.executable, "-m", "crossfade_migrator", "--config", str(planned.settings)]
    watch = subprocess.Popen(
        [*command, "status", "--watch", "--every", "50ms", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    lines = [watch.stdout.readline() for _ in range(2)]
    watch.send_signal(signal.SIGINT)
    _, errors = watch.communicate(timeout=20)
    assert [json.loads(line)["revision"] for line in lines] == [2, 2]
    assert (watch.returncode, errors) == (0, "")
