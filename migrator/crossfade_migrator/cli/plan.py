"""`crossfade plan`: check a plan file, show it, store it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossfade_migrator.cli.call import Call, Verbs
from crossfade_migrator.cli.consent import ask
from crossfade_migrator.cli.options import dry_run_option, if_revision_option, reason_option

if TYPE_CHECKING:
    from crossfade_migrator.cli.screen import Screen
    from crossfade_migrator.lint import Finding
    from crossfade_migrator.plan import Plan

_FILE = click.Path(path_type=Path, dir_okay=False)
_LEVELS = {"error": "bold red", "warning": "yellow", "info": "dim"}


@click.group(cls=Verbs)
def plan() -> None:
    """Check, show and apply a rollout plan."""


@plan.command("lint")
@click.argument("file", type=_FILE, default="plan.toml")
@click.option(
    "--traffic",
    metavar="KIND=N",
    multiple=True,
    help="Active users a day of a client kind, for the expected time to enough evidence.",
)
@click.pass_obj
async def lint_(call: Call, file: Path, traffic: tuple[str, ...]) -> int:
    """Check a plan file; change nothing. Leaves with 1 if it may not be applied."""
    from crossfade.settings import Settings
    from crossfade_migrator.lint import lint
    from crossfade_migrator.plan import Plan

    findings = lint(Plan.load(file), Settings.load(call.config), dict(map(_traffic, traffic)))
    errors = sum(finding.level == "error" for finding in findings)
    document = {"state": "fault" if errors else "ok", "findings": [_entry(f) for f in findings]}
    call.answer(document, lambda screen: _show_findings(screen, findings, file))
    return 1 if errors else 0


@plan.command()
@click.argument("file", type=_FILE, required=False)
@click.pass_obj
async def show(call: Call, file: Path | None) -> None:
    """Show the stages of a plan file, or of the plan that was applied."""
    from crossfade_migrator.plan import Plan

    if file is not None:
        shown: Plan | None = Plan.load(file)
        stage = None
    else:
        from crossfade_migrator.plan import stored_plan

        async with call.open() as context:
            state = (await context.rollout.head()).document
        shown, stage = stored_plan(state), state.stage
    document = {
        "plan": None if shown is None else shown.document,
        "stage": stage,
        "stages": [] if shown is None else [_stage(entry) for entry in shown.stages],
    }
    call.answer(document, lambda screen: _show_plan(screen, shown, stage))


@plan.command("apply")
@click.argument("file", type=_FILE, default="plan.toml")
@reason_option
@if_revision_option
@dry_run_option
@click.pass_obj
async def apply_(
    call: Call, file: Path, reason: str, if_revision: int | None, dry_run: bool
) -> int:
    """Store a plan. Nothing moves before `crossfade advance` or `crossfade run`."""
    from crossfade_migrator import rollout as verbs
    from crossfade_migrator.cli.outcome import give
    from crossfade_migrator.cli.rollout import naming_who_was_faster
    from crossfade_migrator.plan import Plan

    given = Plan.load(file)
    async with call.open() as context, naming_who_was_faster(context):
        if not dry_run:
            ask(call, f"Store the plan {given.name}?")
        done = await verbs.apply_plan(
            context, given, reason=reason, if_revision=if_revision, dry_run=dry_run
        )
    return give(call, done)


def _traffic(text: str) -> tuple[str, float]:
    kind, _, number = text.partition("=")
    try:
        return kind, float(number)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not of the form web=5000", param_hint="--traffic"
        ) from None


def _entry(finding: "Finding") -> dict[str, str]:
    return {"level": finding.level, "where": finding.where, "text": finding.text}


def _stage(stage: Any) -> dict[str, Any]:
    return {
        "name": stage.name,
        "phase": stage.phase,
        "issue": dict(stage.issue),
        "bake": stage.bake,
        "min_subjects": stage.min_subjects,
        "max_hold": stage.max_hold,
        "gates": [gate.name for gate in stage.gates],
    }


def _show_findings(screen: "Screen", findings: "list[Finding]", file: Path) -> None:
    if findings:
        screen.table((), [[(f.level, _LEVELS[f.level]), f.where, f.text] for f in findings])
    errors = sum(finding.level == "error" for finding in findings)
    screen.line(f"{file.name}: {f'{errors} to mend' if errors else 'can be applied'}")


def _show_plan(screen: "Screen", plan: "Plan | None", present: str | None) -> None:
    from crossfade_migrator.cli.screen import percent
    from crossfade_migrator.durations import span

    if plan is None:
        screen.line("no plan is applied: `crossfade plan apply plan.toml`")
        return
    screen.line(plan.name, style="bold")
    screen.table(
        ("", "STAGE", "PHASE", "WEB", "MOBILE", "MACHINE", "BAKE", "GATES"),
        [
            [
                (">", "bold green") if stage.name == present else "",
                stage.name,
                stage.phase,
                *(percent(stage.issue[kind]) for kind in ("web", "mobile", "machine")),
                span(stage.bake),
                ", ".join(gate.name for gate in stage.gates) or "-",
            ]
            for stage in plan.stages
        ],
    )
