import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from docs.walk import ROOT, blocks

from crossfade.metrics import CATALOGUE, Family

FILES = sorted((ROOT / "dashboards").glob("*.json"))
PAGES = sorted([*(ROOT / "runbooks").glob("*.md"), *(ROOT / "docs").glob("*.md")])
FAMILIES = {family.name: family for family in CATALOGUE}
SCRAPED = {"job", "instance"}
UNITS = {"none", "percentunit", "reqps", "ops", "s", "bytes"}

each = pytest.mark.parametrize("dashboard", [json.loads(file.read_text()) for file in FILES])


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["expr"]


def named(query: str) -> Iterator[tuple[Family, str]]:
    """Yield each metric in a query with what stands in its braces; unknown ones fail."""
    for name, selector in re.findall(r"(crossfade_[a-z_]+)(?:\{([^}]*)\})?", query):
        family = FAMILIES.get(name)
        if family is None:
            family = FAMILIES[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert family.kind == "histogram", name
        yield family, selector


def check(query: str) -> None:
    found = list(named(query))
    assert found, query
    assert all(query.count(a) == query.count(b) for a, b in ("()", "[]", "{}")), query
    labels = {label for family, _ in found for label in family.labels} | SCRAPED | {"le"}
    for family, selector in found:
        for label, operator, value in re.findall(r'([a-z]+)(=~?)"([^"]*)"', selector):
            assert label in {*family.labels, *SCRAPED}, query
            if operator == "=":
                assert value in map(str, family.labels[label]), query
    for grouped in re.findall(r"by \(([a-z, ]+)\)", query):
        assert set(grouped.split(", ")) <= labels, query


@each
def test_every_query_names_a_metric_and_labels_that_exist(dashboard: dict[str, Any]) -> None:
    for query in queries(dashboard):
        check(query)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_query_in_a_page_names_a_metric_that_exists(page: Any) -> None:
    for block in blocks(page, "promql"):
        check(str(block.parsed))


@each
def test_every_panel_has_a_title_a_description_and_a_unit(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert all(target["legendFormat"] for target in panel["targets"])


@each
def test_a_reader_chooses_data_source_job_and_client(dashboard: dict[str, Any]) -> None:
    assert [v["name"] for v in dashboard["templating"]["list"]] == ["datasource", "job", "client"]
    used = [panel["datasource"]["uid"] for panel in panels(dashboard)]
    assert set(used) == {"${datasource}"}
    assert all(
        'job=~"$job"' in target["expr"] for p in panels(dashboard) for target in p["targets"]
    )


@each
def test_panels_have_their_own_number_and_place(dashboard: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    for one, other in combinations((panel["gridPos"] for panel in dashboard["panels"]), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])
