from typing import Any

import itsdangerous
import pytest


def test_a_fault_leaves_with_1_and_says_the_mend(crossfade: Any) -> None:
    done = crossfade("doctor")
    assert done.code == 1
    assert "→ run `crossfade db upgrade`" in done.out
    assert "1 fault, 0 warnings" in done.out


def test_a_warning_alone_leaves_with_0(upgraded: Any) -> None:
    done = upgraded("doctor", "--json")
    assert done.code == 0
    document = done.document
    assert (document["state"], document["faults"], document["warnings"]) == ("ok", 0, 1)
    assert {"check", "level", "text", "mend"} == set(document["checks"][0])


@pytest.mark.parametrize("way", ["stdin", "file", "variable"])
def test_a_cookie_comes_by_stdin_file_or_variable_and_is_not_shown(
    upgraded: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("SESSION_SECRET", "s" * 40)
    cookie = itsdangerous.TimestampSigner("s" * 40).sign("eyJ1c2VyX2lkIjogNX0=").decode()
    path = upgraded.folder / "cookie"
    path.write_text(f"{cookie}\n")
    arguments = {"stdin": ("--cookie", "-"), "file": ("--cookie", f"@{path}"), "variable": ()}[way]
    if way == "variable":
        monkeypatch.setenv("CROSSFADE_COOKIE", cookie)
    done = upgraded("doctor", *arguments, typed=f"{cookie}\n")
    assert "starlette says ok, user 5" in done.out
    assert cookie not in done.out + done.err


def test_a_cookie_file_that_is_not_there_is_code_2(upgraded: Any) -> None:
    done = upgraded("doctor", "--cookie", "@nothing")
    assert done.code == 2
    assert "nothing cannot be read: FileNotFoundError" in done.err


def test_an_application_can_be_looked_at(upgraded: Any) -> None:
    done = upgraded("doctor", "--app", "nothing_here:app")
    assert done.code == 1
    assert "nothing_here:app cannot be imported" in " ".join(done.out.split())
