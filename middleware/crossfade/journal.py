"""Log-outs that wait in a file for a database that is away.

The application has ended its session and its user believes to be out; that must not be forgotten
with the process. An entry names a login or the digest of a session, never a credential.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from crossfade.errors import StoreUnavailable

logger = logging.getLogger("crossfade.journal")

_ABANDONED = 60.0
"""Seconds after which a claimed file is taken over: its process may have died."""


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
        """Carry out what is written down; returns how many were done.

        Nothing is forgotten before all of it is done. What fails stays with the rest and is
        repeated: ending twice is ending once.
        """
        claimed = await asyncio.to_thread(self._claim)
        if claimed is None:
            return 0
        done = 0
        for ending in await asyncio.to_thread(_read, claimed):
            try:
                await end(ending)
            except StoreUnavailable:
                return done
            done += 1
        await asyncio.to_thread(claimed.unlink, missing_ok=True)
        return done

    def _append(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _claim(self) -> Path | None:
        # Renamed first: what another process appends meanwhile goes to a new file.
        mine = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        if mine.exists():
            return mine
        for waiting in (self._path, *self._left_behind()):
            with suppress(FileNotFoundError):
                return waiting.rename(mine)
        return None

    def _left_behind(self) -> list[Path]:
        """Return what processes had claimed that did not come to its end."""
        latest = time.time() - _ABANDONED
        claims = self._path.parent.glob(f"{self._path.name}.*")
        return [claim for claim in claims if _written_at(claim) < latest]


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _read(path: Path) -> list[Ending]:
    endings = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            endings.append(Ending(**json.loads(line)))
        except (ValueError, TypeError):
            logger.error("a line of the journal is damaged and is left out")  # noqa: TRY400 - no trace needed
    return endings
