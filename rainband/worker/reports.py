"""Errors of user code, per component and throttled, for the next heartbeat. Pure: times come in."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from rainband.errors import described, sendable
from rainband.records import ErrorRecord

TRACEBACK_MAX = 8000


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
