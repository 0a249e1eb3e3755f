from typing import Any

import pytest

from crossfade.principal import Identity
from crossfade.stores.logins import NewLogin
from crossfade_migrator.context import Context
from crossfade_migrator.errors import Misused
from crossfade_migrator.logins import read_sid, sid_text

ANA = Identity(subject="ana")


def _open(crossfade: Any, *, agent: str = "Firefox", identity: Identity = ANA) -> str:
    async def open_one(context: Context) -> str:
        now = await context.database.time()
        opened = await context.logins.open(
            NewLogin(
                identity=identity,
                client="web",
                client_id="web",
                auth_time=now,
                idle=3600.0,
                absolute_until=now + 86400,
                grant="login",
                address="192.0.2.7",
                agent=agent,
            )
        )
        return sid_text(opened.login.sid)

    text: str = crossfade.within(open_one)
    return text


def _live(crossfade: Any) -> list[str]:
    rows = crossfade("logins", "list", "ana", "--json").document["logins"]
    return [row["sid"] for row in rows]


def test_a_users_logins_are_listed_with_their_devices(upgraded: Any) -> None:
    sid = _open(upgraded)
    (row,) = upgraded("logins", "list", "ana", "--json").document["logins"]
    assert (row["sid"], row["client"], row["address"]) == (sid, "web", "192.0.2.7")
    assert sid in upgraded("logins", "list", "ana").out


def test_nobody_is_a_plain_sentence(upgraded: Any) -> None:
    assert upgraded("logins", "list", "bo").out == "bo has no live login with tokens\n"


def test_a_user_agent_cannot_steer_the_terminal(upgraded: Any) -> None:
    _open(upgraded, agent="\x1b[2J\x1b]0;owned\x07curl")
    out = upgraded("logins", "list", "ana").out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_one_login_is_ended_and_the_others_stay(upgraded: Any) -> None:
    ended, kept = _open(upgraded), _open(upgraded)
    done = upgraded("logins", "revoke", ended, "--yes", "--json")
    assert (done.code, done.document["ended"]) == (0, 1)
    assert _live(upgraded) == [kept]
    again = upgraded("logins", "revoke", ended, "--yes")
    assert again.out == "that login ended already: operator\n"


def test_all_logins_save_one_are_ended(upgraded: Any) -> None:
    sids = [_open(upgraded) for _ in range(3)]
    done = upgraded("logins", "revoke", "--all", "ana", f"--except={sids[1]}", "--yes", "--json")
    assert done.document["ended"] == 2
    assert _live(upgraded) == [sids[1]]


def test_a_dry_run_ends_nothing(upgraded: Any) -> None:
    sid = _open(upgraded)
    assert upgraded("logins", "revoke", sid, "--dry-run").out == "1 login would be ended\n"
    assert (
        upgraded("logins", "revoke", "--all", "ana", "--dry-run", "--json").document["ended"] == 1
    )
    assert _live(upgraded) == [sid]


def test_revoking_is_audited_with_who_did_it(upgraded: Any) -> None:
    sid = _open(upgraded)
    assert upgraded("--actor", "bo", "logins", "revoke", sid, "--yes").code == 0
    entries = upgraded("audit", "--subject", "ana", "--json").document["entries"]
    ended = [entry for entry in entries if entry["actor"].startswith("bo (")]
    assert len(ended) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "ana", "x"),
        ("x", "--except", "y"),
        ("nonsense",),
        ("-" * 22,),
        ("A" * 21 + "B",),
    ],
)
def test_wrong_arguments_are_refused(upgraded: Any, arguments: tuple[str, ...]) -> None:
    done = upgraded("logins", "revoke", *arguments, "--yes")
    assert done.code == 2
    assert done.err.startswith("error: ")


@pytest.mark.parametrize(
    "text", ["A" * 21 + "B", "A" * 21, "A" * 22 + "=", "A" * 21 + "+", "ä" * 22]
)
def test_a_login_id_has_one_spelling(text: str) -> None:
    with pytest.raises(Misused):
        read_sid(text)


def test_an_id_that_begins_with_a_dash_is_no_option(upgraded: Any) -> None:
    for first in range(0xF8, 0xFC):
        text = sid_text(bytes([first]) + b"\0" * 15)
        assert text.startswith("-")
        assert read_sid(text)[0] == first
        done = upgraded("logins", "revoke", text, "--yes")
        assert "no login with that id" in done.err


def test_revoking_needs_consent(upgraded: Any) -> None:
    sid = _open(upgraded)
    assert upgraded("logins", "revoke", sid).code == 2
    assert upgraded("logins", "revoke", "--all", "ana").code == 2
    assert _live(upgraded) == [sid]
