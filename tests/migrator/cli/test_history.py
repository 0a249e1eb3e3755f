from typing import Any

from crossfade_migrator.context import Context

GO = ("--yes", "--allow-empty", "--json")


def test_changes_are_listed_newest_first_in_words(planned: Any) -> None:
    assert planned("--actor", "ana", "advance", *GO).code == 0
    revisions = planned("history", "--json").document["revisions"]
    assert [r["verb"] for r in revisions] == ["advance", "advance", "plan", "begin"]
    out = planned("history").out
    assert "sessions → dual-10" in out
    assert "web 0%→10%" in out
    assert "accepts tokens" in out
    assert "plan shop-to-tokens" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_a_limit_shows_the_newest_and_before_goes_on(planned: Any) -> None:
    numbers = []
    for options in (["-n", "1"], ["-n", "1", "--before", "2"]):
        (revision,) = planned("history", "--json", *options).document["revisions"]
        numbers.append(revision["revision"])
    assert numbers == [2, 1]


def test_the_oldest_one_shown_is_compared_with_the_one_before_it(planned: Any) -> None:
    assert planned("advance", *GO).code == 0
    assert "web 0%→10%" in planned("history", "-n", "1").out


def test_a_whole_chain_verifies(planned: Any) -> None:
    done = planned("history", "--verify", "--json")
    assert (done.code, done.document["state"], done.document["faults"]) == (0, "ok", [])


def test_an_edited_row_is_found_with_code_1(planned: Any) -> None:
    async def edit(context: Context) -> None:
        async with context.database.write() as connection:
            await connection.exec_driver_sql(
                "UPDATE crossfade_rollout_revisions SET actor = 'mallory' WHERE revision = 1"
            )

    planned.within(edit)
    done = planned("history", "--verify", "--json")
    assert (done.code, done.document["state"]) == (1, "fault")
    assert "edited" in planned("history", "--verify").out
