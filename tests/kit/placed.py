"""Worker processes started by hand: a test says which executor runs where, at which address, in which namespace.

No Nimbus and no supervisor: `PlacedWorkers` makes the home they start from and listens to their beats itself.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import ModuleType, TracebackType
from typing import Any

from rainband.messaging.control import Beat, ControlServer
from rainband.messaging.keys import Keys
from rainband.records import Assignment, ErrorRecord, Placement, Slot, Status, WorkerBeat, WorkerState
from rainband.supervisor import ports, processes
from rainband.topology.bundle import open_bundle, pack
from rainband.topology.graph import Topology
from rainband.topology.home import PLAN, home_of, write_assignment, write_control, write_file

PROJECT = Path(__file__).resolve().parents[1] / "integration" / "project"
LOOPBACK = "127.0.0.1"
LONG = bool(os.environ.get("RAINBAND_LONG"))
POLL_S = 0.05


def project_module(name: str) -> ModuleType:
    """A module of tests/integration/project under its own name, as workers will find it in their bundle."""
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, PROJECT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def draw_places(topology: Topology, workers: int, random: Random) -> list[int]:
    """A worker for each executor, at random, none without any."""
    executors = len(topology.plan.executors())
    places = [*range(workers), *(random.randrange(workers) for _ in range(executors - workers))]
    random.shuffle(places)
    return places


class PlacedWorkers:
    """The workers of one topology; executor i runs in worker places[i]. Use as a context manager: none is left.

    Worker i listens on hosts[i] and its command line is preceded by prefixes[i] (`ip netns exec ...`). With `hosts`
    they have keys. Beats come over loopback, so not from another network namespace: then `beats` stays empty.
    """

    def __init__(
        self,
        directory: Path,
        topology: Topology,
        places: Sequence[int],
        *,
        hosts: Sequence[str] = (),
        prefixes: Sequence[Sequence[str]] = (),
    ) -> None:
        self.directory = directory
        self.topology = topology
        count = max(places) + 1
        self.keys = directory / "keys" if hosts else None
        hosts = hosts or [LOOPBACK] * count
        self.prefixes = prefixes or [()] * count
        chosen = ports.choose(count, LOOPBACK)
        self.slots = [Slot(f"host-{hosts[number]}", chosen[number]) for number in range(count)]
        placements = tuple(
            Placement(executor, self.slots[at], 1)
            for executor, at in zip(topology.plan.executors(), places, strict=True)
        )
        addresses = {slot.supervisor: host for slot, host in zip(self.slots, hosts, strict=True)}
        self.assignment = Assignment(f"{topology.name}-1", 1, Status.ACTIVE, placements, addresses)
        self.children: list[processes.Process] = []
        self.beats: dict[int, WorkerBeat] = {}
        self.errors: list[ErrorRecord] = []
        self.control = ControlServer()

    def __enter__(self) -> PlacedWorkers:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        token = secrets.token_hex()
        topologies = self.directory / "topologies"
        home = home_of(topologies, self.assignment.topology_id)
        topologies.mkdir(parents=True)
        plan, bundle = pack(self.topology, PROJECT)
        open_bundle(bundle, home)
        write_assignment(home, self.assignment)
        write_file(home / PLAN, plan.encode())
        write_control(topologies, self.control.address, token)
        if self.keys is not None:
            Keys.generate().save(self.keys)
        for slot, prefix in zip(self.slots, self.prefixes, strict=True):
            self.control.admit(slot.port, token)
            argv = [*prefix, *processes.worker_command(home, slot, self.log(slot), 30.0, keys=self.keys)]
            output = self.directory / f"output-{slot.port}.log"
            started = processes.start(argv, cwd=self.directory, log=output, env=processes.environment())
            self.children.append(started)

    def log(self, slot: Slot) -> Path:
        return self.directory / f"worker-{slot.port}.log"

    def logs(self) -> str:
        """The end of what every worker wrote."""
        found = sorted(self.directory.glob("*-[0-9]*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in found)

    def look(self, timeout_s: float = POLL_S) -> None:
        """Take in beats; a worker that has ended is an AssertionError."""
        for port, _, message in self.control.poll(timeout_s):
            if isinstance(message, Beat):
                self.beats[port] = message.beat
                self.errors += message.beat.errors
        ended = [child.pid for child in self.children if not child.alive()]
        assert not ended, f"workers {ended} ended: {self.logs()}"

    def wait(self, condition: Callable[[], Any], timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, f"not within {timeout_s:g} s: {self.explain()}"
            self.look()

    def wait_running(self, timeout_s: float = 20.0) -> None:
        self.wait(lambda: self._all(lambda beat: beat.state is WorkerState.RUNNING), timeout_s)

    def wait_drained(self, timeout_s: float) -> None:
        """Until every worker has said again, after all had said so, that it has nothing left to do."""

        def beats() -> list[WorkerBeat]:
            return [self.beats[slot.port] for slot in self.slots]

        self.wait(lambda: self._all(lambda beat: beat.drained), timeout_s)
        before = {beat.port: beat for beat in beats()}
        self.wait(
            lambda: all(beat.drained and beat is not before[beat.port] for beat in beats()), timeout_s
        )

    def _all(self, condition: Callable[[WorkerBeat], bool]) -> bool:
        return len(self.beats) == len(self.slots) and all(map(condition, self.beats.values()))

    def total(self, component: str, counter: str) -> int:
        """The sum over all tasks of the components whose name begins so."""
        tasks = [task for beat in self.beats.values() for task in beat.tasks]
        return sum(int(getattr(task, counter)) for task in tasks if task.component.startswith(component))

    def counter(self, name: str) -> int:
        return sum(beat.counters.get(name, 0) for beat in self.beats.values())

    def explain(self) -> str:
        return f"{[(beat.port, beat.state, beat.drained, beat.tasks) for beat in self.beats.values()]}\n{self.logs()}"

    def stop(self, timeout_s: float = 20.0) -> None:
        """SIGTERM: what is here is finished, components are closed, and every worker ends with exit code 0."""
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        until = time.monotonic() + timeout_s
        while any(child.alive() for child in self.children):
            assert time.monotonic() < until, f"workers go on after SIGTERM: {self.logs()}"
            for port, _, message in self.control.poll(POLL_S):
                if isinstance(message, Beat):
                    self.beats[port] = message.beat
                    self.errors += message.beat.errors
        codes = [child.reap().code for child in self.children]
        assert codes == [0] * len(codes), self.logs()

    def close(self) -> None:
        """kill -9 whatever is left of them."""
        for child in self.children:
            child.kill()
            child.reap()
            child.close()
        self.children.clear()
        self.control.close()
