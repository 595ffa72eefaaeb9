"""Is a silent worker slow, or dead? Decided from its progress counter and what the system says of its process.

A worker counts its passes in shared memory, so that no thread has to be scheduled for it to seem alive, and no busy
C call can make it seem dead. A worker is given up when its counter stands still and
- its process is stopped (SIGSTOP) for `timeout_s`: nothing but a signal will ever wake it, or
- it neither passes nor uses the CPU for `PATIENCE` times `timeout_s`: it waits for something that does not come.
A worker that computes for an hour in one call is slow, and left alone. A wait of one call on the network is forgiven
for longer than a stopped process, because user code may do it on purpose. Either is a standstill after `timeout_s`,
which is told once, so that somebody can look where the worker is.

Time during which nobody looked (this supervisor was stopped, the machine slept) does not count against the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

PATIENCE = 10.0
LOOKED_AWAY_S = 5.0
BUSY_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a worker: passes of its loop, CPU seconds of its process, and whether that is stopped."""

    passes: int
    cpu_s: float
    stopped: bool


class Pulse:
    """The verdict on one worker process. `timeout_s` is supervisor.worker.timeout.secs."""

    def __init__(self, timeout_s: float, now: float) -> None:
        self.timeout_s = timeout_s
        self.looked_at = now
        self.passed_at = now
        self.busy_at = now
        self.last: Sample | None = None
        self.told = False

    def look(self, sample: Sample, now: float) -> str:
        """Why the worker is to be given up, or '' while it is not."""
        gap = now - self.looked_at
        if gap > LOOKED_AWAY_S:
            self.passed_at += gap
            self.busy_at += gap
        last, self.last, self.looked_at = self.last, sample, now
        if last is None or sample.passes != last.passes:
            self.passed_at = self.busy_at = now
            self.told = False
        elif sample.cpu_s - last.cpu_s > BUSY_SHARE * gap:
            self.busy_at = now
        if sample.stopped and now - self.passed_at >= self.timeout_s:
            return f"stopped by a signal for {now - self.passed_at:.0f} s"
        if now - max(self.passed_at, self.busy_at) >= self.timeout_s * PATIENCE:
            return f"neither progress nor CPU use for {now - self.passed_at:.0f} s"
        return ""

    def standstill(self, now: float) -> str:
        """What is to be told of a worker that has been in one call for `timeout_s`, once each time; '' otherwise."""
        silent_s = now - self.passed_at
        if self.told or silent_s < self.timeout_s or self.last is None or self.last.stopped:
            return ""
        self.told = True
        doing = "computing" if now - self.busy_at < silent_s / 2 else "waiting"
        return f"in one call for {silent_s:.0f} s, {doing}: nothing else in its worker runs"
