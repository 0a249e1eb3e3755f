"""The tables in docs/ that are made from the code; `python tests/docs/generated.py` writes them."""

import ast
import inspect
import textwrap
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import click

from crossfade import decision, errors, metrics
from crossfade.decision import TABLE, Row, Verdict
from crossfade.errors import Reason
from crossfade_migrator import errors as operator_errors
from crossfade_migrator.cli import VERBS, cli
from crossfade_migrator.cli.call import Verb

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"


def decision_table() -> str:
    """Return one line for each row, as the code holds it."""
    head = ("Row", "Token", "Session", "dual", "prefer, drain", "tokens", "Why", "Also")
    return _table(head, (_row(row) for row in TABLE))


def metric_table() -> str:
    """Return one line for each metric."""
    head = ("Metric", "Type", "Labels", "Meaning")
    return _table(head, ((f"`{f.name}`", f.kind, _labels(f), f.help) for f in metrics.CATALOGUE))


def exit_codes() -> str:
    """Return one line for each exit code that a verb ends with."""
    found = [_cells(kind) for kind in _operator_errors()]
    rows = [("0", "ok", "It did what was asked, or found nothing to mend."), *found]
    rows += [("70", "unexpected", "A fault in Crossfade itself: repeat it with `--traceback`.")]
    rows += [("130", "interrupted", "Ctrl-C. What is written is whole.")]
    return _table(("Exit code", "`error.code`", "Meaning"), sorted(rows, key=lambda r: int(r[0])))


def reasons() -> str:
    """Return one line for each reason for which a credential is refused."""
    meanings = _docstrings(errors, Reason.__name__)
    return _table(("Reason", "Meaning"), ((f"`{r}`", meanings[r.name]) for r in Reason))


def effects() -> str:
    """Return one line for each thing that may follow from a row."""
    # These are plain by their names in the code.
    meanings = {
        "CLEAR_ACCESS": "Our access cookie is cleared.",
        "END_LOGIN": "The login is ended, in both worlds.",
        "HINT_REFRESH": "The reply carries `X-Crossfade-Refresh: 1`.",
        "AUDIT": "Marked for the audit.",
    }
    meanings |= _docstrings(decision, decision.Effect.__name__)
    return _table(("Also", "Meaning"), ((f"`{e}`", meanings[e.name]) for e in decision.Effect))


def commands() -> str:
    """Return every verb with its own options, section by section."""
    shared = _options(Verb("shared"))
    lines = [f"Every verb also takes {', '.join(f'`{name}`' for name, _ in shared)}."]
    for section, verbs in VERBS.items():
        lines += ["", f"## {section}"]
        for verb in verbs:
            lines += _verb(_get(verb), verb)
    return "\n".join(lines)


TABLES = {
    "decision-table.md": {"rows": decision_table, "effects": effects},
    "metrics.md": {"catalogue": metric_table},
    "exit-codes.md": {"codes": exit_codes},
    "reasons.md": {"reasons": reasons},
    "commands.md": {"commands": commands},
}
"""File in docs/ -> marker in it -> what stands there."""


def fill(text: str, name: str) -> str:
    """Return the text of a page with its tables made anew."""
    for marker, make in TABLES[name].items():
        begin = BEGIN.format(marker)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(END)
        text = f"{before}{begin}\n\n{make()}\n\n{END}{after}"
    return text


def _row(row: Row) -> tuple[str, ...]:
    enforce = row.enforce_reason or row.reason
    also = ", ".join(f"`{effect}`" for effect in sorted(row.effects))
    if row.enforce_effects is not None:
        also += f"; in tokens {', '.join(f'`{effect}`' for effect in sorted(row.enforce_effects))}"
    return (
        row.number,
        ", ".join(symbol.replace(":", " ") for symbol in row.token),
        "; ".join(row.session),
        _verdict(row.session_leads),
        _verdict(row.token_leads),
        _verdict(row.enforce),
        row.why + (f" (`{enforce}`)" if enforce else ""),
        also,
    )


def _verdict(verdict: Verdict) -> str:
    return "as the application" if verdict is Verdict.LEGACY else str(verdict)


def _labels(family: metrics.Family) -> str:
    return "; ".join(
        f"{name}: {', '.join(map(str, values))}" for name, values in family.labels.items()
    )


def _operator_errors() -> Iterable[type[operator_errors.OperatorError]]:
    kinds = vars(operator_errors).values()
    root = operator_errors.OperatorError
    return (k for k in kinds if isinstance(k, type) and issubclass(k, root) and k is not root)


def _cells(kind: type[operator_errors.OperatorError]) -> tuple[str, str, str]:
    return str(kind.exit_code), kind.code, inspect.cleandoc(kind.__doc__ or "").splitlines()[0]


def _docstrings(module: object, name: str) -> dict[str, str]:
    """Return the text below each member of an enumeration: Python itself forgets it."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]  # a module
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name).body
    found = {}
    for member, text in pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr):
            target = member.targets[0]
            assert isinstance(target, ast.Name)
            found[target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _get(verb: str) -> click.Command:
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None, verb
    return found


def _verb(command: click.Command, path: str) -> list[str]:
    if isinstance(command, click.Group):
        return [
            line
            for name, child in command.commands.items()
            for line in _verb(child, f"{path} {name}")
        ]
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    words = [f"[{a.name.upper()}]" if not a.required else str(a.name).upper() for a in arguments]
    shared = {name for name, _ in _options(Verb("shared"))}
    lines = ["", f"### `{' '.join(['crossfade', path, *words])}`", "", _prose(command)]
    own = [
        textwrap.fill(f"- `{name}`: {text}", 79, subsequent_indent="  ")
        for name, text in _options(command)
        if name not in shared
    ]
    return [*lines, "", *own] if own else lines


def _prose(command: click.Command) -> str:
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(textwrap.fill(text, 79) for text in paragraphs)


def _options(command: click.Command) -> list[tuple[str, str]]:
    found = []
    for option in command.params:
        if isinstance(option, click.Option):
            names = ", ".join([*option.opts, *option.secondary_opts])
            found.append((names, option.help or ""))
    return found


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


if __name__ == "__main__":
    for page in TABLES:
        place = ROOT / "docs" / page
        place.write_text(fill(place.read_text(encoding="utf-8"), page), encoding="utf-8")
