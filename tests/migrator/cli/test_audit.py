from typing import Any

import pytest

from crossfade.principal import Identity
from crossfade.stores.audit import record
from crossfade_migrator.context import Context


async def _note(context: Context, subject: str = "ana", number: int = 1) -> None:
    async with context.database.write() as connection:
        for _ in range(number):
            await record(
                connection,
                event="login.opened",
                roots=context.secrets.root,
                identity=Identity(subject=subject),
                client="web",
                detail={"grant": "login"},
            )


def test_events_are_listed_oldest_first(upgraded: Any) -> None:
    upgraded.within(_note)
    entries = upgraded("audit", "--json").document["entries"]
    assert [entry["event"] for entry in entries] == ["rollout.begin", "key.added", "login.opened"]
    assert (entries[-1]["subject"], entries[-1]["detail"]) == ("ana", {"grant": "login"})
    out = upgraded("audit").out
    assert "login.opened" in out
    assert "client=web grant=login" in out


def test_one_user_alone_can_be_looked_at(upgraded: Any) -> None:
    upgraded.within(_note)
    upgraded.within(lambda context: _note(context, "bo"))
    entries = upgraded("audit", "--subject", "bo", "--json").document["entries"]
    assert [entry["subject"] for entry in entries] == ["bo"]


def test_a_page_says_where_the_next_begins(upgraded: Any) -> None:
    upgraded.within(lambda context: _note(context, number=4))
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        page = upgraded("audit", "-n", "4", "--after", str(after), "--json").document
        seen += [entry["id"] for entry in page["entries"]]
        after = page["after"]
    assert seen == [1, 2, 3, 4, 5, 6]
    assert "--after 4" in upgraded("audit", "-n", "4").out


def test_nothing_happened_is_a_plain_sentence(upgraded: Any) -> None:
    assert upgraded("audit", "--subject", "nobody").out == "nothing happened in that time\n"


@pytest.mark.parametrize("since", ["3", "yesterday", "-1h", "1y"])
def test_a_wrong_duration_shows_the_right_form(upgraded: Any, since: str) -> None:
    done = upgraded("audit", f"--since={since}")
    assert done.code == 2
    assert '"12h"' in done.err
