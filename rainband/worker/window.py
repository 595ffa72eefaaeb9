"""How many trees of one spout task may be pending. Pure: counts and times in, a size out.

The window starts small and doubles once per round trip (when as many roots were acked as it held and the spout was
held back by it), and is never larger than what completes within a third of the message timeout at the measured rate,
so that waiting in queues cannot turn into timeouts and replay storms. `topology.max.spout.pending` is its ceiling.
"""

from __future__ import annotations

START = 64
MEASURE_S = 0.25


class Window:
    """`size` is the number of trees that may be pending, at least 1."""

    def __init__(self, ceiling: int, timeout_s: float, now: float) -> None:
        assert ceiling >= 1
        self.ceiling = ceiling
        self.share_s = timeout_s / 3
        self.size = min(START, ceiling)
        self.rate: float | None = None
        self.round_end = self.size
        self.measured_at = now
        self.measured_acked = 0

    def held_back(self, acked: int) -> None:
        """The spout had more to emit than the window allowed; `acked` trees were acked so far."""
        if acked >= self.round_end:
            self.size = self.bounded(2 * self.size)
            self.round_end = acked + self.size

    def measure(self, now: float, acked: int, pending: int) -> None:
        """Take the rate of completion; call it now and then. Idle time says nothing about the rate."""
        elapsed = now - self.measured_at
        if elapsed < MEASURE_S:
            return
        finished = acked - self.measured_acked
        self.measured_at = now
        self.measured_acked = acked
        if pending == 0 and finished == 0:
            return
        rate = finished / elapsed
        weight = min(1.0, elapsed)
        self.rate = rate if self.rate is None else self.rate + weight * (rate - self.rate)
        self.size = self.bounded(self.size)

    def bounded(self, size: int) -> int:
        if self.rate is not None:
            size = min(size, int(self.rate * self.share_s))
        return max(1, min(size, self.ceiling))
