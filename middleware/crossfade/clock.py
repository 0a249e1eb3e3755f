"""The two clocks of a process, injected everywhere that time matters.

`time` is the wall clock that tokens and sessions are dated with; `monotonic` measures ages and runs
on while the machine sleeps, so that a laptop lid or a paused VM cannot stretch a lease.
"""

import asyncio
import time
from typing import Protocol

# CLOCK_MONOTONIC stands still during suspend on Linux and runs on during it on macOS.
_THROUGH_SUSPEND = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What the library asks of time. `crossfade.testing.ManualClock` is the one that tests move."""

    def time(self) -> float:
        """Return POSIX seconds, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back and count time spent suspended."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds of this clock."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        """Return POSIX seconds, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back and count time spent suspended."""
        return time.clock_gettime(_THROUGH_SUSPEND)

    async def sleep(self, seconds: float) -> None:
        """Wait for that many real seconds."""
        await asyncio.sleep(seconds)
