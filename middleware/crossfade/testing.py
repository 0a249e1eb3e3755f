"""Fakes for tests of applications that carry the middleware; our own tests use them too."""

import asyncio


class ManualClock:
    """A clock that stands still until a test moves it.

    Both hands move together; `sleep` returns when `advance` has passed its end.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def time(self) -> float:
        """Return POSIX seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved that far."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        """Move both hands forward and wake whoever slept until then."""
        self._now += seconds
        self._elapsed += seconds
        due = [entry for entry in self._sleepers if entry[0] <= self._elapsed]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._elapsed]
        for _, future in due:
            if not future.done():
                future.set_result(None)

    def set_wall(self, now: float) -> None:
        """Step the wall clock alone, as NTP does."""
        self._now = now
