"""One running topology, wherever it runs: what programs and tests hold in their hands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from rainband.clock import Clock, SystemClock
from rainband.errors import (
    ClusterUnavailable,
    NotReached,
    RainbandError,
    TopologyNotFound,
    TopologyUnreadable,
    UsageError,
)
from rainband.records import (
    Activate,
    Deactivate,
    ErrorRecord,
    Errors,
    GetErrors,
    GetStacks,
    GetStatistics,
    GetTopology,
    Kill,
    Rebalance,
    Request,
    Response,
    Stacks,
    Statistics,
    Status,
    TopologySummary,
    WorkerState,
)

POLL_FIRST_S = 0.01
POLL_MAX_S = 0.1
POLL_GROWTH = 1.5
AFTER_WAIT_S = 30.0
STACKS_S = 5.0
ERRORS_SHOWN = 3
CRASHES_MIN = 2

R = TypeVar("R", bound=Response)


class Control(Protocol):
    """Anything that carries a request to Nimbus. `call` raises the RainbandError that a Failure stands for."""

    def call(self, request: Request) -> Response: ...


def pause_really(seconds: float) -> None:
    """Let real time pass."""
    threading.Event().wait(seconds)


def seconds(wait_s: object) -> float | None:
    """A wait as given. Raises UsageError when it is no number."""
    if wait_s is None or (isinstance(wait_s, int | float) and not isinstance(wait_s, bool)):
        return wait_s
    raise UsageError(f"wait_s={wait_s!r:.60} is no number", "Write seconds, such as wait_s=5")


def whole(name: str, value: object) -> int | None:
    """A number of workers or executors as given. Raises UsageError when it is no whole number."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UsageError(f"{name}={value!r:.60} is no whole number", "Write a number without quotes, such as 3")


def counts(parallelism: object) -> dict[str, int]:
    """Executors per component as given. Raises UsageError for anything but whole numbers by name."""
    if parallelism is not None and not isinstance(parallelism, Mapping):
        raise UsageError(f"parallelism={parallelism!r:.60} is no mapping", "Write parallelism={'count': 4}")
    found = {str(name): whole(f"parallelism of '{name}'", value) for name, value in (parallelism or {}).items()}
    return {name: value for name, value in found.items() if value is not None}


class Running:
    """Handle of the topology `name`. Every method raises TopologyNotFound once it is gone, ClusterUnavailable when
    Nimbus does not answer.

    `pause(seconds)` is called between two looks at the cluster: it sleeps, or moves a virtual `clock`.
    """

    def __init__(
        self,
        name: str,
        control: Control,
        *,
        clock: Clock | None = None,
        pause: Callable[[float], None] = pause_really,
    ) -> None:
        self.name = name
        self._control = control
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._pause = pause

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def statistics(self) -> Statistics:
        """What it did so far; over the network as old as the last report of its workers, a second at most."""
        return self._call(GetStatistics(self.name), Statistics)

    def errors(self, component: str | None = None) -> tuple[ErrorRecord, ...]:
        """The newest errors of user code, oldest first; of one component, if named."""
        return self._call(GetErrors(self.name, component), Errors).errors

    def summary(self) -> TopologySummary:
        """Status, plan and assignment."""
        return self._call(GetTopology(self.name), TopologySummary)

    def wait_until(
        self,
        reached: Callable[[Statistics], object],
        timeout_s: float,
        complaint: str = "what was waited for did not happen",
    ) -> Statistics:
        """Wait until `reached(statistics)` is true and return those statistics.

        Raises NotReached, with `complaint` and the last statistics and errors, after `timeout_s` seconds. A Nimbus that
        is away for a while is waited for as well.
        """
        return self._wait(reached, timeout_s, complaint)

    def wait_running(self, timeout_s: float) -> Statistics:
        """Wait until every worker runs: all `open` and `prepare` have returned."""
        return self._wait(is_running, timeout_s, "not every worker runs")

    def wait_drained(self, timeout_s: float) -> Statistics:
        """Wait until every spout has called `finish()` and nothing is pending or queued any more."""
        return self._wait(lambda statistics: statistics.drained, timeout_s, "it is not drained")

    def activate(self) -> None:
        """Let the spouts go on."""
        self._control.call(Activate(self.name))

    def deactivate(self) -> None:
        """Pause the spouts; what is under way is finished."""
        self._control.call(Deactivate(self.name))

    def rebalance(
        self,
        workers: int | None = None,
        parallelism: Mapping[str, int] | None = None,
        wait_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Statistics:
        """Change the number of workers or of executors per component, or spread it anew; returns when that runs.

        Spouts pause until nothing is pending, `wait_s` seconds at most (default: the message timeout).
        Raises NotReached when it does not run within `timeout_s` (default: the wait and 30 s), UsageError for what is
        no number.
        """
        self._control.call(Rebalance(self.name, seconds(wait_s), whole("workers", workers), counts(parallelism)))
        if timeout_s is None:
            timeout_s = (self.summary().due_s or 0.0) + AFTER_WAIT_S
        return self._wait(
            lambda s: s.status != Status.REBALANCING and is_running(s), timeout_s, "the rebalance is not done"
        )

    def kill(self, wait_s: float | None = None, timeout_s: float | None = None) -> None:
        """Pause the spouts, wait until nothing is pending, `wait_s` seconds at most (default: the message timeout),
        and remove the topology; returns when it is removed.

        Raises NotReached when it is still there after `timeout_s` (default: the wait and 30 s); it goes on then.
        UsageError for a wait that is no number.
        """
        try:
            before = self.summary().topology_id
        except TopologyUnreadable:
            self._control.call(Kill(self.name, seconds(wait_s)))
            return
        self._control.call(Kill(self.name, seconds(wait_s)))
        try:
            if timeout_s is None:
                timeout_s = (self.summary().due_s or 0.0) + AFTER_WAIT_S
            self._wait(lambda s: s.topology_id != before, timeout_s, "it is still there")
        except TopologyNotFound:
            return

    def stacks(self, timeout_s: float = STACKS_S) -> dict[str, str]:
        """The Python stacks of all threads by worker ("host:port pid N"): of those that answer within `timeout_s`."""
        wanted = self.statistics().workers_running
        until = self._clock.now() + timeout_s
        while True:
            found = self._call(GetStacks(self.name), Stacks).stacks
            if len(found) >= wanted or self._clock.now() >= until:
                return found
            self._pause(POLL_MAX_S)

    def _call(self, request: Request, kind: type[R]) -> R:
        answer = self._control.call(request)
        if not isinstance(answer, kind):
            raise RainbandError(f"Nimbus answered {type(request).__name__} with {type(answer).__name__}")
        return answer

    def _wait(self, reached: Callable[[Statistics], object], timeout_s: float, complaint: str) -> Statistics:
        until = self._clock.now() + timeout_s
        interval_s = POLL_FIRST_S
        while True:
            away: ClusterUnavailable | None = None
            try:
                statistics = self.statistics()
                if reached(statistics):
                    return statistics
            except ClusterUnavailable as error:
                away = error
            left_s = until - self._clock.now()
            if left_s <= 0:
                if away is not None:
                    raise away
                raise self._not_reached(complaint, timeout_s, statistics)
            self._pause(min(interval_s, left_s))
            interval_s = min(POLL_MAX_S, interval_s * POLL_GROWTH)

    def _not_reached(self, complaint: str, timeout_s: float, statistics: Statistics) -> NotReached:
        message = f"{self.name}: {complaint} within {timeout_s:g} s ({describe(statistics)})"
        errors = self.errors()[-ERRORS_SHOWN:]
        if errors:
            message += "; last errors: " + "; ".join(f"{e.component} task {e.task}: {e.error}" for e in errors)
        return NotReached(message)


def is_running(statistics: Statistics) -> bool:
    """Whether all workers that were asked for run."""
    return statistics.workers_running == statistics.workers_wanted and statistics.status != Status.WAITING


def crash_loop(s: Statistics) -> str:
    """Why a worker is down that was restarted more than once already, '' when none is."""
    down = [w for w in s.workers if w.note and w.restarts >= CRASHES_MIN and w.state is not WorkerState.RUNNING]
    return max(down, key=lambda worker: worker.restarts).note if down else ""


def status_text(s: Statistics) -> str:
    """Its status for people: `ACTIVE`, or `ACTIVE CRASHING` while workers of it crash again and again."""
    return f"{s.status} CRASHING" if crash_loop(s) else str(s.status)


def describe(s: Statistics) -> str:
    """One line of the numbers that explain why something was not reached."""
    text = f"{status_text(s)}, {s.workers_running} of {s.workers_wanted} workers"
    if s.slots_missing:
        text += f", {s.slots_missing} slots missing"
    text += f", emitted {s.emitted}, acked {s.acked}, failed {s.failed}, pending {s.pending}"
    queued = sum(component.queued for component in s.components.values())
    return text + f", queued {queued}, errors {s.errors}, restarts {s.restarts}"
