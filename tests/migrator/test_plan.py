from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from fleet import PLAN, SETTINGS
from hypothesis import given
from hypothesis import strategies as st

from crossfade.rollout.state import CLIENTS, Phase
from crossfade.settings import Settings
from crossfade_migrator import plan as plans
from crossfade_migrator.errors import Misconfigured, Misused
from crossfade_migrator.lint import lint
from crossfade_migrator.plan import Plan, longest_session, percent_of, share_of

DEFAULT = Path(plans.__file__).with_name("plans") / "default.toml"
CHECKED = Settings.from_mapping(SETTINGS)


def changed(**keys):
    return {**deepcopy(PLAN), **keys}


def with_stage(number, **keys):
    document = deepcopy(PLAN)
    document["stage"][number].update(keys)
    return document


def errors(document):
    found = lint(Plan.from_mapping(document), CHECKED)
    return [f"{f.where}: {f.text}" for f in found if f.level == "error"]


def test_the_shipped_plan_passes_the_lint_and_reaches_every_phase() -> None:
    plan = Plan.load(DEFAULT)
    assert [f for f in lint(plan, CHECKED) if f.level != "info"] == []
    phases = [stage.phase for stage in plan.stages]
    assert list(dict.fromkeys(phases)) == ["dual", "prefer", "drain", "tokens"]


def test_what_a_stage_leaves_out_comes_from_before_it() -> None:
    first, second, *_, drain, tokens = Plan.from_mapping(PLAN).stages
    assert first.issue == {"web": 10_000, "mobile": 5_000, "machine": 0}
    assert (second.issue["machine"], second.bake, second.min_subjects) == (0, 3600, 20)
    assert drain.issue == tokens.issue == dict.fromkeys(CLIENTS, 100_000)
    assert [gate.name for gate in second.gates] == ["auth-failure"]


@given(st.integers(0, 100_000))
def test_percent_with_three_decimals_is_a_share_and_back(share: int) -> None:
    assert share_of(float(percent_of(share).rstrip("%"))) == share


@pytest.mark.parametrize("percent", [-0.001, 100.001, 0.0005, 33.33333])
def test_a_percentage_out_of_range_or_too_fine_is_none(percent: float) -> None:
    assert share_of(percent) is None
    with pytest.raises(Misconfigured, match=r"stage dual-10: issue\.web"):
        Plan.from_mapping(with_stage(0, issue={"web": percent}))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (changed(surprise=1), "unknown key `surprise`"),
        (changed(schema=2), "schema"),
        (with_stage(0, isue={"web": 1}), "unknown key `isue`"),
        (with_stage(0, phase="dula"), "stage"),
        (with_stage(0, bake="1 hour"), "bake"),
        (with_stage(0, bake=60), "bake"),
        (with_stage(0, issue={"toaster": 1}), "issue"),
        (with_stage(0, gates=["other"]), "no gate 'other'"),
        ({"schema": 1, "name": "x"}, "missing key"),
    ],
)
def test_a_plan_of_another_shape_is_refused_by_its_key(
    document: dict[str, Any], words: str
) -> None:
    with pytest.raises(Misconfigured, match=words):
        Plan.from_mapping(document)


@pytest.mark.parametrize("content", ["= 1", "\x00", "name = 1\nname = 2"])
def test_a_file_that_is_no_toml_is_one_line_with_its_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(content)
    with pytest.raises(Misconfigured, match=r"plan\.toml is not valid TOML"):
        Plan.load(file)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read: FileNotFoundError"):
        Plan.load(tmp_path / "plan.toml")


def test_the_plan_of_these_tests_has_no_errors() -> None:
    assert errors(PLAN) == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (changed(name="Two words"), "name"),
        (changed(salt="a:b"), "salt"),
        (changed(salt=""), "salt"),
        (changed(false_rollback_budget=0), "false_rollback_budget"),
        (changed(stage=[]), "no stages"),
        (with_stage(1, name="dual-10"), "two stages"),
        (with_stage(1, name="drain", phase="dual"), "named for another phase"),
        (with_stage(0, phase="sessions"), "go there by rollback"),
        (with_stage(0, phase="shadow"), "not available yet"),
        (with_stage(2, phase="drain"), "prefer: is named for another phase"),
        (with_stage(3, phase="prefer", name="late"), "two"),
        (with_stage(1, issue={"web": 5}), "web falls from 10% to 5%"),
        (with_stage(3, issue={"machine": 99}), "machine must be issued 100"),
        (with_stage(3, bake="59m"), "must bake for at least 1h"),
        (with_stage(0, min_subjects=-1), "min_subjects"),
        (changed(gate=[{"name": "g", "kind": "ceiling"}]), "not available yet"),
        (changed(gate=[{"name": "g", "kind": "guess"}]), "no kind 'guess'"),
        (changed(gate=[{"name": "canary", "kind": "compare"}]), "built in"),
    ],
)
def test_the_lint_refuses_what_is_unsafe(document: dict[str, Any], words: str) -> None:
    if words == "two":
        document["stage"].insert(3, dict(document["stage"][3]))
    assert any(words in error for error in errors(document)), errors(document)


def test_phases_must_be_in_order() -> None:
    document = deepcopy(PLAN)
    document["stage"][1], document["stage"][2] = document["stage"][2], document["stage"][1]
    assert any("phase dual cannot follow prefer" in error for error in errors(document))


def test_tokens_without_a_drain_are_refused() -> None:
    document = deepcopy(PLAN)
    del document["stage"][3]
    assert errors(document) == ["stage tokens: tokens needs a drain stage before it"]


@pytest.mark.parametrize(
    ("traffic", "level", "words"),
    [
        ({"web": 2000}, "info", "20 subjects in about 2.4 h"),
        ({"web": 10}, "warning", "longer than bake and max_hold"),
        ({"web": 0}, "warning", "would hold for ever"),
    ],
)
def test_the_expected_time_to_enough_evidence_is_told(
    traffic: dict[str, float], level: str, words: str
) -> None:
    findings = lint(Plan.from_mapping(PLAN), CHECKED, traffic)
    assert any(f.level == level and words in f.text for f in findings if f.where == "stage dual-10")


def test_advancing_without_evidence_is_warned_of() -> None:
    findings = lint(Plan.from_mapping(with_stage(0, min_subjects=0)), CHECKED)
    assert any("without any evidence" in f.text for f in findings if f.level == "warning")


def test_errors_come_first() -> None:
    levels = [f.level for f in lint(Plan.from_mapping(changed(salt="")), CHECKED)]
    assert levels == sorted(levels, key=["error", "warning", "info"].index)


def test_the_budget_is_shared_by_the_tests_that_can_fail() -> None:
    # dual-10 and dual-50, one gate for web each; above 95 % there is nothing to compare.
    assert Plan.from_mapping(PLAN).threshold() == pytest.approx(2 / 0.05)


def test_stages_are_found_by_name_and_place() -> None:
    plan = Plan.from_mapping(PLAN)
    assert plan.after(None) == plan.stages[0]
    assert plan.after("tokens") is None
    assert plan.before("dual-10") is None
    assert plan.before("prefer") == plan.stage("dual-50")
    with pytest.raises(Misused, match="no stage 'dual-99'"):
        plan.stage("dual-99")


@pytest.mark.parametrize(
    ("legacy", "seconds"),
    [
        ({"framework": "sql", "sql": {"url": "sqlite:///x", "absolute": "12h"}}, 43_200),
        ({"framework": "sql", "sql": {"url": "sqlite:///x", "idle": "1h"}}, 30 * 86_400),
        ({"framework": "starlette", "starlette": {}}, 14 * 86_400),
        ({"framework": "starlette", "starlette": {}, "max_age": "1d"}, 86_400),
    ],
)
def test_a_drain_must_outlast_the_longest_session(legacy: dict[str, Any], seconds: float) -> None:
    assert longest_session(Settings.from_mapping({**SETTINGS, "legacy": legacy})) == seconds


def test_a_phase_before_dual_issues_nothing() -> None:
    plan = Plan.from_mapping(with_stage(0, phase="shadow"))
    assert plan.stages[0].phase is Phase.SHADOW
    assert not any(plan.stages[0].issue.values())
