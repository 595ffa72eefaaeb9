"""The only reader of clocks. Everything else is told the time.

Seconds are floats. `monotonic` time decides (timeouts, leases, rates); `wall` time is only ever shown to people.
"""

from __future__ import annotations

import time
from typing import Protocol


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
