"""What holds for the command as a whole: several operators, secrets, PostgreSQL, Ctrl-C."""

import asyncio
import signal
import subprocess
import sys
from typing import Any

from crossfade_migrator.cli import VERBS
from crossfade_migrator.context import Context

GO = ("--yes", "--allow-empty", "--json")


def test_two_operators_at_once_make_one_change(planned: Any) -> None:
    command = [sys.executable, "-m", "crossfade_migrator", "--config", str(planned.settings)]
    both = [
        subprocess.Popen(
            [*command, "advance", "--if-revision", "2", *GO],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for operator in both:
        operator.communicate(timeout=60)
    assert sorted(operator.returncode for operator in both) == [0, 13]
    verbs = [r["verb"] for r in planned("history", "--json").document["revisions"]]
    assert verbs == ["advance", "advance", "plan", "begin"]


def test_no_verb_prints_a_secret(planned: Any) -> None:
    groups = ("db prune", "keys list", "keys rotate --yes", "gate eval", "plan show")
    plain = [v for vs in VERBS.values() for v in vs if v not in {"demo", "init", "run"}]
    shown = ""
    for verb in (*plain, *groups, "logins list ana"):
        for option in ((), ("--json",), ("--traceback",)):
            done = planned(*verb.split(), *option)
            shown += done.out + done.err
    assert "r" * 40 not in shown
    assert "w" * 40 not in shown
    assert "PRIVATE KEY" not in shown


def test_a_password_in_the_database_url_is_not_shown(crossfade: Any) -> None:
    url = "postgresql://ana:hunter2@127.0.0.1:1/x"
    text = crossfade.settings.read_text().replace("sqlite:///crossfade.db", url)
    crossfade.settings.write_text(text)
    for verb in (("status",), ("doctor",), ("status", "--traceback")):
        done = crossfade(*verb)
        assert done.code in {1, 16}
        assert "hunter2" not in done.out + done.err


def test_a_rollout_is_driven_on_postgresql_too(crossfade: Any, postgresql_url: str) -> None:
    text = crossfade.settings.read_text().replace("sqlite:///crossfade.db", postgresql_url)
    crossfade.settings.write_text(text)
    assert crossfade("db", "upgrade").code == 0
    path = crossfade.folder / "plan.toml"
    path.write_text(
        'schema = 1\nname = "p"\nsalt = "s"\n'
        '[[stage]]\nname = "dual-10"\nphase = "dual"\nissue = { web = 10 }\n'
    )
    assert crossfade("plan", "apply", str(path), "--yes").code == 0
    assert crossfade("advance", *GO).document["stage"] == "dual-10"
    assert crossfade("status", "--json").document["phase"] == "dual"
    assert crossfade("rollback", "--reason", "x", "--hard", "--yes").code == 0
    assert crossfade("db", "prune").code == 0
    assert crossfade("history", "--verify").code == 0


def test_ctrl_c_stops_the_controller_and_changes_nothing(planned: Any) -> None:
    command = [sys.executable, "-m", "crossfade_migrator", "--config", str(planned.settings)]
    run = subprocess.Popen(
        [*command, "run", "--yes", "--every", "30s", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert "live instance" in run.stdout.readline()
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate(timeout=30)
    assert run.returncode == 130
    assert '"code":"interrupted"' in out
    assert "Traceback" not in errors
    assert planned("status", "--json").document["revision"] == 2


def test_the_actor_stands_beside_the_systems_user(planned: Any) -> None:
    async def somebody(context: Context) -> str:
        await asyncio.sleep(0)
        return f"{context.operating_system_user}@{context.host}"

    assert planned("--actor", "ana", "pause", "--yes").code == 0
    newest = planned("history", "-n", "1", "--json").document["revisions"][0]
    assert newest["actor"] == f"ana ({planned.within(somebody)})"
