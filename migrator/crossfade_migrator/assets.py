"""Find the folders of text that travel with the program: runbooks, ADRs, dashboards."""

from pathlib import Path

FOLDERS = ("adr", "dashboards", "runbooks")


def folder(name: str) -> Path:
    """Return the folder of that name: of the checkout if this is one, else of the wheel.

    An editable install leaves a stale copy beside its metadata, so the checkout comes first.

    Raises:
        LookupError: no such asset, or it was not installed.
    """
    package = Path(__file__).resolve().parent
    places = [package / name]
    if package.parent.name == "migrator":
        places.insert(0, package.parents[1] / name)
    for place in places:
        if name in FOLDERS and place.is_dir():
            return place
    raise LookupError(f"there is no folder {name!r} in this installation")
