"""The data of a session as JSON, read within caps: what a store holds is not ours to trust."""

import json
from typing import Any

MAXIMUM_BYTES = 1 << 20
MAXIMUM_DEPTH = 100


class UnreadableError(ValueError):
    """What is stored is no session. The text is for operators and holds no data."""


def load(raw: object) -> dict[str, Any]:
    """Return the object in a stored value: JSON text, bytes, or what a driver has parsed already.

    An empty value is an empty session. Raises UnreadableError.
    """
    if isinstance(raw, memoryview | bytearray):
        raw = bytes(raw)
    data = _parsed(raw) if isinstance(raw, str | bytes) else raw
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UnreadableError("the data is not a JSON object")
    if _may_be_deep(raw) and _is_deep(data):
        raise UnreadableError(f"the data nests deeper than {MAXIMUM_DEPTH}")
    return data


def _parsed(raw: str | bytes) -> object:
    if len(raw) > MAXIMUM_BYTES:
        raise UnreadableError("the data is larger than 1 MiB")
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"the data is not JSON: {type(error).__name__}") from None


def _may_be_deep(raw: object) -> bool:
    """Say whether a walk is needed: fewer brackets than the cap cannot nest deeper."""
    if isinstance(raw, bytes):
        return raw.count(b"{") + raw.count(b"[") > MAXIMUM_DEPTH
    return not isinstance(raw, str) or raw.count("{") + raw.count("[") > MAXIMUM_DEPTH


def _is_deep(data: object) -> bool:
    level = [data]
    for _ in range(MAXIMUM_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(item: object) -> list[object]:
    below = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return [child for child in below if isinstance(child, dict | list)]
