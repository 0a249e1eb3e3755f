"""Show what a verb of the rollout did, or would do."""

from typing import TYPE_CHECKING, Any

from crossfade_migrator.cli.call import Call

if TYPE_CHECKING:
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.rollout import Outcome


def give(call: Call, outcome: "Outcome") -> int:
    """Answer with the outcome; return 14 if a change is written and not every process follows."""
    from crossfade_migrator.errors import NotConverged

    call.answer(_document(outcome), lambda screen: _show(screen, outcome))
    followed = outcome.convergence is None or outcome.convergence.is_complete
    return 0 if followed or not outcome.has_changed else NotConverged.exit_code


def impact_in_words(outcome: "Outcome") -> list[str]:
    """Say whom a change logs out; nothing where that is no question."""
    if outcome.impact is None:
        return []
    live = sum(outcome.impact.live.values())
    if not outcome.impact.total_logged_out:
        return [f"logs out nobody ({live:,} logins with tokens): {outcome.impact.why}"]
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in outcome.impact.logged_out.items() if n)
    gone = f"{outcome.impact.total_logged_out:,} of {live:,} logins ({kinds})"
    return [f"LOGS OUT {gone}: {outcome.impact.why}"]


def _document(outcome: "Outcome") -> dict[str, Any]:
    convergence, impact = outcome.convergence, outcome.impact
    return {
        "verb": outcome.verb,
        "dry_run": outcome.is_dry_run,
        "changed": outcome.has_changed,
        "revisions": [revision.number for revision in outcome.revisions],
        "phase": outcome.after.phase,
        "stage": outcome.after.stage,
        "status": outcome.after.status,
        "steps": list(outcome.steps),
        "blocked": list(outcome.blocked),
        "gates": [gate.as_json() for gate in outcome.gates],
        "impact": None
        if impact is None
        else {"live": dict(impact.live), "logged_out": dict(impact.logged_out), "why": impact.why},
        "convergence": None
        if convergence is None
        else {
            "acked": convergence.acked,
            "live": convergence.live,
            "laggards": list(convergence.laggards),
            "seconds": round(convergence.seconds, 3),
        },
    }


def _show(screen: "Screen", outcome: "Outcome") -> None:
    if outcome.is_dry_run:
        _show_dry_run(screen, outcome)
    elif not outcome.has_changed:
        screen.line(f"nothing to do: {_standing(outcome)}")
    else:
        for step in outcome.steps:
            screen.line(step)
        if outcome.convergence is not None:
            style = "" if outcome.convergence.is_complete else "bold yellow"
            screen.line(f"runs on {outcome.convergence}", style=style)
        screen.line(f"now {_standing(outcome)}", style="bold")


def _show_dry_run(screen: "Screen", outcome: "Outcome") -> None:
    if not outcome.steps:
        screen.line(f"would change nothing: {_standing(outcome)}")
        return
    screen.table((), [("would write" if n == 0 else "", s) for n, s in enumerate(outcome.steps)])
    for line in impact_in_words(outcome):
        screen.line(line)
    if outcome.blocked:
        screen.line("NOT ALLOWED NOW", style="bold yellow")
        screen.table((), [("-", why) for why in outcome.blocked])


def _standing(outcome: "Outcome") -> str:
    """Say where the rollout stands: `rolled back, stage dual-1`, `idle, phase sessions`."""
    after = outcome.after
    place = f"stage {after.stage}" if after.stage else f"phase {after.phase}"
    return f"{place}, {after.status}".replace("_", " ")
