"""Log-outs that wait in a file for a database that is away.

The application has ended its session and its user believes to be out; that must not be forgotten
with the process. An entry names a login or the digest of a session, never a credential.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from crossfade.errors import StoreUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is to be ended: a login by `sid` or a session by `anchor` digest, in hexadecimal."""

    tenant: str = ""
    sid: str = ""
    anchor: str = ""


class Journal:
    """An append-only file of endings, shared by the processes of one host."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def append(self, ending: Ending) -> None:
        """Write an ending down, to the disk itself. Raises OSError if that fails too."""
        await asyncio.to_thread(self._append, json.dumps(asdict(ending)) + "\n")

    async def replay(self, end: Callable[[Ending], Awaitable[None]]) -> int:
        """Carry out what is written down; what fails again stays. Returns how many were done."""
        taken = await asyncio.to_thread(self._take)
        done = 0
        for line in taken:
            try:
                await end(Ending(**json.loads(line)))
                done += 1
            except StoreUnavailable:
                await asyncio.to_thread(self._append, line + "\n")
        return done

    def _append(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _take(self) -> list[str]:
        # Renamed first: what another process appends meanwhile goes to a new file.
        mine = self._path.with_suffix(f".{os.getpid()}")
        with suppress(FileNotFoundError):
            if not mine.exists():
                self._path.rename(mine)
        if not mine.exists():
            return []
        lines = [line for line in mine.read_text().splitlines() if line.startswith("{")]
        mine.unlink()
        return lines
