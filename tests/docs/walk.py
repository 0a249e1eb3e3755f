"""A throwaway deployment of the shop, on which the documents' own commands are run."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from sybil import Example, Sybil
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SHOP = """\
from pathlib import Path

from starlette.routing import Route

from crossfade import CrossfadeMiddleware, MetricsApp
from crossfade_migrator.demo.shop import create_shop

app = create_shop(database=Path("shop.db"))
app.router.routes.append(Route("/metrics", MetricsApp()))
app.add_middleware(CrossfadeMiddleware, config="crossfade.toml")
"""


class Walk:
    """A folder with the shop in it, as a reader would have it before the first command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[bytes] | None = None
        (folder / "shop.py").write_text(SHOP)
        _make_shop(folder / "shop.db")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.environment = {**os.environ, "COLUMNS": "80", "PATH": f"{BIN}:{os.environ['PATH']}"}
        self.environment.pop("CROSSFADE_CONFIG", None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def crossfade(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb, answering every question with yes: there is no terminal to ask on."""
        return subprocess.run(
            [BIN / "crossfade", *words, "--yes"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def set_up(self, more_settings: str = "") -> None:
        """Do what the README does up to the running shop."""
        where = ["--sessions-url", "sqlite:///shop.db", "--idle", "30m", "--absolute", "12h"]
        known = ["--issuer", "https://shop.example", "--audience", "shop"]
        known += ["--framework", "sql", "--cookie", "shop_session"]
        assert self.crossfade("init", *known, *where).returncode == 0
        with (self.folder / "crossfade.toml").open("a") as settings:
            settings.write(more_settings)
        assert self.crossfade("db", "upgrade").returncode == 0
        self.serve()

    def serve(self) -> None:
        """Start the shop, and wait until it has the news of the rollout."""
        command = [BIN / "uvicorn", "shop:app", "--port", str(self.port), "--log-level", "warning"]
        self.server = subprocess.Popen(command, cwd=self.folder, env=self.environment)
        for _ in range(200):
            try:
                with closing(urlopen(f"{self.url}/auth/health", timeout=5)) as answer:
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.1)
        raise AssertionError("the shop did not start")

    def stop(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(20)

    def follow(self, page: Path) -> int:
        """Run all console blocks of a page in their order; return how many commands ran."""
        done = 0
        for example in blocks(page, "console"):
            steps = commands(example)
            for step, following in zip(steps, [*steps[1:], ("", "")], strict=True):
                code = int(following[1]) if following[0] == "echo $?" else None
                done += self._run(*step, code, f"{page.name}:{example.line}")
        return done

    def _run(self, command: str, expected: str, code: int | None, place: str) -> int:
        """Run one command and hold it against the page; a failure must be shown there."""
        words = shlex.split(command)
        if words[0] == "uvicorn":
            self.serve()
        if words[0] != "crossfade":
            return 0
        result = self.crossfade(*words[1:])
        is_refused = expected.startswith("error:")
        told = result.stderr.splitlines()[-1] if is_refused else result.stdout
        report = f"{place}: $ {command}\n{result.stdout}{result.stderr}"
        if code is None:
            assert (result.returncode != 0) is is_refused, report
        else:
            assert result.returncode == code, report
        assert looks_like(told, expected), f"{report}\nexpected:\n{expected}"
        return 1


def blocks(page: Path, language: str) -> list[Example]:
    """Return the code blocks of a page in one language."""
    sybil = Sybil([CodeBlockParser(language=language, evaluator=lambda _: None)], path=str(ROOT))
    document: Document = sybil.parse(page)
    return list(document.examples())


def commands(example: Example) -> list[tuple[str, str]]:
    """Split a console block into (command, what it prints)."""
    found: list[tuple[str, str]] = []
    text = str(example.parsed).replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
        elif found:
            command, expected = found[-1]
            found[-1] = (command, f"{expected}{line}\n")
    return found


def looks_like(told: str, expected: str) -> bool:
    """Hold an output against what a page shows; `...` stands for anything, spaces for spaces."""
    if not expected.strip():
        return True
    parts = re.split(r" ?\.\.\. ?", " ".join(expected.split()))
    pattern = ".*?".join(map(re.escape, parts))
    return re.fullmatch(pattern, " ".join(told.split()), re.DOTALL) is not None


def _make_shop(database: Path) -> None:
    from crossfade_migrator.demo.shop_sessions import create_table

    create_table(database)
