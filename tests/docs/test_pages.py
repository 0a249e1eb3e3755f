"""What the pages say in words is held against the code: links, commands, code, lists of paths."""

import re
import shlex
from pathlib import Path

import click
import pytest
from docs.walk import ROOT, blocks, commands
from sybil import Example

import crossfade
from crossfade_migrator.cli import cli
from docs import generated

PAGES = sorted(
    page
    for folder in (".", "docs", "adr", "runbooks", "middleware", "migrator")
    for page in (ROOT / folder).glob("*.md")
)
WIDTH = 80
STORES = ROOT / "middleware" / "crossfade" / "stores"
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.parametrize("name", list(generated.TABLES))
def test_a_generated_table_is_what_the_code_says(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text == generated.fill(text, name), "run python tests/docs/generated.py"


@each
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@each
def test_links_into_a_page_lead_to_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}


@each
def test_a_page_fits_a_terminal(page: Path) -> None:
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.lstrip().startswith("```")
        is_free = line.startswith(("|", "- [")) or "](" in line or "generated" in line
        assert len(line) <= (100 if fenced else WIDTH) or is_free, line


@each
def test_words_come_before_the_first_code_block(page: Path) -> None:
    before, fence, _ = page.read_text(encoding="utf-8").partition("```")
    assert not fence or len(before.split("# ", 1)[-1].split()) > 10


@each
def test_python_on_a_page_compiles_and_its_imports_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        source = str(block.parsed)
        compile(source, f"{page.name}:{block.line}", "exec")
        imports = re.findall(r"^(?:from|import) .+$", source, re.MULTILINE)
        exec("\n".join(imports), {})


@each
def test_every_command_on_a_page_is_one_that_exists(page: Path) -> None:
    for block in [*blocks(page, "console"), *blocks(page, "sh")]:
        for words in _crossfade_commands(block):
            _parse(cli, "crossfade", words[1:], None)


@each
def test_every_make_command_on_a_page_is_a_target(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for block in blocks(page, "console"):
        for command, _ in commands(block):
            if command.startswith("make "):
                assert f"\n{command.split()[1]}:" in makefile, command


def test_the_way_through_the_library_passes_every_module() -> None:
    _holds_all_modules(ROOT / "middleware", "crossfade")


def test_the_operators_page_names_every_module_of_its_own() -> None:
    _holds_all_modules(ROOT / "migrator", "crossfade_migrator", depth="*.py")


def test_every_public_name_is_documented_and_nothing_else() -> None:
    page = (ROOT / "docs" / "application.md").read_text(encoding="utf-8")
    table = page.partition("## Public names")[2]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == crossfade.__all__


def test_every_audit_event_is_documented_and_nothing_else() -> None:
    writers = [*STORES.glob("*.py"), STORES.parent / "events.py"]
    source = "".join(path.read_text(encoding="utf-8") for path in writers)
    written = set(re.findall(r'"((?:login|session|subject|key|identity)\.[a-z]+)"', source))
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z.]+)` \|", page, re.MULTILINE))
    assert {event for event in named if not event.startswith("rollout.")} == written


def test_every_verb_that_writes_a_revision_is_documented() -> None:
    sources = (ROOT / "migrator" / "crossfade_migrator").glob("*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    verbs = set(re.findall(r'(?:Move\(\s*ctx, |verb=)"([a-z]+)"', text))
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    assert verbs == set(re.findall(r"^\| `rollout\.([a-z]+)` \|", page, re.MULTILINE))


def _holds_all_modules(root: Path, package: str, depth: str = "**/*.py") -> None:
    listed = set(re.findall(rf"`({package}/[a-z_/.]+)`", (root / "README.md").read_text("utf-8")))
    missing = [path for path in listed if not (root / path).exists()]
    assert not missing
    modules = {str(path.relative_to(root)) for path in (root / package).glob(depth)}
    modules = {path for path in modules if not path.rsplit("/", 1)[-1].startswith("__")}
    assert modules - listed == set()


def _crossfade_commands(block: Example) -> list[list[str]]:
    lines = [command for command, _ in commands(block)]
    if not lines:  # a block without prompts: for the reader alone
        lines = [line for line in str(block.parsed).splitlines() if line.startswith("crossfade ")]
    return [words for line in lines if (words := shlex.split(line))[:1] == ["crossfade"]]


def _parse(
    command: click.Command, name: str, words: list[str], parent: click.Context | None
) -> None:
    """Parse a command line as the command itself would, without running it."""
    context = command.make_context(name, list(words), parent=parent)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        child = command.get_command(context, rest[0])
        assert child is not None, f"there is no verb {rest[0]}"
        _parse(child, rest[0], rest[1:], context)
