import re
from pathlib import Path

import pytest
import yaml
from docs.walk import ROOT

PAGES = sorted((ROOT / "adr").glob("*.md"))
SECTIONS = {"Context and problem statement", "Considered options", "Decision outcome"}
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_the_numbers_leave_no_gap() -> None:
    assert [int(page.name[:4]) for page in PAGES] == list(range(1, len(PAGES) + 1))


@each
def test_a_record_has_the_shape_of_madr(page: Path) -> None:
    _, matter, text = page.read_text(encoding="utf-8").split("---\n", 2)
    known = yaml.safe_load(matter)
    assert known["status"] in {"proposed", "accepted", "rejected", "deprecated", "superseded"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(known["date"]))
    assert text.startswith(f"# {page.name[:4]}: ")
    assert set(re.findall(r"^## (.+)$", text, re.MULTILINE)) >= SECTIONS
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) == {"Consequences", "Confirmation"}


@each
def test_a_record_counts_its_options_and_its_costs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    options = text.partition("## Considered options")[2].partition("## ")[0]
    assert len(re.findall(r"^\d\. ", options, re.MULTILINE)) >= 2
    assert "- Good: " in text
    assert "- Bad: " in text


@each
def test_what_confirms_a_record_exists(page: Path) -> None:
    confirmation = page.read_text(encoding="utf-8").partition("### Confirmation")[2]
    for path in re.findall(r"`((?:tests|crossfade)/[a-z0-9_/.]+)`", confirmation):
        place = ROOT / "middleware" / path if path.startswith("crossfade/") else ROOT / path
        assert place.exists(), path


def test_every_record_that_the_code_cites_exists() -> None:
    rooms = (ROOT / "middleware", ROOT / "migrator", ROOT / "tests")
    sources = [path for room in rooms for path in room.rglob("*.py")]
    cited = {n for path in sources for n in re.findall(r"ADR (\d{4})", path.read_text("utf-8"))}
    assert cited <= {page.name[:4] for page in PAGES}
