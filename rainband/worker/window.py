"""How many trees of one spout task may be pending. Pure: counts and times in, a size out.

The window starts small and is tried at twice its size; it keeps the larger size as long as that brings more per
second (a round is over when as many roots were settled as the window held). Now and then it is tried at half its size
and at twice, in turn, and keeps half if that brings as much. So the queues stay as short as full speed allows, and
what is in them within the processor's caches. A small window needs no such proof: a few rounds of a few trees say
little. It is never larger than what completes within a third of the message timeout at the measured rate:
waiting in queues cannot turn into timeouts and replay storms. `topology.max.spout.pending` is its ceiling.
"""

from __future__ import annotations

START = 64
SMALL = 256  # a pass of the loop should be worth its while
ROUND_S = 0.05
GAIN = 0.03  # what twice the size must bring more to be kept
LOSS = -0.01  # what half the size may bring less
CLEAR = 0.2  # a difference that needs no second look
NEW = 0.1  # weight of the newest round in the rate of the size that is kept
TRIAL_ROUNDS = 5
PATIENCE_S = 1.0
REST = 20.0  # after half the size was not enough, in lengths of that trial
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
        self.trial_at = now
        self.trial_settled = 0
        self.trial_rounds = 1  # until the first that brings nothing: it grows fast then
        self.smaller = False  # the next trial is of half the size

    def held_back(self, now: float, settled: int) -> None:
        """The spout had more to emit than the window allowed; `settled` trees were acked or failed so far."""
        elapsed = now - self.round_at
        done = settled - self.round_settled
        if done < self.size or elapsed < ROUND_S:
            return
        self.round_at = now
        self.round_settled = settled
        self.rounds += 1
        rate = done / elapsed
        if self.size < SMALL:
            self.keep(2 * self.size, rate)
        elif self.size == self.kept_size:
            self.kept_rate = rate if self.kept_rate == 0.0 else self.kept_rate + NEW * (rate - self.kept_rate)
            if now >= self.try_at and self.rounds > 1:
                self.attempt(now)
        elif self.rounds == 1:  # which filled up, or drained
            self.trial_at = now
            self.trial_settled = settled
        else:
            self.judge(now, (settled - self.trial_settled) / (now - self.trial_at))

    def keep(self, size: int, rate: float) -> None:
        """Stay at `size`, which is known to bring `rate` (0: not known)."""
        self.size = self.kept_size = self.bounded(size)
        self.kept_rate = rate
        self.rounds = 0

    def attempt(self, now: float) -> None:
        """Try another size, if there is one in this direction."""
        self.trial_at = now
        size = self.bounded(max(SMALL, self.size // 2 if self.smaller else 2 * self.size))
        if size == self.size:
            self.turn(now)
        else:
            self.size = size
            self.rounds = 0

    def judge(self, now: float, rate: float) -> None:
        """Some rounds at the size on trial have brought `rate`."""
        change = rate / self.kept_rate - 1.0 if self.kept_rate > 0.0 else CLEAR
        if self.rounds <= self.trial_rounds and abs(change) < CLEAR:
            return
        if change >= (LOSS if self.smaller else GAIN):
            self.keep(self.size, rate)
            self.attempt(now)
        else:
            self.keep(self.kept_size, self.kept_rate)
            self.turn(now)

    def turn(self, now: float) -> None:
        """A rest, then the other direction."""
        self.try_at = now + max(PATIENCE_S, REST * (now - self.trial_at) if self.smaller else 0.0)
        self.trial_rounds = TRIAL_ROUNDS
        self.smaller = not self.smaller

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
            self.keep(self.size, 0.0)  # no reason to hold this one back when things move again
            self.smaller = False
            self.trial_rounds = 1
            self.try_at = now

    def bounded(self, size: int) -> int:
        if self.rate is not None:
            size = min(size, int(self.rate * self.share_s))
        return max(1, min(size, self.ceiling))
