"""`complete_topology`: run a whole topology to its end in virtual time, and look at what every component did."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rainband.config import Config
from rainband.errors import NotReached, UsageError
from rainband.local.cluster import SLOTS, LocalCluster, LocalRunning, Sources
from rainband.local.engine import Engine
from rainband.local.recording import EMITTED
from rainband.records import ErrorRecord, Statistics
from rainband.testing.watch import Stuck, Watch, frames_of
from rainband.topology.graph import Topology, checked
from rainband.worker.side import SideBoltTask, SideSpoutTask
from rainband.worker.wiring import LocalTask

TIMEOUT_S = 300.0
QUIET_S = 30.0
LOOK_S = 1.0
ERRORS_MAX = 10_000
LISTED_MAX = 5


class Completed:
    """What happened, by component id. Lists are in the order in which things happened."""

    def __init__(
        self,
        running: LocalRunning,
        statistics: Statistics,
        instances: Mapping[str, list[Any]],
        errors: tuple[ErrorRecord, ...],
    ) -> None:
        self._running = running
        self._instances = instances
        self._errors = errors
        events = running.events()
        self.statistics = statistics
        self.drained = statistics.drained
        """False when a spout never called `finish()`, and nothing happened any more."""
        self.seconds = events[-1].at if events else 0.0
        """Virtual seconds from the start to the last thing that happened."""

    def emitted(self, component: str, stream: str = "default") -> list[tuple[Any, ...]]:
        """Every tuple that the component emitted on one stream, replays included."""
        return self._running.emitted(component, stream)

    def executed(self, component: str) -> list[tuple[Any, ...]]:
        """The values of every tuple that the bolt was given."""
        return self._running.executed(component)

    def acked(self, component: str) -> list[Any]:
        """For a spout the message ids it was told are done; for a bolt the values of the tuples it acked."""
        return self._running.acked(component)

    def failed(self, component: str) -> list[Any]:
        """For a spout the message ids it was told have failed; for a bolt the values of the tuples it failed."""
        return self._running.failed(component)

    def errors(self, component: str | None = None) -> tuple[ErrorRecord, ...]:
        """The errors of user code, oldest first; of one component, if named. Empty with `raise_errors`."""
        self._running.check_component(component)
        return tuple([error for error in self._errors if component in (None, error.component)])

    def instances(self, component: str) -> list[Any]:
        """The instances of the component, one per task, after close and cleanup."""
        self._running.check_component(component)
        return self._instances[component]

    def __repr__(self) -> str:
        s = self.statistics
        return f"Completed({s.name!r}: acked {s.acked}, failed {s.failed}, {self.seconds:g} virtual s)"


def complete_topology(
    topology: Topology,
    sources: Sources | None = None,
    *,
    config: Mapping[str, object] | None = None,
    timeout_s: float = TIMEOUT_S,
    raise_errors: bool = True,
    check_values: bool = True,
    seed: int = 0,
    secrets: Mapping[str, str] | None = None,
) -> Completed:
    """Run a topology in virtual time until it is drained: every spout has called `finish()` and nothing is pending.

    `sources` puts rows in the place of spouts: `{"lines": [["a b"], ["a"]]}`, or `{"lines": {"default": [...], "bad":
    [...]}}` for several streams. `secrets` is what `TopologyContext.secret` finds. A spout that never finishes is left
    alone once nothing has happened for 30 virtual seconds. Raises the first error of user code, unless
    `raise_errors=False`: then failed tuples are replayed or given up as in production. Raises NotReached, naming what
    is not done, after `timeout_s` virtual seconds, or when one call has not returned for as many real seconds.
    """
    topology = checked(topology)
    workers = Config.layer(topology.plan.config, config or {})["topology.workers"]
    settings = {"topology.max.error.report.per.interval": ERRORS_MAX, **topology.plan.config, **(config or {})}
    with trial(
        timeout_s,
        seed=seed,
        raise_errors=raise_errors,
        check_values=check_values,
        slots=max(SLOTS, workers),
        secrets=secrets,
    ) as (cluster, watch):
        running = cluster.submit(topology, config=settings, sources=sources)
        return complete(cluster, watch, running, timeout_s)


@contextmanager
def trial(timeout_s: float, **settings: Any) -> Iterator[tuple[LocalCluster, Watch]]:
    """A cluster in virtual time that records, and ends a call that lasts for more than `timeout_s` real seconds.

    Raises NotReached for such a call, and UsageError when `timeout_s` is no such number.
    """
    check_timeout(timeout_s)
    engines: list[Engine] = []
    watch = Watch(timeout_s, Work(engines).done, lambda frame, seconds: stuck(engines[0], frame, seconds))
    try:
        with watch, LocalCluster(virtual_clock=True, record=True, **settings) as cluster:
            cluster.do(engines.append)
            yield cluster, watch
    except Stuck:
        raise NotReached(watch.told) from None


def check_timeout(timeout_s: object) -> None:
    """Raises UsageError for what is no time that could pass."""
    if not isinstance(timeout_s, int | float) or not timeout_s > 0:
        raise UsageError(f"timeout_s is {timeout_s!r:.80}", "Give a number of seconds above 0")


def complete(
    cluster: LocalCluster,
    watch: Watch,
    running: LocalRunning,
    timeout_s: float,
    afterwards: Callable[[], None] | None = None,
) -> Completed:
    """Let virtual time pass until the topology is drained, then stop the cluster and hand over what was seen."""
    topology_id = running.summary().topology_id
    end = cluster.now + timeout_s
    last, quiet_since = (0, 0), cluster.now
    while not cluster.run(LOOK_S, lambda engine: engine.drained(topology_id)):
        cluster.raise_error()
        if watch.told:
            raise Stuck
        work, busy = cluster.do(lambda engine: (work_done(engine, topology_id), is_busy(engine, topology_id)))
        if busy or work != last:
            last, quiet_since = work, cluster.now
        elif cluster.now - quiet_since >= QUIET_S:
            break
        if cluster.now >= end:
            raise NotReached(cluster.do(lambda engine: complaint(engine, running, topology_id, timeout_s)))
    if afterwards is not None:
        afterwards()
    completed = _completed(cluster, running)
    if watch.told:
        raise Stuck
    return completed


def _completed(cluster: LocalCluster, running: LocalRunning) -> Completed:
    components = [name for name in running.plan.components if not name.startswith("__")]
    instances = {name: running.instances(name) for name in components}
    statistics = running.statistics()
    cluster.do(lambda engine: engine.finish())
    errors = running.errors()
    cluster.raise_error()
    return Completed(running, statistics, instances, errors)


def tasks_of(engine: Engine, topology_id: str) -> Iterator[LocalTask]:
    """Every task that is alive."""
    for _, worker in engine.workers(topology_id):
        yield from worker.wiring.tasks.values()


def work_done(engine: Engine, topology_id: str) -> tuple[int, int]:
    """Tuples emitted and executed so far: changes as long as anything happens."""
    emitted = executed = 0
    for made in tasks_of(engine, topology_id):
        if made.spout is not None:
            emitted += int(made.spout.emitter.emitted)
        elif made.bolt is not None:
            emitted += int(made.bolt.emitter.emitted)
            executed += int(made.bolt.executed)
    return emitted, executed


class Work:
    """Says how far the calls of user code have come, as something that changes with each that returns.

    Emits do not count: a call that emits for ever is stuck as well. `engines`: none yet, or the one to look at.
    """

    def __init__(self, engines: list[Engine]) -> None:
        self._engines = engines
        self._seen = 0
        self._count = 0

    def done(self) -> tuple[int, int]:
        """Passes of the workers; tuples that were executed, acked or failed."""
        passes = 0
        for engine in self._engines:
            passes += sum(worker.passes for host in engine.hosts for _, worker in host.workers())
            for guest in list(engine.guests.values())[:1]:
                fresh = guest.recorder.events[self._seen :]
                self._seen += len(fresh)
                self._count += sum(event.kind != EMITTED for event in fresh)
        return passes, self._count


def stuck(engine: Engine, frame: FrameType | None, seconds: float) -> str:
    """What keeps all from being complete, in one line. `frame` is that of the user's function, if it is known."""
    names = ", ".join(guest.topology.name for guest in engine.guests.values())
    return f"'{names}' is not complete: {call_under_way(engine, frame)}, for {seconds:.0f} s"


def call_under_way(engine: Engine, frame: FrameType | None) -> str:
    """Which call has not returned: component, task, function and line, as far as they are known."""
    tasks = [made for host in engine.hosts for _, worker in host.workers() for made in worker.wiring.tasks.values()]
    instance = frame.f_locals.get("self") if frame is not None else None
    found = [made for made in tasks if made.instance is instance] or [
        made for made in tasks if (runner := made.bolt or made.spout) is not None and runner.emitter.active
    ]
    if not found:  # a blocking one has a thread of its own
        found, frame = next(calls_elsewhere(tasks), ([], frame))
    who = f"'{found[0].component}' task {found[0].task}" if found else "a component"
    where = "a call"
    if frame is not None:
        where = f"{frame.f_code.co_name}(), {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    return f"{who} has not returned from {where}"


def calls_elsewhere(tasks: list[LocalTask]) -> Iterator[tuple[list[LocalTask], FrameType | None]]:
    """The tasks that a thread is in a method of, with the frame of that."""
    for thread in list(sys._current_frames()):
        for frame in frames_of(thread):
            instance = frame.f_locals.get("self")
            for made in tasks:
                if made.instance is instance:
                    yield [made], frame


def is_busy(engine: Engine, topology_id: str) -> bool:
    """Whether something is still to come even if no spout emits any more: pending trees, replays, calls, restarts.

    A next_tuple that waits for something to emit is no such call.
    """
    if not engine.running(topology_id):
        return True
    tasks = list(tasks_of(engine, topology_id))
    waiting = sum(isinstance(made.spout, SideSpoutTask) and made.spout.pumping for made in tasks)
    if sum(worker.sides.in_flight for _, worker in engine.workers(topology_id)) > waiting:
        return True
    for made in tasks:
        if made.spout is not None and (made.spout.emitter.pending or (made.reliable and made.reliable.book.rows)):
            return True
        if made.bolt is not None and not made.bolt.idle:
            return True
    return False


def complaint(engine: Engine, running: LocalRunning, topology_id: str, timeout_s: float) -> str:
    """What keeps the topology from being complete, in one line."""
    statistics = running.statistics()
    reasons = []
    if statistics.slots_missing:
        reasons.append(f"{statistics.slots_missing} slots are missing")
    elif statistics.workers_running < statistics.workers_wanted:
        reasons.append(f"{statistics.workers_running} of {statistics.workers_wanted} workers run")
    for made in tasks_of(engine, topology_id):
        spout, name = made.spout, f"'{made.component}' task {made.task}"
        if spout is not None:
            finished = made.reliable.finished if made.reliable is not None else spout.finished
            if not finished:
                reasons.append(f"spout {name} has not called finish()")
            if spout.emitter.pending:
                ids = [tree.message_id for tree in spout.emitter.pending.trees()]
                reasons.append(f"{len(ids)} messages of spout {name} are pending, as {ids[0]!r:.80}")
            elif made.reliable is not None and made.reliable.book.rows:
                reasons.append(f"{len(made.reliable.book.rows)} messages of spout {name} wait to be replayed")
        elif isinstance(made.bolt, SideBoltTask) and made.bolt.in_flight:
            reasons.append(f"{made.bolt.in_flight} calls of bolt {name} have not returned")
        elif made.bolt is not None and not made.bolt.idle:
            reasons.append(f"bolt {name} has {made.bolt.queued} tuples queued")
    errors = [f"'{error.component}' task {error.task} raised {error.error}" for error in running.errors()]
    listed = "; ".join([*reasons[:LISTED_MAX], *errors[-LISTED_MAX:]])
    return f"'{running.name}' is not complete after {timeout_s:g} virtual seconds: {listed or 'it is still at work'}"
