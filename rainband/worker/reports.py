"""What a worker has to say: errors of user code, per component and throttled, for the next heartbeat; calls that take
too long or do not come back; peers that do not answer. Pure: times come in.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rainband.errors import described, sendable
from rainband.messaging.link import Link
from rainband.records import ErrorRecord
from rainband.worker.emit import ManualEmitter
from rainband.worker.side import SideBoltTask
from rainband.worker.tasks import SLOW_CALL_S

if TYPE_CHECKING:
    from rainband.worker.wiring import LocalTask

TRACEBACK_MAX = 8000
LOOKS = 16


class ErrorReports:
    """At most `limit` records per `interval_s` and component; what is over is counted onto the last one of it."""

    def __init__(self, host: str, port: int, config: Mapping[str, Any]) -> None:
        self.host = host
        self.port = port
        self.interval_s: float = config["topology.error.throttle.interval.secs"]
        self.limit: int = config["topology.max.error.report.per.interval"]
        self.total: dict[int, int] = {}
        self.fresh: list[ErrorRecord] = []
        self.recent: dict[str, list[float]] = {}
        self.suppressed: dict[str, int] = {}

    def add(self, component: str, task: int, error: BaseException, tup: str, now: float, wall: float) -> None:
        self.total[task] = self.total.get(task, 0) + 1
        times = [at for at in self.recent.get(component, []) if at > now - self.interval_s]
        self.recent[component] = times
        if len(times) >= self.limit:
            self.suppressed[component] = self.suppressed.get(component, 0) + 1
            return
        times.append(now)
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        text = sendable(trace)[-TRACEBACK_MAX:]
        message = described(error)
        count = 1 + self.suppressed.pop(component, 0)
        self.fresh.append(ErrorRecord(component, task, self.host, self.port, wall, message[:2000], text, tup, count))

    def take(self) -> tuple[ErrorRecord, ...]:
        """Records since the last call."""
        fresh = tuple(self.fresh)
        self.fresh = []
        return fresh


class SlowCalls:
    """Names each component once whose calls keep everything else in their worker waiting."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def look(self, tasks: Iterable[LocalTask]) -> list[str]:
        """A line, with the fix, for each component that had a call over 100 ms and was not named yet."""
        lines = []
        for made in tasks:
            runner = made.bolt or made.spout
            if runner is not None and runner.slow_s > SLOW_CALL_S and made.component not in self._told:
                self._told.add(made.component)
                lines.append(
                    f"component '{made.component}', task {made.task}: a call took {runner.slow_s:.1f} s, in which "
                    "nothing else in its worker ran. Set blocking = True on its class, or make the call async def"
                )
        return lines


class Standstills:
    """Finds the bolts beside the loop none of whose calls comes back: each once, until one does."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._told: dict[int, float] = {}

    def look(self, tasks: Iterable[LocalTask], now: float) -> list[tuple[LocalTask, str]]:
        """Each with what is to be said of it."""
        found = []
        for made in tasks:
            bolt = made.bolt
            if not isinstance(bolt, SideBoltTask) or bolt.in_flight == 0 or now < bolt.back_at + self.patience_s:
                continue
            if self._told.get(made.task) != bolt.back_at:
                self._told[made.task] = bolt.back_at
                calls = f"{bolt.in_flight} calls under way have" if bolt.in_flight > 1 else "a call under way has"
                found.append((made, f"{calls} not come back for {now - bolt.back_at:.0f} s"))
        return found


class Leaks:
    """Finds the components that leave tuples neither acked nor failed for longer than `timeout_s`: each once.

    Of the tuples that a task had taken by then, no more can be settled than all that are by now: the rest is held. What
    starts timeouts anew holds its tuples on purpose.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._taken: dict[int, deque[tuple[float, int]]] = {}
        self._told: set[str] = set()

    def look(self, tasks: Iterable[LocalTask], now: float) -> list[tuple[LocalTask, str]]:
        """Each with what is to be said of it."""
        found = []
        for made in tasks:
            emitter = made.bolt.emitter if made.bolt is not None else None
            if made.bolt is None or not isinstance(emitter, ManualEmitter) or made.component in self._told:
                continue
            taken = self._taken.setdefault(made.task, deque())
            if taken and made.bolt.executed < taken[-1][1]:
                taken.clear()  # the task was elsewhere meanwhile
            if not taken or now >= taken[-1][0] + self.timeout_s / LOOKS:
                taken.append((now, int(made.bolt.executed)))
            while len(taken) > 1 and taken[1][0] <= now - self.timeout_s:
                taken.popleft()
            at, before = taken[0]
            held = before - int(emitter.acked + emitter.failed)
            if at <= now - self.timeout_s and held > 0 and emitter.resets == 0:
                self._told.add(made.component)
                tuples = "tuples were" if held > 1 else "tuple was"
                text = f"{held} {tuples} neither acked nor failed within {self.timeout_s:g} s"
                found.append((made, f"{text}: a ManualBolt does so with each"))
        return found


class Silences:
    """Tells of peers that do not answer while something waits for them, and of their return: a line each."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._heard: dict[str, tuple[int, float]] = {}
        self._silent: dict[str, float] = {}

    def look(self, links: Mapping[str, Link], now: float) -> list[str]:
        """What has changed since the last look. `links` by address."""
        lines = []
        for address, link in links.items():
            frames, since = self._heard.get(address, (-1, now))
            if frames != link.frames_received or not (link.retained or link.queued):
                self._heard[address] = link.frames_received, now
                if address in self._silent:
                    lines.append(f"the worker at {address} answers again after {now - self._silent.pop(address):.0f} s")
            elif now >= since + self.patience_s and address not in self._silent:
                self._silent[address] = since
                waiting = link.outstanding_bytes + link.queued_bytes
                lines.append(
                    f"the worker at {address} has not answered for {now - since:.0f} s: "
                    f"{waiting:,} bytes for it are kept until it does, or is replaced"
                )
        for known in (self._heard, self._silent):
            for address in known.keys() - links.keys():
                del known[address]
        return lines
