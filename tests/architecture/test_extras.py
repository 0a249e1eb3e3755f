"""What happens where the extras are not installed."""

import subprocess
import sys

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"click", "sqlalchemy", "msgspec", "prometheus_client"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_without_its_libraries_is_one_line_that_names_the_extra() -> None:
    done = run("from crossfade_migrator.__main__ import main; main()")
    assert done.returncode == 1
    assert done.stderr == "error: the command line needs click: pip install 'crossfade[cli]'\n"


def test_the_middleware_without_its_libraries_names_the_extra() -> None:
    done = run("import crossfade; crossfade.CrossfadeMiddleware")
    assert done.stderr.splitlines()[-1].endswith("pip install 'crossfade[server]'")
