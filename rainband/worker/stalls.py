"""How long the loop stood still (a long call of user code, SIGSTOP, a suspended machine). Pure.

Time in which acks could not be read must not count towards the message timeout.
"""

from __future__ import annotations

from collections import deque

TOLERATED_S = 0.25


class Stalls:
    """Remembers stalls longer than TOLERATED_S for `memory_s` seconds of running time."""

    def __init__(self, memory_s: float) -> None:
        self.memory_s = memory_s
        self.expected = float("inf")
        self.last = float("inf")
        self.found: deque[tuple[float, float]] = deque()

    def resumed(self, now: float) -> None:
        """A pass begins."""
        late = now - max(self.expected, self.last)
        if late > TOLERATED_S:
            self.found.append((now, late))

    def paused(self, now: float, wanted: float) -> None:
        """A pass ended; the next was wanted at `wanted`."""
        if self.last != float("inf") and now - self.last > TOLERATED_S and self.expected <= self.last:
            self.found.append((now, now - self.last))
        self.last = now
        self.expected = wanted

    def within(self, now: float) -> float:
        """Seconds stood still during the last `memory_s` seconds of running time."""
        total = 0.0
        for ended, length in reversed(self.found):
            if now - ended > self.memory_s + total:
                break
            total += length
        while len(self.found) > 1000 or (self.found and now - self.found[0][0] > 2 * self.memory_s + total):
            self.found.popleft()
        return total
