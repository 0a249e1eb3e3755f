from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.walk import ROOT

PAGES = sorted((ROOT / "runbooks").glob("*.md"))
SECTIONS = [
    "Meaning",
    "Impact",
    "Is it real?",
    "Diagnosis",
    "Mitigation",
    "Verify",
    "Stop conditions",
    "Escalation",
    "Evidence",
    "After",
]
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def front_matter(page: Path) -> dict[str, Any]:
    _, text, _ = page.read_text(encoding="utf-8").split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@each
def test_a_runbook_has_all_sections_in_their_order(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == SECTIONS


@each
def test_the_front_matter_says_what_kind_of_page_it_is(page: Path) -> None:
    matter = front_matter(page)
    assert matter.keys() == {"title", "kind", "severity", "owner", "commands", "exercised_by"}
    assert matter["kind"] in {"procedure", "alert"}
    assert matter["severity"] in {"planned", "page", "ticket"}
    assert matter["commands"] in {"readonly", "mutating"}
    assert f"# {matter['title']}\n" in page.read_text(encoding="utf-8")


@each
def test_a_runbook_is_exercised_by_a_test_that_exists(page: Path) -> None:
    assert (ROOT / front_matter(page)["exercised_by"]).is_file()


@each
def test_every_client_kind_has_its_line_of_impact(page: Path) -> None:
    impact = page.read_text(encoding="utf-8").partition("## Impact")[2].partition("## ")[0]
    for client in ("browser", "mobile", "machine", "WebSocket"):
        assert f"\n| {client} |" in impact


@each
def test_each_mitigation_says_effect_time_and_undo(page: Path) -> None:
    steps = page.read_text(encoding="utf-8").partition("## Mitigation")[2].partition("\n## ")[0]
    numbered = [step for step in steps.split("\n\n") if step[:1].isdigit()]
    assert numbered
    for step in numbered:
        assert all(word in step for word in ("Effect:", "Time:", "Undo:")), step
