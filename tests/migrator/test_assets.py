import subprocess
import sys
from pathlib import Path

import pytest

from crossfade_migrator import assets


@pytest.mark.parametrize("name", assets.FOLDERS)
def test_a_checkout_gives_its_own_folders(name: str) -> None:
    assert assets.folder(name) == Path.cwd() / name


@pytest.mark.parametrize("name", ["secrets", "..", "/etc", ""])
def test_only_assets_are_given(name: str) -> None:
    with pytest.raises(LookupError):
        assets.folder(name)


def test_an_installed_package_gives_the_copies_inside_it(tmp_path: Path) -> None:
    package = tmp_path / "crossfade_migrator"
    (package / "runbooks").mkdir(parents=True)
    (tmp_path.parent / "runbooks").mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    source = Path(assets.__file__).read_text(encoding="utf-8")
    (package / "assets.py").write_text(source)
    code = "from crossfade_migrator.assets import folder; print(folder('runbooks'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == package / "runbooks"
