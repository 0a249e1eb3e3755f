"""How the demo judges: what was never checked does not hold, and one breach is enough."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from crossfade.rollout.bucketing import bucket
from crossfade.rollout.state import Phase, RolloutState
from crossfade.stores.rollout import Revision
from crossfade_migrator.demo.ledger import LOGOUT, SERVER, Issue, Ledger
from crossfade_migrator.demo.report import Report, judge, print_report, totals

METRICS = """\
# TYPE crossfade_issued_total counter
crossfade_issued_total{kind="access",grant="upgrade"} 7
crossfade_issued_total{kind="refresh",grant="upgrade"} 7
crossfade_issued_total{kind="access",grant="exchange"} 3
# TYPE crossfade_refresh_total counter
crossfade_refresh_total{outcome="rotated"} 20
crossfade_refresh_total{outcome="reuse"} 2
# TYPE crossfade_restored_total counter
crossfade_restored_total{client="web"} 4
crossfade_restored_total{client="mobile"} 1
"""


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger of a run in which everything was looked at."""
    full = Ledger()
    for kind in ("wrong_identity", "lost_carts", "accepted_after_revoke", "unequal_successors"):
        full.checks[kind] = 1
    for kind in ("reuse_spread", "strangers_refused", "credentials_bought"):
        full.checks[kind] = 1
    full.counts.update(sleepers=1, reuses=1, refused_while_faulty=1)
    full.revoke_seconds.append(0.2)
    full.issues.append(Issue(client="web", user=_user(below=30_000), at=100.0))
    return full


def _user(*, below: int, above: int = -1) -> str:
    users = (f"u{number:03}" for number in range(200))
    return next(user for user in users if above < bucket("s", "web", user) < below)


def revision(number: int, share: int, created_at: float) -> Revision:
    state = replace(
        RolloutState.initial(),
        phase=Phase.DUAL,
        accept_token=True,
        salt="s",
        issue_token={"web": share, "mobile": 0, "machine": 0},
    )
    return Revision(number=number, document=state, sha256="", created_at=created_at)


def history() -> list[Revision]:
    return [revision(2, 70_000, 200.0), revision(1, 30_000, 50.0)]


def holding(ledger: Ledger) -> set[int]:
    return {one.number for one in judge(ledger, history()) if one.holds}


def test_every_promise_holds_where_all_was_checked_and_nothing_broke(ledger: Ledger) -> None:
    assert holding(ledger) == {1, 2, 3, 4, 5, 7, 9, 15, 16}


def test_what_nobody_checked_does_not_hold() -> None:
    assert holding(Ledger()) == set()


def test_one_person_logged_out_breaks_the_second_promise_alone(ledger: Ledger) -> None:
    ledger.breach(LOGOUT, "browser-u001", "GET / answered 200")
    assert holding(ledger) == {1, 3, 4, 5, 7, 9, 15, 16}


@pytest.mark.parametrize(("at", "holds"), [(100.0, False), (199.0, False), (200.5, True)])
def test_tokens_outside_of_the_share_in_force_break_the_ninth(
    ledger: Ledger, at: float, holds: bool
) -> None:
    user = _user(above=30_000, below=70_000)
    ledger.issues.append(Issue(client="web", user=user, at=at))
    assert (9 in holding(ledger)) is holds


def test_a_reply_that_was_decided_a_moment_before_a_rollback_is_no_breach(ledger: Ledger) -> None:
    user = _user(above=30_000, below=70_000)
    ledger.issues.append(Issue(client="web", user=user, at=301.0))
    past = [revision(3, 30_000, 300.0), *history()]
    assert all(one.holds for one in judge(ledger, past))


@pytest.mark.parametrize(
    ("status", "may_retry", "is_faulty", "is_error"),
    [(503, True, True, False), (503, False, True, True), (503, True, False, True),
     (500, True, True, True), (401, True, True, False)],
)  # fmt: skip
def test_only_an_honest_503_during_the_fault_is_forgiven(
    status: int, may_retry: bool, is_faulty: bool, is_error: bool
) -> None:
    ledger = Ledger(faulty_until=float("inf") if is_faulty else 0.0)
    ledger.reply("browser", status, may_retry=may_retry)
    assert bool(ledger.broken(SERVER)) is is_error


def test_totals_are_read_from_the_shops_own_metrics() -> None:
    assert totals(METRICS) == {"upgrades": 7, "exchanges": 3, "refreshes": 20, "restored": 5}


@pytest.fixture
def page(ledger: Ledger) -> str:
    ledger.breach(LOGOUT, "browser-u001", "GET / answered 200")
    report = Report(
        legacy="sql",
        ledger=ledger,
        users=187,
        totals=totals(METRICS),
        final_phase="dual",
        invariants=judge(ledger, history()),
    )
    stream = StringIO()
    print_report(report, Console(file=stream, width=80))
    return stream.getvalue()


def test_the_page_names_who_was_logged_out_and_fits_eighty_columns(page: str) -> None:
    assert "browser-u001" in page
    assert "BROKEN" in page
    assert "Not everything went as promised." in page
    tables = [line for line in page.splitlines() if not line.lstrip().startswith("0.0 s")]
    assert max(len(line.rstrip()) for line in tables) <= 80
