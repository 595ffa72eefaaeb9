"""How many trees of one spout task may be pending. Pure: counts and times in, a size out.

The window starts small and is tried at twice its size; it keeps the larger size as long as that brings more per
second (a round is over when as many roots were settled as the window held). Now and then it is tried at half its size
and at twice, in turn, and keeps half if that brings as much. So the queues stay as short as full speed allows, and
what is in them within the processor's caches. A small window needs no such proof: a few rounds of a few trees say
little. Nor does one that held the spout back although it had run dry a moment before: what came in then sets the rate,
not the window, and waits for nothing if it is let in at once. One that is never reached, since back-pressure holds the
spout back before, is cut to what was pending, and tried at half of that. `topology.max.spout.pending` is its ceiling.

Waiting in queues must not turn into timeouts and replay storms: the window does not grow beyond what completes in a
third of the message timeout at the measured rate, and is cut back to that when it holds more. The rate is taken over
more than twice the latency of a tree, since trees may complete in bursts. Trees that take long however few are pending
are borne: the window is cut when they take half as long again, or two thirds of the timeout.

A bolt may wait for more tuples before it acks any: a batch, a join. So while nothing has completed since the start, or
since everything timed out, and no tuple waits for a bolt in this worker, the window doubles every sixth of the
timeout; and a trial of half the size that brings silence is given up.
"""

from __future__ import annotations

from collections import deque

START = 64
SMALL = 256  # a pass of the loop should be worth its while
ROUND_S = 0.05
GAIN = 0.04  # what twice the size must bring more to be kept
LOSS = -0.03  # what half the size may bring less
CLEAR = 0.2  # a difference that needs no second look
NEW = 0.1  # weight of the newest round in the rate of the size that is kept
TRIAL_ROUNDS = 8
PATIENCE_S = 1.0
REST = 20.0  # after half the size was not enough, in lengths of that trial
MEASURE_S = 0.25
HORIZON_S = 1.0  # the rate is taken over this, or over SPAN latencies of a tree
SPAN = 2.5  # has two bursts in it, even if they are a quarter further apart than a tree takes
SLACK = 1.5  # how much longer than its lowest latency a tree may take, when that is long
REMEMBERED = 10  # for how long the lowest latency is known, in message timeouts


class Window:
    """`size` is the number of trees that may be pending, at least 1."""

    def __init__(self, ceiling: int, timeout_s: float, now: float) -> None:
        assert ceiling >= 1
        self.ceiling = ceiling
        self.timeout_s = timeout_s
        self.share_s = timeout_s / 3
        self.size = min(START, ceiling)
        self.rate: float | None = None
        self.certain = False  # the rate was taken over long enough to cut by, not only to stop growing
        self.measured_at = now
        self.past: deque[tuple[float, int]] = deque([(now, 0)])  # how many had settled when
        self.acked = 0
        self.complete_s = 0.0
        self.timed_out = 0
        self.latency_s = 0.0
        self.lowest_s = [float("inf"), float("inf")]  # in this period and in the last
        self.period_at = now
        self.quiet_at = now
        self.proved = False  # something has completed since the start, or since everything timed out
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
        self.dry = False  # in this round the spout had nothing to emit, and half of the window was free
        self.free_at = now  # when anything but back-pressure last held the spout back
        self.most = 0  # pending since then

    def had_nothing(self, now: float, pending: int) -> None:
        """The spout had nothing to emit while `pending` trees were pending."""
        self.dry = self.dry or 2 * pending <= self.size
        self.free(now)

    def gate_shut(self, now: float, pending: int) -> None:
        """Back-pressure held the spout back while `pending` trees were pending."""
        self.most = max(self.most, pending)
        if now - self.free_at >= PATIENCE_S and self.most < self.size:
            self.keep(max(min(SMALL, self.size), self.most), 0.0)
            self.smaller = True
            self.free(now)

    def free(self, now: float) -> None:
        """Not back-pressure, but the window or the source held the spout back."""
        self.free_at = now
        self.most = 0

    def held_back(self, now: float, settled: int) -> None:
        """The spout had more to emit than the window allowed; `settled` trees were acked or failed so far."""
        self.free(now)
        elapsed = now - self.round_at
        done = settled - self.round_settled
        if done < self.size or elapsed < ROUND_S:
            return
        self.round_at = now
        self.round_settled = settled
        self.rounds += 1
        rate = done / elapsed
        dry, self.dry = self.dry, False
        if dry:
            self.keep(self.bounded(2 * max(self.size, self.kept_size)), 0.0)
            self.smaller = True
        elif self.size < SMALL:
            self.keep(self.bounded(2 * self.size), rate)
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
        self.size = self.kept_size = size
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
        """A rest, then the other direction; or the same once more, if it was given but a short look."""
        self.try_at = now + max(PATIENCE_S, REST * (now - self.trial_at) if self.smaller else 0.0)
        self.smaller = not self.smaller and self.trial_rounds == TRIAL_ROUNDS
        self.trial_rounds = TRIAL_ROUNDS

    def measure(
        self, now: float, settled: int, pending: int, acked: int = 0, complete_s: float = 0.0, timed_out: int = 0,
        queued: bool = False,
    ) -> None:  # fmt: skip
        """Take rate and latency; call it now and then. Idle time says nothing about either.

        Counts since the start: `settled` trees acked or failed in time, `acked` ones, which took `complete_s` in all,
        `timed_out` ones. `queued`: a tuple waits for its bolt in this worker.
        """
        if now - self.measured_at < MEASURE_S:
            return
        self.measured_at = now
        finished = settled - self.past[-1][1]
        first = finished > 0 and not self.proved
        if first or (pending == 0 and finished == 0):
            self.past.clear()
        if finished > 0 or pending < self.size:
            self.quiet_at = now
            self.proved = self.proved or finished > 0
        self.past.append((now, settled))
        if first:  # it waited for the window to grow, which says nothing of what comes now
            self.acked = acked
            self.complete_s = complete_s
        self.take_latency(now, acked, complete_s)
        self.take_rate(now)
        if timed_out > self.timed_out:
            self.timed_out = timed_out
            self.give_way(now)
        elif self.rate is not None and self.certain and self.size > self.rate * self.most_s:
            self.cut(self.rate * self.share_s, now)
        elif now > self.quiet_at:
            self.be_quiet(now, queued)

    @property
    def most_s(self) -> float:
        """The latency that is borne before the window is cut."""
        return min(2 * self.share_s, max(self.share_s, SLACK * min(self.lowest_s)))

    def take_latency(self, now: float, acked: int, complete_s: float) -> None:
        """The mean latency of the trees acked since the last call."""
        if now - self.period_at >= REMEMBERED * self.timeout_s:
            self.period_at = now
            self.lowest_s = [float("inf"), self.lowest_s[0]]
        if acked > self.acked:
            self.latency_s = (complete_s - self.complete_s) / (acked - self.acked)
            self.lowest_s[0] = min(self.lowest_s[0], self.latency_s)
        self.acked = acked
        self.complete_s = complete_s

    def take_rate(self, now: float) -> None:
        """Completions per second over some latencies; as before while none are seen."""
        horizon_s = min(max(HORIZON_S, SPAN * self.latency_s), 2 * self.timeout_s)
        at, before = next((moment for moment in reversed(self.past) if moment[0] <= now - horizon_s), self.past[0])
        done = self.past[-1][1] - before
        self.certain = now - at >= horizon_s
        if done > 0:
            self.rate = done / (now - at)
        while self.past[0][0] < now - 2 * self.timeout_s - MEASURE_S:
            self.past.popleft()

    def give_way(self, now: float) -> None:
        """Trees have timed out: hold what would complete in a third of the timeout, going by the whole of it."""
        since, before = next(moment for moment in self.past if moment[0] >= now - self.timeout_s)
        done = self.past[-1][1] - before
        if done == 0:
            self.rate = None
            self.proved = False
        self.cut(done / max(self.timeout_s, now - since) * self.share_s, now)

    def cut(self, size: float, now: float) -> None:
        """Hold no more than `size`, and at least one; it may grow again at once."""
        self.keep(max(1, min(self.size, int(size))), 0.0)
        self.smaller = False
        self.trial_rounds = 1
        self.try_at = self.quiet_at = now

    def be_quiet(self, now: float, queued: bool) -> None:
        """All that may be is pending, and nothing completes: a bolt may wait for more."""
        quiet_s = now - self.quiet_at
        if self.size < self.kept_size and quiet_s >= max(HORIZON_S, SPAN * self.latency_s):
            self.keep(self.kept_size, self.kept_rate)
            self.turn(now)
            self.quiet_at = now
        elif not self.proved and not queued and quiet_s >= self.timeout_s / 6:
            self.keep(min(2 * self.size, self.ceiling), 0.0)
            self.quiet_at = now

    def bounded(self, size: int) -> int:
        """`size`; but up to the ceiling, and not larger than now beyond what completes in a third of the timeout."""
        if self.rate is not None and size > self.size:
            size = max(self.size, min(size, int(self.rate * self.share_s)))
        return min(size, self.ceiling)
