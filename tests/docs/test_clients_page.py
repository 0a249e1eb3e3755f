"""The requests in docs/clients.md are sent to a real shop, its replies held against the page."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from docs.walk import ROOT, Walk, blocks, commands
from sybil import Example

PAGE = ROOT / "docs" / "clients.md"
PLAN = """\
schema = 1
name = "shop-to-tokens"
salt = "any"
[[stage]]
name = "prefer"
phase = "prefer"
issue = { web = 100, mobile = 100, machine = 100 }
"""
MOBILE = """
[[clients]]
kind = "mobile"
header = "x-app"
matches = "shop-ios/"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Walk]:
    """A shop that prefers tokens, with a rule for mobile clients."""
    walk = Walk(tmp_path)
    try:
        walk.set_up(MOBILE)
        (tmp_path / "plan.toml").write_text(PLAN)
        for verb in (("plan", "apply"), ("advance",)):
            result = walk.crossfade(*verb)
            assert result.returncode == 0, result.stderr
        yield walk
    finally:
        walk.stop()


def test_each_request_on_the_page_is_answered_as_shown(shop: Walk) -> None:
    steps = sorted([*blocks(PAGE, "http"), *blocks(PAGE, "console")], key=lambda b: b.line)
    with httpx.Client(base_url=shop.url) as client:
        held = {"session": log_in(client), "refresh token": "", "access token": ""}
        held |= obtain(client, log_in(client))
        for step in steps:
            if "HTTP/1.1" not in step.parsed:
                run(shop, step)
                continue
            request, status, shown = read(step, held)
            answer = client.send(client.build_request(**request))
            place = f"{PAGE.name}:{step.line}: {answer.text}"
            assert answer.status_code == status, place
            assert answer.json().keys() == shown.keys(), place
            assert same(answer.json(), shown), place
            held |= {k.replace("_", " "): v for k, v in answer.json().items()}


def log_in(client: httpx.Client) -> str:
    client.cookies.clear()
    client.post("/login", data={"user": "u001", "password": "pw-u001"}, headers={"x-app": "other"})
    value = str(client.cookies["shop_session"])
    client.cookies.clear()
    return value


def obtain(client: httpx.Client, session: str) -> dict[str, str]:
    """Exchange a session: what a client holds before the first request of the page."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": session,
        "subject_token_type": "urn:crossfade:params:oauth:token-type:legacy-session",
    }
    body = client.post("/auth/token", data=form, headers={"x-app": "shop-ios/7"}).json()
    return {k.replace("_", " "): v for k, v in body.items()}


def run(shop: Walk, step: Example) -> None:
    for command, _ in commands(step):
        result = shop.crossfade(*re.findall(r'"[^"]*"|\S+', command)[1:])
        assert result.returncode == 0, result.stderr


def read(step: Example, held: dict[str, str]) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """Split a block into the request to send, the status and the body that are shown."""
    text = re.sub(r"<([a-z ]+)>", lambda match: str(held[match[1]]), str(step.parsed))
    sent, _, told = text.partition("HTTP/1.1 ")
    head, _, body = sent.partition("\n\n")
    first, *lines = head.splitlines()
    method, path = first.split()
    headers = dict(line.split(": ", 1) for line in lines)
    status, _, shown = told.partition("\n")
    content = body.replace("\n", "")
    request = {"method": method, "url": path, "headers": headers, "content": content}
    return request, int(status), json.loads(shown)


def same(told: Any, shown: Any) -> bool:
    """Compare JSON; the text `...` stands for any value."""
    if shown == "...":
        return True
    if isinstance(shown, dict):
        return told.keys() == shown.keys() and all(same(told[k], shown[k]) for k in shown)
    if isinstance(shown, list):
        return len(told) >= len(shown) > 0 and all(same(told[0], one) for one in shown)
    return bool(told == shown)
