from typing import Any

import pytest


def _write(crossfade: Any, text: str) -> str:
    path = crossfade.folder / "plan.toml"
    path.write_text(text)
    return str(path)


GOOD = """\
schema = 1
name = "a-plan"
salt = "s"
[[stage]]
name = "dual-10"
phase = "dual"
issue = { web = 10 }
"""
FALLING = GOOD + '[[stage]]\nname = "dual-5"\nphase = "dual"\nissue = { web = 5 }\n'


def test_a_good_plan_can_be_applied_and_shown(upgraded: Any) -> None:
    path = _write(upgraded, GOOD)
    assert upgraded("plan", "lint", path).code == 0
    done = upgraded("plan", "apply", path, "--yes", "--json")
    assert (done.code, done.document["changed"]) == (0, True)
    document = upgraded("plan", "show", "--json").document
    assert document["plan"]["name"] == "a-plan"
    (stage,) = document["stages"]
    assert (stage["name"], stage["issue"]["web"]) == ("dual-10", 10_000)
    assert "dual-10  dual   10%  0%      0%       1d" in upgraded("plan", "show").out


def test_lint_names_the_fault_and_leaves_with_1(upgraded: Any) -> None:
    done = upgraded("plan", "lint", _write(upgraded, FALLING), "--json")
    assert (done.code, done.document["state"]) == (1, "fault")
    (error,) = [f for f in done.document["findings"] if f["level"] == "error"]
    assert error["where"] == "stage dual-5"
    assert "1 to mend" in upgraded("plan", "lint", _write(upgraded, FALLING)).out


def test_a_plan_with_a_fault_is_not_stored(upgraded: Any) -> None:
    done = upgraded("plan", "apply", _write(upgraded, FALLING), "--yes")
    assert done.code == 1
    assert len(upgraded("history", "--json").document["revisions"]) == 1


@pytest.mark.parametrize(
    "text", ["", "not toml", GOOD + "colour = 1\n", GOOD.replace('"dual"', '"duel"')]
)
def test_a_file_that_is_no_plan_is_one_line_and_code_2(upgraded: Any, text: str) -> None:
    done = upgraded("plan", "lint", _write(upgraded, text))
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_a_missing_file_is_code_2(upgraded: Any) -> None:
    assert upgraded("plan", "lint", "nothing.toml").code == 2


def test_a_dry_run_stores_nothing(upgraded: Any) -> None:
    assert upgraded("plan", "apply", _write(upgraded, GOOD), "--dry-run").code == 0
    assert upgraded("plan", "show", "--json").document == {
        "plan": None,
        "stage": None,
        "stages": [],
    }
    assert upgraded("plan", "show").out.startswith("no plan is applied")


def test_traffic_tells_how_long_evidence_takes(upgraded: Any) -> None:
    gate = '[[gate]]\nname = "g"\nkind = "compare"\nclients = ["web"]\n'
    path = _write(upgraded, GOOD + gate)
    done = upgraded("plan", "lint", path, "--traffic", "web=5000", "--json")
    assert any("subjects in about" in f["text"] for f in done.document["findings"])
    assert upgraded("plan", "lint", path, "--traffic", "web").code == 2


def test_the_shipped_plan_lints_clean_as_init_writes_it(upgraded: Any) -> None:
    folder = upgraded.folder / "new"
    folder.mkdir()
    flags = ("--issuer", "https://a.example", "--audience", "a", "--framework", "starlette")
    assert upgraded("init", "--folder", str(folder), *flags).code == 0
    settings = ("--config", str(folder / "crossfade.toml"))
    done = upgraded("plan", "lint", str(folder / "plan.toml"), "--json", *settings)
    assert (done.code, done.document["state"]) == (0, "ok")
