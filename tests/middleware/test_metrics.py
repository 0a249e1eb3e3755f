"""The catalogue of metrics: closed labels, children from the start, and the scrape."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from crossfade.errors import Reason
from crossfade.metrics import CATALOGUE, Metrics, MetricsApp, metrics_for


def test_every_series_is_there_at_zero_before_the_first_request() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    text = generate_latest(registry).decode()
    for family in CATALOGUE:
        assert f"# TYPE {family.name.removesuffix('_total')}" in text or family.name in text
    counters = [line for line in text.splitlines() if "_total{" in line or "_total " in line]
    assert counters
    assert all(line.endswith(" 0.0") for line in counters if not line.startswith("#"))


def test_names_are_prefixed_unique_and_told() -> None:
    names = [family.name for family in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(name.startswith("crossfade_") for name in names)
    assert all(family.help for family in CATALOGUE)
    assert all(family.name.endswith("_total") == (family.kind == "counter") for family in CATALOGUE)


def test_no_label_names_a_person_a_key_or_a_path() -> None:
    labels = {label for family in CATALOGUE for label in family.labels}
    assert labels & {"user", "subject", "sid", "kid", "path", "client_id", "address"} == set()
    assert all(values for family in CATALOGUE for values in family.labels.values())


def test_every_reason_is_a_value_of_its_label() -> None:
    failures = next(f for f in CATALOGUE if f.name == "crossfade_failures_total")
    assert set(failures.labels["reason"]) == set(Reason)


def test_a_value_out_of_the_catalogue_is_an_error_for_a_test_to_find() -> None:
    metrics = Metrics(CollectorRegistry())
    with pytest.raises(KeyError):
        metrics.inc("decisions", "web", "token", "perhaps")
    with pytest.raises(KeyError):
        metrics.inc("no_such_metric")


def test_two_middlewares_of_a_process_share_their_metrics() -> None:
    registry = CollectorRegistry()
    assert metrics_for(registry) is metrics_for(registry)


def test_a_scrape_is_answered_as_text_that_no_cache_keeps() -> None:
    registry = CollectorRegistry()
    Metrics(registry).inc("canary", "ok")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def scrape() -> None:
        await MetricsApp(registry)({"type": "http"}, None, send)  # type: ignore[arg-type]  # not read

    asyncio.run(scrape())
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/plain")
    assert headers[b"cache-control"] == b"no-store"
    assert b'crossfade_canary_total{result="ok"} 1.0' in sent[1]["body"]
