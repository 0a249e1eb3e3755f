"""Strict reading and writing of compact JWS (RFC 7515 7.1): one spelling and one reading a token.

PyJWT accepts padding, stray trailing bits, UTF-16 and duplicate members. Each gives one token a
second spelling or reading, and then two parsers in a row can disagree about who somebody is.
"""

import base64
import binascii
import json
import math
import re
from typing import Any, NoReturn

from crossfade.errors import Reason, TokenRejected

MAXIMUM_DEPTH = 16
"""Of nested objects and arrays in one part."""
MAXIMUM_HEADER = 2048
"""Characters of the encoded header: it is parsed before any signature is checked."""

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
# `e[w-z0-9_-]` is how an encoded `{` begins; `SG.x.y` and other dotted API keys are no JWT.
_JWT = re.compile(rb"e[w-z0-9_-][A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*={0,2}")


def looks_like_jwt(credential: bytes) -> bool:
    """Say whether a bearer is meant as a JWT: three base64url parts, the first opening an object.

    Anything else is somebody else's business (`foreign`); what is meant as a JWT and fails is an
    attack or a misconfiguration, and must be seen.
    """
    return _JWT.fullmatch(credential) is not None


def encode(data: bytes) -> bytes:
    """Return base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Decode the one canonical spelling of base64url.

    Raises:
        TokenRejected: malformed: padding, another alphabet, or trailing bits that are not zero.
    """
    try:
        data = binascii.a2b_base64(text.translate(_TO_STANDARD) + b"==")
    except binascii.Error:
        raise TokenRejected(Reason.MALFORMED, "not base64url") from None
    # The decoder skips what it does not know; only the way back proves that nothing was skipped.
    if encode(data) != text:
        raise TokenRejected(Reason.MALFORMED, "not canonical base64url")
    return data


def dump_object(value: dict[str, Any]) -> bytes:
    """Return compact JSON. Raises TypeError or ValueError on what JSON cannot hold."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def load_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object (RFC 8259) in UTF-8, each member once, at most 16 levels deep.

    Raises:
        TokenRejected: malformed: anything else, also NaN, infinite numbers and lone surrogates.
    """
    try:
        text = data.decode()
        value = _DECODER.decode(text)
        if "\\u" in text:
            # A lone surrogate would break whoever encodes it: a digest, a log, a database.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise TokenRejected(Reason.MALFORMED, "not strict JSON") from None
    if type(value) is not dict:
        raise TokenRejected(Reason.MALFORMED, "not a JSON object")
    # As many brackets as levels at least: the walk is left to the few that could be too deep.
    if data.count(b"{") + data.count(b"[") > MAXIMUM_DEPTH and _is_deeper(value, MAXIMUM_DEPTH):
        raise TokenRejected(Reason.MALFORMED, "nested too deeply")
    return value


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_is_deeper(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_is_deeper(item, levels - 1) for item in value)
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number too large")
    return number


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_refuse)
