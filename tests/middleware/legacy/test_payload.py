import json

import pytest

from crossfade.legacy.payload import MAXIMUM_BYTES, MAXIMUM_DEPTH, UnreadableError, load


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("raw", ['{"a": 1}', b'{"a": 1}', memoryview(b'{"a": 1}'), {"a": 1}])
def test_every_form_that_drivers_return_is_read(raw: object) -> None:
    assert load(raw) == {"a": 1}


@pytest.mark.parametrize("raw", [None, "", b"", "null", "{}"])
def test_no_data_is_an_empty_session(raw: object) -> None:
    assert load(raw) == {}


@pytest.mark.parametrize(
    "raw",
    [
        "[1]",
        '"text"',
        "1",
        "{",
        b"\xff\xfe\xff",
        7,
        ["a"],
        '{"a": ' + "1" * 5000 + "}",
        "[" * 100_000,
    ],
    ids=lambda raw: repr(raw)[:12],
)
def test_what_is_no_json_object_is_no_session(raw: object) -> None:
    with pytest.raises(UnreadableError):
        load(raw)


def test_data_up_to_a_mebibyte_is_read_and_more_is_not() -> None:
    blob = json.dumps({"a": "x" * (MAXIMUM_BYTES - 9)})
    assert len(blob) == MAXIMUM_BYTES
    assert load(blob)
    with pytest.raises(UnreadableError, match="larger than 1 MiB"):
        load(blob + " ")


@pytest.mark.parametrize("form", [str, str.encode, json.loads])
def test_data_may_nest_as_deep_as_the_cap_and_no_deeper(form: object) -> None:
    assert callable(form)
    assert load(form(nested(MAXIMUM_DEPTH)))
    with pytest.raises(UnreadableError, match="deeper than 100"):
        load(form(nested(MAXIMUM_DEPTH + 1)))


def test_wide_data_is_not_deep() -> None:
    assert load('{"a": [' + "[]," * 500 + "{}]}")


def test_an_error_never_quotes_the_data() -> None:
    with pytest.raises(UnreadableError) as caught:
        load('{"password": hunter2}')
    assert "hunter2" not in str(caught.value)
