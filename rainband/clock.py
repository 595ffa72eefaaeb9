"""The only reader of clocks. Everything else is told the time.

Seconds are floats. Monotonic time decides (timeouts, rates); it stands still while the machine sleeps, so that nobody
is declared dead for that. Leases that others wait out go by the time since boot, which does not. Wall time is only ever
shown to people.
"""

from __future__ import annotations

import time
from typing import Protocol

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds since an arbitrary start."""

    def wall(self) -> float:
        """Seconds since the Unix epoch, for people only."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def since_boot(self) -> float:
        """Seconds since the machine was started, the same in all its processes; sleep counts."""
        return time.clock_gettime(_SINCE_BOOT)


class VirtualClock:
    """Time that moves only when told to. Starts at `start` seconds; wall time starts at the Unix epoch plus it."""

    def __init__(self, start: float = 0.0) -> None:
        self.time = start

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds` (>= 0)."""
        if seconds < 0:
            raise ValueError(f"time runs forward only, not by {seconds}")
        self.time += seconds
