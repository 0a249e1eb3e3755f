import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.rollout.bucketing import BUCKETS, bucket, in_cohort

VECTORS = json.loads(
    Path(__file__).parents[2].joinpath("golden", "bucket_vectors.json").read_text("utf-8")
)

shares = st.integers(0, BUCKETS)
subjects = st.text(min_size=1)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["subject"][:12])
def test_the_published_vectors_hold(vector: dict[str, Any]) -> None:
    assert bucket(vector["salt"], vector["client"], vector["subject"]) == vector["bucket"]


@given(subjects)
def test_a_bucket_is_within_the_population(subject: str) -> None:
    assert 0 <= bucket("salt", "web", subject) < BUCKETS


def test_a_lone_surrogate_has_a_bucket_too() -> None:
    assert 0 <= bucket("salt", "web", "\ud800") < BUCKETS


@given(subjects, shares, shares)
def test_a_change_of_share_moves_only_the_subjects_between(
    subject: str, one: int, other: int
) -> None:
    place = bucket("salt", "web", subject)
    low, high = sorted((one, other))
    has_moved = in_cohort(place, low) != in_cohort(place, high)
    assert has_moved == (low <= place < high)


@pytest.mark.parametrize(
    ("place", "share", "is_in"),
    [(0, 0, False), (0, 1, True), (5, 5, False), (99_999, BUCKETS, True)],
)
def test_a_share_takes_in_the_buckets_below_it(place: int, share: int, is_in: bool) -> None:
    assert in_cohort(place, share) is is_in


def test_client_kinds_are_sorted_apart() -> None:
    same = sum(bucket("s", "web", str(n)) == bucket("s", "mobile", str(n)) for n in range(1000))
    assert same < 10


def test_a_share_takes_in_that_part_of_people() -> None:
    chosen = sum(in_cohort(bucket("salt", "web", f"user-{n}"), 10_000) for n in range(20_000))
    assert 1850 < chosen < 2150
