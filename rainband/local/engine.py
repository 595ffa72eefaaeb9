"""A whole cluster as one object: Nimbus, hosts with their workers, links in memory. Told the time, it does one pass.

No thread, no sleep, no hidden random: `seed` gives every number that is drawn, so that under a virtual clock the same
seed and the same calls make the same run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from rainband.clock import Clock
from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.cluster.positions import MemoryPositions
from rainband.local.host import NEVER, Host
from rainband.local.recording import Loop, Probe, Recorder
from rainband.messaging.network import MemoryHub
from rainband.messaging.rpc import failure
from rainband.nimbus.core import Nimbus
from rainband.nimbus.statistics import ERRORS_MAX
from rainband.records import (
    Assignment,
    Done,
    Failure,
    GetErrors,
    GetStatistics,
    GetTopology,
    HeartbeatReply,
    ListTopologies,
    Request,
    Response,
    Slot,
    Submit,
    WorkerState,
)
from rainband.topology.graph import Topology
from rainband.topology.secrets import Secrets
from rainband.worker.watch import SlowCalls
from rainband.worker.worker import Worker

FIRST_PORT = 6700
CALL_S = 0.001
IDLE_MAX_S = 0.064
ADDRESS = "127.0.0.1"

Load = Callable[[str], object]

log = logging.getLogger("rainband.local")


@dataclass(frozen=True)
class Wishes:
    """How an in-process cluster runs user code. `virtual`: its clock moves only when told to."""

    virtual: bool
    raise_errors: bool
    check_values: bool
    record: bool


@dataclass
class Guest:
    """One topology that was submitted: its code, what was seen of it, how far its spouts have come on each host."""

    topology: Topology
    load: Load
    recorder: Recorder
    positions: dict[str, MemoryPositions] = field(default_factory=dict)
    slow_calls: SlowCalls = field(default_factory=SlowCalls)


class Engine:
    """`supervisors` hosts with `slots` slots each. `settings` are daemon settings."""

    def __init__(
        self,
        clock: Clock,
        seed: int,
        wishes: Wishes,
        supervisors: int,
        slots: int,
        settings: Mapping[str, object],
        secrets: Secrets,
    ) -> None:
        self.clock = clock
        self.wishes = wishes
        self.secrets = secrets
        self.random = Random(seed)
        self.hub = MemoryHub(now=clock.now())
        self.loop = Loop()
        self.guests: dict[str, Guest] = {}
        store = MemoryStore(f"{self.random.getrandbits(128):032x}")
        self.nimbus = Nimbus(store, MemoryBlobs(), settings, clock.now(), require_bundle=False, errors_max=ERRORS_MAX)
        self.hosts = [
            Host(
                f"local-{number + 1}",
                ADDRESS,
                tuple(range(FIRST_PORT + number * slots, FIRST_PORT + (number + 1) * slots)),
                self._draw(),
                self._hire,
                self._gone,
            )
            for number in range(supervisors)
        ]
        self.raised: list[BaseException] = []
        self._finished = False
        self._tick_at = 0.0
        self.report()

    def submit(self, topology: Topology, load: Load | None = None, active: bool = True) -> Guest:
        """Start a topology. `load` gives each task its instance instead of `topology.load`. Raises Refused."""
        recorder = Recorder(topology, self.clock, record=self.wishes.record, check=self.wishes.check_values)
        guest = Guest(topology, load or topology.load, recorder)
        request = Submit(topology.name, topology.plan.encode(), active=active)
        now, wall = self.clock.now(), self.clock.wall()
        answer = self.nimbus.handle(request, now, wall)
        if isinstance(answer, Failure):
            raise failure(answer)
        assert isinstance(answer, Done)
        self.guests[answer.topology_id] = guest
        self._push(now, wall)
        return guest

    def call(self, request: Request) -> Response:
        """Nimbus's answer, from reports that are up to date. Raises the RainbandError of a Failure."""
        now, wall = self.clock.now(), self.clock.wall()
        if isinstance(request, GetStatistics | GetErrors | GetTopology | ListTopologies):
            self.report()
        answer = self.nimbus.handle(request, now, wall)
        if isinstance(answer, Failure):
            raise failure(answer)
        self._push(now, wall)
        return answer

    def step(self, now: float) -> float:
        """One pass of everything. Returns when the next one is wanted: `now` or less for at once."""
        if self._finished:
            return NEVER
        wall = self.clock.wall()
        deadline = self.hub.advance(now)
        for host in self.hosts:
            if host.alive:
                host.start(now)
        for host in self.hosts:
            if host.alive:
                deadline = min(deadline, host.step(now))
                if now >= host.beat_at:
                    self._beat(host, now, wall)
                    self._tick_at = now
                    deadline = min(deadline, host.beat_at)
        if now >= self._tick_at:
            self._push(now, wall)
        self._collect()
        return min(deadline, self._tick_at) if self.hub.idle else now

    def wait_outside(self, seconds: float) -> bool:
        """Let up to so much real time pass for calls that may wait for sockets or threads; true when something came."""
        return any(worker.sides.wait_outside(seconds) for host in self.hosts for _, worker in host.workers())

    def report(self) -> None:
        """Every living host reports now."""
        now, wall = self.clock.now(), self.clock.wall()
        for host in self.hosts:
            if host.alive:
                self._beat(host, now, wall)
        self._push(now, wall)

    def workers(self, topology_id: str) -> Iterator[tuple[Slot, Worker]]:
        """The living workers of a topology, by slot."""
        for host in self.hosts:
            for slot, worker in host.workers():
                if worker.assignment.topology_id == topology_id:
                    yield slot, worker

    def running(self, topology_id: str) -> bool:
        """Whether every slot that is assigned to the topology has a worker that runs."""
        held = [tenant for host in self.hosts for tenant in host.tenants.values() if tenant.topology_id == topology_id]
        return bool(held) and all(
            tenant.worker is not None and tenant.worker.state is WorkerState.RUNNING for tenant in held
        )

    def drained(self, topology_id: str) -> bool:
        """Whether every spout has finished and nothing is pending, queued or under way."""
        if not self.hub.idle or not self.running(topology_id):
            return False
        return all(is_drained(worker) for _, worker in self.workers(topology_id))

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def kill_worker(self, slot: Slot) -> None:
        """As kill -9 of its process would: what it held is lost, its peers are told by its supervisor."""
        self.report()
        self.host(slot.supervisor).kill(slot.port, self.clock.now())

    def kill_host(self, name: str) -> None:
        """As when the machine loses its power."""
        self.report()
        self.host(name).die(self.clock.now())

    def finish(self) -> None:
        """Close all components in an orderly way; look once more at the values that were emitted.

        Later passes do nothing: a beat that is overdue by then would start all anew.
        """
        self._finished = True
        self.verify()
        for host in self.hosts:
            self._tell_slow_calls(host)
            host.stop(self.clock.now())
        self._collect()

    def verify(self) -> None:
        """Look whether values that were emitted are still the same."""
        for guest in self.guests.values():
            guest.recorder.verify()
        self._collect()

    def _hire(self, assignment: Assignment, slot: Slot) -> Worker:
        guest = self.guests[assignment.topology_id]
        wishes = self.wishes
        probe = None
        if wishes.virtual or wishes.record or wishes.check_values:
            probe = Probe(guest.recorder, CALL_S if wishes.virtual else 0.0, IDLE_MAX_S, self.loop)
        return Worker(
            guest.topology.plan,
            assignment,
            slot,
            incarnation=self._draw(),
            network=self.hub.network(assignment.address(slot)),
            load=guest.load,
            custom=guest.topology.custom_grouping,
            seed=self._draw(),
            clock=self.clock,
            positions=guest.positions.setdefault(slot.supervisor, MemoryPositions()),
            instruments=probe,
            raise_errors=wishes.raise_errors,
            virtual=wishes.virtual,
            alone=False,
            secrets=self.secrets,
            pid=0 if wishes.virtual else os.getpid(),
        )

    def _gone(self, slot: Slot, incarnation: int, now: float) -> None:
        """A host saw a worker end: tell its peers on all hosts, as supervisors do."""
        for host in self.hosts:
            for other, worker in host.workers():
                if other != slot:
                    worker.peer_gone(slot, incarnation, now)

    def _beat(self, host: Host, now: float, wall: float, stacks: dict[str, dict[str, str]] | None = None) -> None:
        self._tell_slow_calls(host)
        reply = self.nimbus.handle(host.heartbeat(now, stacks), now, wall)
        assert isinstance(reply, HeartbeatReply), reply
        host.obey(reply, now)

    def _tell_slow_calls(self, host: Host) -> None:
        for _, worker in host.workers():
            guest = self.guests[worker.assignment.topology_id]
            for line in guest.slow_calls.look(worker.wiring.tasks.values()):
                log.warning(line)

    def _push(self, now: float, wall: float) -> None:
        """Let those hosts report at once for which Nimbus has news."""
        for name in self.nimbus.tick(now):
            host = self.host(name)
            if host.alive:
                self._beat(host, now, wall)
        for topology_id, names in self.nimbus.stacks.take().items():
            for name in sorted(names):
                self._beat(self.host(name), now, wall, {topology_id: self._stacks(topology_id, name)})
        self._tick_at = self.nimbus.next_deadline()

    def _stacks(self, topology_id: str, supervisor: str) -> dict[str, str]:
        from rainband.worker.process import stacks

        text = stacks()
        pid = os.getpid()
        found = [slot for slot, _ in self.workers(topology_id) if slot.supervisor == supervisor]
        return {f"{ADDRESS}:{slot.port} pid {pid}": text for slot in found}

    def _collect(self) -> None:
        for host in self.hosts:
            self.raised += host.take_raised()

    def _draw(self) -> int:
        """A positive number of 62 bits."""
        return self.random.getrandbits(62) | 1


def is_drained(worker: Worker) -> bool:
    """Whether nothing more comes out of this worker unless something comes in."""
    if worker.sides.in_flight or worker.agenda.overflowing or worker.agenda.outboxes:
        return False
    if not all(made.drained for made in worker.wiring.tasks.values()):
        return False
    return all(link.idle for link in worker.links.links())
