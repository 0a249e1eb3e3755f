import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.legacy.times import Form, like, posix

NOW = 1_800_000_000.25
MOMENT = datetime(2027, 1, 15, 8, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (NOW, "unix"),
        (Decimal("1800000000.25"), "unix"),
        ("1800000000.25", "unix"),
        ("2027-01-15T08:00:00.250Z", "iso"),
        ("2027-01-15 08:00:00.250000", "iso"),
        ("2027-01-15T09:00:00.250+01:00", "iso"),
        ("2027-01-15 08:00:00.250000", "timestamp"),
        (MOMENT, "timestamp"),
        (MOMENT.replace(tzinfo=None), "timestamp"),
        (MOMENT.astimezone(timezone(timedelta(hours=-8))), "timestamp"),
    ],
)
def test_every_form_of_a_time_is_read(value: object, form: Form) -> None:
    assert posix(value, form) == NOW


def test_a_time_without_zone_is_utc_wherever_the_process_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert posix("2027-01-15 08:00:00.250000", "iso") == NOW
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "soon",
        "",
        b"1800000000",
        NOW * 1000,
        -1,
        float("nan"),
        "inf",
        Decimal("nan"),
        [],
    ],
    ids=repr,
)
def test_what_is_no_time_is_none(value: object) -> None:
    assert posix(value, "unix") is None


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("2020-01-01T00:00:00", "2027-01-15T08:00:00.250000"),
        ("2020-01-01 00:00:00.1", "2027-01-15 08:00:00.250000"),
        ("2020-01-01T00:00:00.000000+00:00", "2027-01-15T08:00:00.250000+00:00"),
        ("2020-01-01T00:00:00Z", "2027-01-15T08:00:00.250000Z"),
        (None, "2027-01-15T08:00:00.250000+00:00"),
        ("junk", "2027-01-15T08:00:00.250000+00:00"),
    ],
)
def test_a_written_text_looks_like_its_neighbours(sample: object, expected: str) -> None:
    assert like(sample, NOW, "iso", dialect="sqlite") == expected


def test_a_written_timestamp_has_a_zone_where_its_neighbours_have_one() -> None:
    assert like(MOMENT, NOW, "timestamp", dialect="postgresql") == MOMENT
    naive = MOMENT.replace(tzinfo=None)
    assert like(naive, NOW, "timestamp", dialect="postgresql") == naive


@given(
    st.floats(0, 4e9),
    st.sampled_from(["unix", "iso", "timestamp"]),
    st.sampled_from([None, "2020-01-01 00:00:00", "2020-01-01T00:00:00Z", MOMENT]),
    st.sampled_from(["sqlite", "postgresql"]),
)
def test_what_is_written_is_read_again(at: float, form: Form, sample: object, dialect: str) -> None:
    assert posix(like(sample, at, form, dialect=dialect), form) == pytest.approx(at, abs=1e-6)
