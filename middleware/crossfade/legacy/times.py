"""Times as applications store them in tables: read every form, write the one that is there."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

Form = Literal["unix", "iso", "timestamp"]

# Beyond the year 5000: somebody stores milliseconds. Read as seconds they would never be over.
_LATEST = 1e11


def posix(value: object, form: Form) -> float | None:
    """Return POSIX seconds; None for null and for what is no time. A time without zone is UTC."""
    if isinstance(value, str):
        value = _parsed(value, form)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return float(value) if math.isfinite(value) and 0 <= value < _LATEST else None


def like(sample: object, at: float, form: Form, *, dialect: str) -> float | str | datetime:
    """Return a time in the form of `sample`, another value of that column, or in the usual one.

    An application that compares times with and without zone fails, so the zone is imitated too.
    """
    if form == "unix":
        return at
    moment = datetime.fromtimestamp(at, UTC)
    if isinstance(sample, datetime):
        return moment if sample.tzinfo else moment.replace(tzinfo=None)
    if isinstance(sample, str) and (known := _parsed(sample, form)):
        return _text(moment, sample, zoned=isinstance(known, datetime) and bool(known.tzinfo))
    if form == "timestamp" and dialect == "sqlite":
        return _text(moment, " ", zoned=False)
    # PostgreSQL takes this text for both of its timestamps; one without zone drops the offset.
    return moment.isoformat()


def _parsed(text: str, form: Form) -> datetime | float | None:
    try:
        return float(text) if form == "unix" else datetime.fromisoformat(text)
    except ValueError:
        return None


def _text(moment: datetime, sample: str, *, zoned: bool) -> str:
    # Never shorter than the microsecond: fixed width keeps times comparable as text.
    naive = moment.replace(tzinfo=None).isoformat("T" if "T" in sample else " ", "microseconds")
    zone = "Z" if sample.endswith("Z") else "+00:00"
    return naive + zone if zoned else naive
