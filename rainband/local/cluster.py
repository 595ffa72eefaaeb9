"""`LocalCluster`: what tests and `rainband local` hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import randbits
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from rainband.clock import SystemClock, VirtualClock
from rainband.errors import TopologyNotFound, UsageError, did_you_mean
from rainband.local.drivers import Driver, ThreadDriver, VirtualDriver
from rainband.local.engine import Engine, Guest, Wishes
from rainband.local.recording import ACKED, EMITTED, EXECUTED, FAILED, Event
from rainband.nimbus.running import Running
from rainband.records import Request, Response, Slot
from rainband.topology.graph import Topology, checked
from rainband.topology.secrets import Secrets
from rainband.topology.streams import DEFAULT

if TYPE_CHECKING:
    from rainband.local.processes import ProcessCluster
    from rainband.topology.plan import Plan

R = TypeVar("R")

SUPERVISORS, SLOTS = 2, 16

Sources = Mapping[str, Any]
"""Rows by spout id: a list of rows for the default stream, or such lists by stream."""


class LocalCluster:
    """A cluster on this machine, for trying things out and for tests. Use with `with`.

    As it is, it runs in this process on a background thread. `virtual_clock=True`: in the caller's thread, in virtual
    time that passes in `advance` and in the waits of what `submit` returns; the same `seed` and calls give the same
    run. There each call of a spout takes 1 ms, and all other code no time. `processes=True`: the real daemons and
    workers on loopback, in a directory of their own.

    `record` keeps what every component emits and executes; `raise_errors` raises the first error of user code from the
    next call of this cluster or of what it runs; `check_values` passes every emitted value through the codec and finds
    those that are changed afterwards. None of the three works with processes. `supervisors` with `slots` each;
    `config` are settings of the daemons. `secrets`: what `TopologyContext.secret` finds, by name, or the directory
    where it lies as files; beside it, RAINBAND_SECRET_* of this process.
    """

    def __init__(
        self,
        *,
        processes: bool = False,
        virtual_clock: bool = False,
        seed: int | None = None,
        record: bool = False,
        raise_errors: bool = False,
        check_values: bool = True,
        supervisors: int = SUPERVISORS,
        slots: int | None = None,
        config: Mapping[str, object] | None = None,
        secrets: Mapping[str, str] | Path | str | None = None,
    ) -> None:
        if processes and (virtual_clock or record or raise_errors or seed is not None):
            raise UsageError(
                "processes=True has no virtual_clock, seed, record or raise_errors: its workers are other processes",
                "Leave them out, or leave out processes",
            )
        check_shape(supervisors, slots, seed)
        if seed is not None and not virtual_clock:
            raise UsageError("seed= needs virtual_clock=True: in real time no two runs are alike", "Set it, or no seed")
        self.virtual = virtual_clock
        self._processes: ProcessCluster | None = None
        self._driver: Driver | None = None
        self._closed = False
        if processes:
            from rainband.local.processes import ProcessCluster

            self._processes = ProcessCluster(supervisors, slots, config or {}, secrets)
            return
        wishes = Wishes(virtual_clock, raise_errors, check_values, record)
        count = SLOTS if slots is None else slots
        found = Secrets.here(secrets)
        if virtual_clock:
            clock = VirtualClock()
            engine = Engine(clock, seed or 0, wishes, supervisors, count, config or {}, found)
            self._driver = VirtualDriver(engine, clock)
        else:
            engine = Engine(SystemClock(), randbits(62), wishes, supervisors, count, config or {}, found)
            self._driver = ThreadDriver(engine)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(quiet=error is not None)

    def submit(
        self,
        topology: Topology,
        *,
        config: Mapping[str, object] | None = None,
        sources: Sources | None = None,
        name: str | None = None,
        active: bool = True,
    ) -> LocalRunning:
        """Start a topology. `config` goes over its own settings, `sources` puts rows in the place of spouts.

        Raises InvalidTopology, InvalidConfig or TopologyExists.
        """
        self._check_open()
        topology = checked(topology)
        if sources:
            topology = topology.with_sources(sources)
        changed = {**(config or {}), **({} if name is None else {"topology.name": name})}
        if changed:
            topology = topology.with_config(changed)
        if self._processes is not None:
            return LocalRunning(self, self._processes.submit(topology, active))
        self.do(lambda engine: engine.submit(topology, active=active))
        return LocalRunning(self, topology.name)

    def topology(self, name: str) -> LocalRunning:
        """The running topology of that name. Raises TopologyNotFound."""
        running = LocalRunning(self, name)
        running.summary()
        return running

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; all that is due by then is done. Raises UsageError without a virtual clock."""
        if seconds < 0:
            raise UsageError(f"time runs forward only, not by {seconds} s")
        self.run(seconds)
        self.do(lambda engine: engine.verify())
        self.raise_error()

    def run(self, seconds: float, until: Callable[[Engine], bool] | None = None) -> bool:
        """As `advance`, but ends early, with True, when `until(engine)` is true, and before an error is raised."""
        self._check_open()
        driver = self._driver
        if not isinstance(driver, VirtualDriver):
            raise UsageError("this cluster runs in real time", "Use LocalCluster(virtual_clock=True), or wait_until")
        return driver.advance(seconds, None if until is None else lambda: until(driver.engine))

    @property
    def now(self) -> float:
        """The cluster's time in seconds; virtual time starts at 0."""
        return self.clock.now()

    @property
    def clock(self) -> VirtualClock | SystemClock:
        return self._driver.clock if isinstance(self._driver, VirtualDriver) else SystemClock()

    def kill_worker(
        self, component: str | None = None, *, port: int | None = None, topology: str | None = None
    ) -> Slot:
        """kill -9 the worker on `port`, or one that runs `component`, or any; returns where it was. It is replaced.

        Nothing of it is closed, and what it held is lost. Raises UsageError when there is no such worker.
        """
        self._check_open()
        if self._processes is not None:
            return self._processes.kill_worker(component, port, topology)
        return self.do(lambda engine: _kill_worker(engine, component, port, topology))

    def kill_host(self, name: str = "local-2") -> None:
        """A whole machine is gone: its supervisor and its workers. Nimbus moves its work after 30 s."""
        self._check_open()
        if self._processes is not None:
            raise UsageError("kill_host works in this process only")
        self.do(lambda engine: engine.kill_host(name))

    def call(self, request: Request) -> Response:
        """Nimbus's answer to a request. Raises the RainbandError it stands for, and errors of user code if wished."""
        self._check_open()
        if self._processes is not None:
            return self._processes.call(request)
        self.raise_error()
        answer = self.do(lambda engine: engine.call(request))
        self.raise_error()
        return answer

    def pause(self, seconds: float) -> None:
        """Let time pass, of whichever kind this cluster has."""
        if self._driver is not None:
            self._driver.pause(seconds)
        else:
            assert self._processes is not None
            self._processes.pause(seconds)

    def do(self, function: Callable[[Engine], R]) -> R:
        """Run a function where nothing else touches the engine. Not with processes."""
        if self._driver is None:
            raise UsageError("what its workers hold cannot be seen with processes=True")
        return self._driver.do(function)

    def guest(self, name: str) -> Guest:
        """What this cluster knows of a topology beyond Nimbus, also after its end. Raises TopologyNotFound."""

        def find(engine: Engine) -> Guest:
            found = [guest for guest in engine.guests.values() if guest.topology.name == name]
            if not found:
                names = [guest.topology.name for guest in engine.guests.values()]
                raise TopologyNotFound(f"no topology {name!r} was submitted", did_you_mean(name, names))
            return found[-1]

        return self.do(find)

    def raise_error(self) -> None:
        """Raise the first error of user code that nobody has seen yet, if errors are to be raised."""
        if self._driver is not None and self._driver.engine.raised:
            raised = self._driver.engine.raised
            error, raised[:] = raised[0], []
            raise error

    def close(self, quiet: bool = False) -> None:
        """Close every component and stop. Unless `quiet`, raises what `raise_error` would. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._processes is not None:
            self._processes.close()
            return
        assert self._driver is not None
        try:
            self._driver.do(lambda engine: engine.finish())
        finally:
            self._driver.stop()
        if not quiet:
            self.raise_error()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this LocalCluster is closed", "Use it inside its `with`")


class LocalRunning(Running):
    """A topology in a LocalCluster: what `Running` offers, and with `record=True` what every component did."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        super().__init__(name, cluster, clock=cluster.clock, pause=cluster.pause)
        self._cluster = cluster

    @property
    def plan(self) -> Plan:
        """The topology's plan as it was submitted."""
        return self._cluster.guest(self.name).topology.plan

    def check_component(self, component: str | None) -> None:
        """Raises UsageError for a name that no component has; None is fine."""
        known = [name for name in self.plan.components if not name.startswith("__")]
        if component is not None and component not in known:
            raise UsageError(f"no component {component!r}", did_you_mean(component, known) or f"There is {known}")

    def emitted(self, component: str, stream: str = "default") -> list[tuple[Any, ...]]:
        """Every tuple that the component emitted on one stream, in order, replays included."""
        events = self._events(EMITTED, component)
        streams = self.plan.components[component].streams
        if stream not in streams and (streams or stream != DEFAULT):
            fix = did_you_mean(stream, streams) or f"There is {sorted(streams)}"
            raise UsageError(f"{component!r} declares no stream {stream!r}", fix)
        return [event.subject for event in events if event.stream == stream]

    def executed(self, component: str) -> list[tuple[Any, ...]]:
        """The values of every tuple that the bolt was given, in order."""
        events = self._events(EXECUTED, component)
        if self.plan.components[component].kind == "spout":
            raise UsageError(f"{component!r} is a spout and executes nothing", "Look at what it emitted")
        return [event.subject for event in events]

    def acked(self, component: str) -> list[Any]:
        """For a spout the message ids it was told are done; for a bolt the values of the tuples it acked."""
        return [event.subject for event in self._events(ACKED, component)]

    def failed(self, component: str) -> list[Any]:
        """For a spout the message ids it was told have failed; for a bolt the values of the tuples it failed."""
        return [event.subject for event in self._events(FAILED, component)]

    def instances(self, component: str) -> list[Any]:
        """The living instances of a component, one per task: to look at."""
        self.check_component(component)
        topology_id = self.summary().topology_id

        def look(engine: Engine) -> list[Any]:
            found = {
                task: made.instance
                for _, worker in engine.workers(topology_id)
                for task, made in worker.wiring.tasks.items()
                if made.component == component
            }
            return [found[task] for task in sorted(found)]

        return self._cluster.do(look)

    def events(self) -> list[Event]:
        """Everything recorded so far, in order."""
        recorder = self._cluster.guest(self.name).recorder
        if not recorder.record:
            raise UsageError("nothing was recorded", "Use LocalCluster(record=True)")
        return list(recorder.events)

    def _events(self, kind: str, component: str) -> list[Event]:
        events = self.events()
        self.check_component(component)
        return [event for event in events if event.kind == kind and event.component == component]


def check_shape(supervisors: object, slots: object, seed: object) -> None:
    """Raises UsageError unless there is a slot to run on, and `seed` is a whole number or None."""
    for name, value in ("supervisors", supervisors), ("slots", 1 if slots is None else slots):
        if not is_whole(value) or value < 1:
            raise UsageError(f"LocalCluster: {name} is {value!r:.80}", "Give a whole number from 1 up")
    if seed is not None and not is_whole(seed):
        raise UsageError(f"LocalCluster: seed is {seed!r:.80}", "Give a whole number, or None")


def is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _kill_worker(engine: Engine, component: str | None, port: int | None, topology: str | None) -> Slot:
    """The first worker, by slot, that fits."""
    for topology_id, guest in engine.guests.items():
        if topology not in (None, topology_id, guest.topology.name):
            continue
        for slot, worker in engine.workers(topology_id):
            runs = {placement.executor.component for placement in worker.assignment.on(slot)}
            if (component is None or component in runs) and port in (None, slot.port):
                engine.kill_worker(slot)
                return slot
    wanted = f"runs {component!r}" if component is not None else f"is on port {port}" if port else "is there"
    raise UsageError(f"no worker {wanted}")
