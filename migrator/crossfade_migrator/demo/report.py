"""Judge what the clients saw, and say it so that somebody who was not there understands it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crossfade.rollout.bucketing import bucket, in_cohort
from crossfade.stores.rollout import Revision
from crossfade_migrator.demo.ledger import (
    BOUGHT,
    CART,
    COHORT,
    IDENTITY,
    LOGOUT,
    REUSE,
    REVOKED,
    SERVER,
    STRANGER,
    SUCCESSOR,
    Issue,
    Ledger,
)

_LATE = 3.0
"""Seconds for which a client may still see what the revision before had decided."""
_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """One promise: its number in the documentation, how it was checked, and whether it held."""

    number: int
    name: str
    promise: str
    how: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome. `failure` is set where the scenario itself broke off."""

    legacy: str
    ledger: Ledger
    users: int
    totals: Mapping[str, float]
    final_phase: str
    invariants: tuple[Invariant, ...]
    failure: str | None = None

    @property
    def is_good(self) -> bool:
        """Say whether everything went as promised."""
        return self.failure is None and all(one.holds for one in self.invariants)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        ledger = self.ledger
        return {
            "legacy": self.legacy,
            "seconds": round(ledger.seconds, 1),
            "users": self.users,
            "requests": ledger.counts["requests"],
            "unexpected_logouts": ledger.broken(LOGOUT),
            "wrong_identity": ledger.broken(IDENTITY),
            "lost_carts": ledger.broken(CART),
            "accepted_after_revoke": ledger.broken(REVOKED),
            "server_errors": ledger.broken(SERVER),
            "refused_while_faulty": ledger.counts["refused_while_faulty"],
            "sessions_expired": ledger.counts["sessions_expired"],
            "rollbacks": ledger.counts["rollbacks"],
            "rollback_seconds_max": _longest(ledger.rollback_seconds),
            "revoke_seconds_max": _longest(ledger.revoke_seconds),
            **{name: int(number) for name, number in self.totals.items()},
            "final_phase": self.final_phase,
            "invariants": {f"{one.number}-{one.name}": one.holds for one in self.invariants},
            "failure": self.failure,
            "breaches": [str(breach) for breach in ledger.breaches[:100]],
        }


def judge(ledger: Ledger, history: Sequence[Revision]) -> tuple[Invariant, ...]:
    """Hold what was seen against the promises. What was never checked does not hold."""
    for issue in ledger.issues:
        _check_cohort(ledger, issue, history)
    found = (*_of_people(ledger), *_of_credentials(ledger))
    return tuple(sorted(found, key=lambda invariant: invariant.number))


def _held(ledger: Ledger, kind: str, *, checked: int) -> bool:
    return checked > 0 and ledger.broken(kind) == 0


def _of_people(ledger: Ledger) -> tuple[Invariant, ...]:
    checks, counts = ledger.checks, ledger.counts
    return (
        _invariant(
            1,
            "identity",
            "Nobody is ever answered as somebody else",
            f"{checks[IDENTITY]:,} replies named their user",
            _held(ledger, IDENTITY, checked=checks[IDENTITY]),
        ),
        _invariant(
            2,
            "nobody-logged-out",
            "Who was logged in stays so, with the cart; sleepers too",
            f"{checks[CART]:,} carts compared, {counts['sleepers']} sleepers woke up",
            _held(ledger, LOGOUT, checked=counts["sleepers"])
            and _held(ledger, CART, checked=checks[CART]),
        ),
        _invariant(
            9,
            "cohort",
            "A share moves only the people between old and new",
            f"{len(ledger.issues):,} times somebody was given tokens",
            _held(ledger, COHORT, checked=len(ledger.issues)),
        ),
        _invariant(
            15,
            "log-in",
            "A stranger can log in in every phase, second factor too",
            f"{checks[STRANGER]} newcomers in all phases",
            _held(ledger, STRANGER, checked=checks[STRANGER]),
        ),
    )


def _of_credentials(ledger: Ledger) -> tuple[Invariant, ...]:
    checks, counts = ledger.checks, ledger.counts
    return (
        _invariant(
            3,
            "revocation",
            "What is ended is refused everywhere within 2 s",
            f"{checks[REVOKED]:,} tries with stolen copies, slowest end"
            f" {_longest(ledger.revoke_seconds):.2f} s",
            _held(ledger, REVOKED, checked=len(ledger.revoke_seconds)),
        ),
        _invariant(
            4,
            "one-successor",
            "Parallel refreshes of one token get one and the same",
            f"{checks[SUCCESSOR]} parallel refreshes, {counts['replies_lost']:,} replies lost",
            _held(ledger, SUCCESSOR, checked=checks[SUCCESSOR]),
        ),
        _invariant(
            5,
            "reuse",
            "A stolen refresh token ends its own login and nothing else",
            f"{counts['reuses']} reuses, with forged tokens before",
            _held(ledger, REUSE, checked=counts["reuses"]),
        ),
        _invariant(
            7,
            "fault-is-503",
            "A fault of ours is a 503, never a log-out",
            f"{counts['refused_while_faulty']} refused with Retry-After while a worker had no keys",
            _held(ledger, SERVER, checked=counts["refused_while_faulty"]),
        ),
        _invariant(
            16,
            "no-better-credential",
            "A stolen access token buys nothing that outlives it",
            f"{checks[BOUGHT]} tries to trade one in",
            _held(ledger, BOUGHT, checked=checks[BOUGHT]),
        ),
    )


def _invariant(number: int, name: str, promise: str, how: str, holds: bool) -> Invariant:
    return Invariant(number=number, name=name, promise=promise, how=how, holds=holds)


def totals(metrics: str) -> dict[str, float]:
    """Add up what the shop's own metrics say about tokens given, renewed and sessions restored."""
    found = {"upgrades": 0.0, "exchanges": 0.0, "refreshes": 0.0, "restored": 0.0}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels = sample.labels
            match sample.name:
                case "crossfade_issued_total" if labels["kind"] == "access":
                    name = {"upgrade": "upgrades", "exchange": "exchanges"}.get(labels["grant"])
                    if name is not None:
                        found[name] += sample.value
                case "crossfade_refresh_total" if labels["outcome"] in _RENEWED:
                    found["refreshes"] += sample.value
                case "crossfade_restored_total":
                    found["restored"] += sample.value
                case _:
                    pass
    return found


_RENEWED = frozenset({"rotated", "replayed", "current"})


def print_report(report: Report, console: Console) -> None:
    """Print one page."""
    ledger, counts = report.ledger, report.ledger.counts
    console.print()
    console.print(Text("What happened", style="bold"))
    console.print(
        f"{report.users} people used a shop for {ledger.seconds:.0f} seconds while it went from"
        " sessions to tokens,\nback to sessions, and up again. They sent"
        f" {counts['requests']:,} requests to 2 worker processes.",
        soft_wrap=True,
    )
    console.print()
    console.print(_figures(report))
    console.print(Text("What was promised, and whether it held", style="bold"))
    console.print(_promises(report))
    if ledger.breaches:
        console.print(Text(f"{len(ledger.breaches)} broken expectations:", style="bold red"))
        for breach in ledger.breaches[:_SHOWN]:
            console.print(Text(str(breach)), soft_wrap=True)
    if report.failure is not None:
        console.print(Text(f"The demo broke off: {report.failure}", style="bold red"))
    verdict = (
        Text("Nobody was logged out, and every promise held.", style="bold green")
        if report.is_good
        else Text("Not everything went as promised.", style="bold red")
    )
    console.print(verdict)


def _figures(report: Report) -> Table:
    ledger, counts = report.ledger, report.ledger.counts
    given, rollback = report.totals, _longest(ledger.rollback_seconds)
    revoke = _longest(ledger.revoke_seconds)
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = [
        ("People logged out by it", str(ledger.broken(LOGOUT))),
        ("Carts lost by it", str(ledger.broken(CART))),
        ("Errors of the server", str(ledger.broken(SERVER))),
        ("Rollbacks", f"{counts['rollbacks']}, on all workers within {rollback:.1f} s"),
        ("Ended log-ins still accepted for", f"at most {revoke:.2f} s"),
        (
            "Sessions turned into tokens",
            f"{given['upgrades']:.0f}, by apps {given['exchanges']:.0f}",
        ),
        ("Tokens renewed", f"{given['refreshes']:,.0f}"),
        ("Sessions given back", f"{given['restored']:.0f}"),
        ("Sessions that ended as the shop wants", str(counts["sessions_expired"])),
        ("The rollout stands at", report.final_phase),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _promises(report: Report) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    for one in report.invariants:
        held = Text("held", style="green") if one.holds else Text("BROKEN", style="bold red")
        table.add_row(str(one.number), Text.assemble(one.promise, "\n  ", (one.how, "dim")), held)
    return table


def _check_cohort(ledger: Ledger, issue: Issue, history: Sequence[Revision]) -> None:
    """Say whether a share that was in force takes this person in."""
    before = [revision for revision in history if revision.created_at <= issue.at]
    recent = [revision for revision in before if revision.created_at > issue.at - _LATE]
    in_force = [*recent, *before[: len(recent) + 1][-1:]]
    for revision in in_force:
        state = revision.document
        place = bucket(state.salt, issue.client, issue.user)
        if in_cohort(place, state.issue_token[issue.client]):
            return
    ledger.breach(COHORT, f"{issue.client}-{issue.user}", "got tokens outside of the share")


def _longest(seconds: Sequence[float]) -> float:
    return round(max(seconds, default=0.0), 2)
