"""How many trees of one spout task may be pending. Pure: counts and times in, a size out.

The window starts small and is tried at twice its size; it keeps the larger size as long as that brings more per
second (a round is over when as many roots were settled as the window held). So the queues stay as short as full speed
allows. Below its first size it needs no such proof: a few rounds of a few trees say little. It is never larger than
what completes within a third of the message timeout at the measured rate: waiting in queues cannot turn into timeouts
and replay storms. `topology.max.spout.pending` is its ceiling.
"""

from __future__ import annotations

START = 64
ROUND_S = 0.005
GAIN = 1.05
PATIENCE_S = 1.0
MEASURE_S = 0.25


class Window:
    """`size` is the number of trees that may be pending, at least 1."""

    def __init__(self, ceiling: int, timeout_s: float, now: float) -> None:
        assert ceiling >= 1
        self.ceiling = ceiling
        self.share_s = timeout_s / 3
        self.size = min(START, ceiling)
        self.rate: float | None = None
        self.measured_at = now
        self.measured_settled = 0
        self.round_at = now
        self.round_settled = 0
        self.kept_size = self.size
        self.kept_rate = 0.0
        self.rounds = 0
        self.try_at = now

    def held_back(self, now: float, settled: int) -> None:
        """The spout had more to emit than the window allowed; `settled` trees were acked or failed so far."""
        elapsed = now - self.round_at
        done = settled - self.round_settled
        if done < self.size or elapsed < ROUND_S:
            return
        self.round_at = now
        self.round_settled = settled
        self.rounds += 1
        if self.size < START:
            self.kept_rate = done / elapsed
            self.resize(2 * self.size)
            self.kept_size = self.size
        elif self.size == self.kept_size:
            self.kept_rate = max(done / elapsed, 0.9 * self.kept_rate)
            if now >= self.try_at:
                self.resize(2 * self.size)
        elif self.rounds > 1:
            self.judge(now, done / elapsed)

    def judge(self, now: float, rate: float) -> None:
        """A full round at the larger size is over (the one before it was filling up)."""
        if rate >= GAIN * self.kept_rate:
            self.kept_rate = rate
            self.kept_size = self.size
            self.resize(2 * self.size)
        else:
            self.resize(self.kept_size)
            self.try_at = now + PATIENCE_S

    def resize(self, size: int) -> None:
        self.size = self.bounded(size)
        self.kept_size = min(self.kept_size, self.size)
        self.rounds = 0

    def measure(self, now: float, settled: int, pending: int) -> None:
        """Take the rate of completion; call it now and then. Idle time says nothing about the rate."""
        elapsed = now - self.measured_at
        if elapsed < MEASURE_S:
            return
        finished = settled - self.measured_settled
        self.measured_at = now
        self.measured_settled = settled
        if pending == 0 and finished == 0:
            return
        rate = finished / elapsed
        weight = min(1.0, elapsed)
        self.rate = rate if self.rate is None else self.rate + weight * (rate - self.rate)
        if self.bounded(self.size) < self.size:
            self.resize(self.size)
            self.kept_rate = 0.0  # it was another size's: no reason to hold this one back when things move again
            self.try_at = now

    def bounded(self, size: int) -> int:
        if self.rate is not None:
            size = min(size, int(self.rate * self.share_s))
        return max(1, min(size, self.ceiling))
