"""The command `crossfade`, and `python -m crossfade_migrator`."""

import sys


def main() -> None:
    """Run the command line; without its libraries say in one line what to install."""
    try:
        from crossfade_migrator.cli import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("crossfade"):
            raise
        sys.exit(f"error: the command line needs {error.name}: pip install 'crossfade[cli]'")
    run()


if __name__ == "__main__":
    main()
