"""A supervisor in this process: it reports to Nimbus, and its slots hold Worker objects instead of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from rainband.records import Assignment, Heartbeat, HeartbeatReply, Slot, WorkerBeat, WorkerState
from rainband.worker.worker import Worker

BEAT_S = 1.0
RESTART_S = 0.5
RESTART_MAX_S = 60.0
NEVER = float("inf")

Hire = Callable[[Assignment, Slot], Worker]


@dataclass
class Tenant:
    """What a slot holds for one topology. Without a worker it is started at `start_at`; `crashes` in a row."""

    topology_id: str
    start_at: float
    worker: Worker | None = None
    crashes: int = 0
    restarts: int = -1


class Host:
    """One supervisor with its slots. `hire` makes a worker; `gone` is told of each worker that died."""

    def __init__(
        self,
        name: str,
        address: str,
        ports: tuple[int, ...],
        incarnation: int,
        hire: Hire,
        gone: Callable[[Slot, int, float], None],
    ) -> None:
        self.name = name
        self.address = address
        self.ports = ports
        self.incarnation = incarnation
        self.alive = True
        self.beat_at = 0.0
        self.tenants: dict[int, Tenant] = {}
        self.assignments: dict[str, Assignment] = {}
        self._raised: list[BaseException] = []
        self._hire = hire
        self._gone = gone
        self._last_words: list[WorkerBeat] = []

    def workers(self) -> Iterator[tuple[Slot, Worker]]:
        """The living workers, by port."""
        for port, tenant in sorted(self.tenants.items()):
            if tenant.worker is not None:
                yield Slot(self.name, port), tenant.worker

    def heartbeat(self, now: float, stacks: dict[str, dict[str, str]] | None = None) -> Heartbeat:
        """What this host says of itself and its workers. Errors in it are handed over once."""
        self.beat_at = now + BEAT_S
        said, self._last_words = self._last_words, []
        behind: dict[str, tuple[int, ...]] = {}
        for slot, worker in self.workers():
            restarts = self.tenants[slot.port].restarts
            beat = msgspec.structs.replace(worker.beat(now), restarts=max(0, restarts))
            said.append(beat)
            if beat.leaving:
                behind[beat.topology_id] = (*behind.get(beat.topology_id, ()), slot.port)
        return Heartbeat(
            supervisor=self.name,
            host=self.address,
            incarnation=self.incarnation,
            ports=self.ports,
            workers=tuple(said),
            known={name: (known.epoch, known.version) for name, known in sorted(self.assignments.items())},
            stacks=stacks or {},
            behind=behind,
        )

    def obey(self, reply: HeartbeatReply, now: float) -> None:
        """Bring the slots in line with what Nimbus wants."""
        for assignment in reply.assignments:
            self.assignments[assignment.topology_id] = assignment
        for topology_id in [name for name in self.assignments if name not in reply.wanted]:
            del self.assignments[topology_id]
        wanted = {
            slot.port: topology_id
            for topology_id, assignment in self.assignments.items()
            for slot in assignment.slots()
            if slot.supervisor == self.name
        }
        for port, tenant in sorted(self.tenants.items()):
            if wanted.get(port) != tenant.topology_id:
                self._dismiss(port, now)
        for port, topology_id in sorted(wanted.items()):
            held = self.tenants.setdefault(port, Tenant(topology_id, now))
            if held.worker is not None:
                held.worker.apply(self.assignments[topology_id], now)

    def start(self, now: float) -> None:
        """Make the workers that are due; they run with the next `step`, when all can be reached."""
        for port, tenant in sorted(self.tenants.items()):
            if tenant.worker is None and now >= tenant.start_at:
                tenant.worker = self._hire(self.assignments[tenant.topology_id], Slot(self.name, port))
                tenant.restarts += 1

    def step(self, now: float) -> float:
        """Give each worker one pass; when the next pass is wanted."""
        deadline = self.beat_at
        for port, tenant in sorted(self.tenants.items()):
            if tenant.worker is None:
                deadline = min(deadline, tenant.start_at)
                continue
            before = tenant.worker.state
            wanted_at = tenant.worker.step(now)
            state = tenant.worker.state
            if state is WorkerState.CRASHED:
                self._crashed(port, tenant, now)
                wanted_at = now
            elif state is not before:
                tenant.crashes = 0
                self.beat_at = wanted_at = now
            deadline = min(deadline, wanted_at)
        return deadline

    def take_raised(self) -> list[BaseException]:
        """What user code has raised since the last call, where that is to be raised."""
        for _, worker in self.workers():
            self._take_raised(worker)
        raised, self._raised = self._raised, []
        return raised

    def kill(self, port: int, now: float) -> None:
        """The worker on `port` is gone at once, with all it held, as after kill -9; it is replaced soon."""
        tenant = self.tenants[port]
        assert tenant.worker is not None
        self._bury(port, tenant, now)
        tenant.start_at = now + RESTART_S
        self.beat_at = now

    def stop(self, now: float) -> None:
        """Close every worker in an orderly way."""
        for port in sorted(self.tenants):
            self._dismiss(port, now)

    def die(self, now: float) -> None:
        """The whole host is gone with all its workers. Nobody tells Nimbus; it will notice the silence."""
        for port, tenant in sorted(self.tenants.items()):
            if tenant.worker is not None:
                self._bury(port, tenant, now)
        self.tenants.clear()
        self.assignments.clear()
        self.alive = False

    def _dismiss(self, port: int, now: float) -> None:
        tenant = self.tenants[port]
        try:
            if tenant.worker is not None:
                tenant.worker.stop(now)
                self._take_raised(tenant.worker)
                self._last_words.append(tenant.worker.beat(now))
                tenant.worker.network.close()
        finally:  # not before: whoever looks at a close that does not return finds it here
            del self.tenants[port]

    def _crashed(self, port: int, tenant: Tenant, now: float) -> None:
        """A raise in open or prepare: the worker reports it, ends, and is started again after a growing while."""
        assert tenant.worker is not None
        self._last_words.append(tenant.worker.beat(now))
        self._bury(port, tenant, now)
        tenant.crashes += 1
        tenant.start_at = now + min(RESTART_MAX_S, RESTART_S * 2.0**tenant.crashes)
        self.beat_at = now

    def _bury(self, port: int, tenant: Tenant, now: float) -> None:
        worker = tenant.worker
        assert worker is not None
        self._take_raised(worker)
        tenant.worker = None
        worker.sides.close()
        worker.network.close()
        self._gone(Slot(self.name, port), worker.incarnation, now)

    def _take_raised(self, worker: Worker) -> None:
        if worker.raised is not None:
            self._raised.append(worker.raised)
            worker.raised = None
