"""Several workers in this process, stepped by hand over links in memory: the engine without daemons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Self

from rainband.clock import VirtualClock
from rainband.cluster.positions import MemoryPositions
from rainband.messaging.network import Fate, MemoryHub
from rainband.records import Assignment, Placement, Slot, Status, WorkerBeat
from rainband.topology.builder import TopologyBuilder
from rainband.topology.graph import Topology
from rainband.worker.worker import Worker


class Bench:
    """`workers` workers for one topology; executor i goes to worker place[i], -1 for none. Time moves 1 ms a round."""

    def __init__(
        self,
        topology: Topology,
        workers: int,
        *,
        seed: int = 1,
        place: Sequence[int] | None = None,
        fate: Fate | None = None,
        positions: bool = False,
    ) -> None:
        self.topology = topology
        self.positions = MemoryPositions() if positions else None
        self.random = Random(seed)
        self.clock = VirtualClock(100.0)
        self.hub = MemoryHub(fate, self.clock.now())
        self.slots = [Slot("host", 6700 + number) for number in range(workers)]
        executors = topology.plan.executors()
        self.place = list(place) if place is not None else [number % workers for number in range(len(executors))]
        self.version = 0
        self.assignment = self.assign(self.place)
        self.incarnations = 0
        self.alive: dict[Slot, Worker] = {}
        self.beats: list[WorkerBeat] = []
        for slot in self.slots:
            if self.assignment.on(slot):
                self.start(slot)

    @classmethod
    def placed(cls, builder: TopologyBuilder, place: Mapping[str, int], workers: int = 2) -> Self:
        """Each component in the worker that `place` says, or in the first."""
        topology = builder.create_topology()
        return cls(topology, workers, place=placing(topology, place))

    def assign(self, place: Sequence[int], status: Status = Status.ACTIVE) -> Assignment:
        self.version += 1
        placements = tuple(
            Placement(executor, self.slots[at], self.version)
            for executor, at in zip(self.topology.plan.executors(), place, strict=True)
            if at >= 0
        )
        return Assignment("bench-1", self.version, status, placements, {"host": "127.0.0.1"})

    def start(self, slot: Slot) -> Worker:
        self.incarnations += 1
        network = self.hub.network(self.assignment.address(slot))
        self.alive[slot] = Worker(
            self.topology.plan,
            self.assignment,
            slot,
            incarnation=1000 + self.incarnations,
            network=network,
            load=self.topology.load,
            custom=self.topology.custom_grouping,
            seed=self.random.getrandbits(32),
            clock=self.clock,
            positions=self.positions,
            virtual=True,
        )
        return self.alive[slot]

    def kill(self, slot: Slot) -> None:
        """The process is gone: nothing is closed, whatever it held is lost."""
        self.alive.pop(slot).network.close()

    def apply(self, place: Sequence[int], status: Status = Status.ACTIVE) -> None:
        self.assignment = self.assign(place, status)
        for worker in self.alive.values():
            worker.apply(self.assignment, self.clock.now())

    def start_slot(self, number: int, place: Sequence[int]) -> None:
        """Pause the spouts and start a worker that will take part once `place` is applied."""
        self.apply(self.place, Status.INACTIVE)
        current = self.assignment
        self.assignment = self.assign(place, Status.INACTIVE)
        self.start(self.slots[number])
        self.assignment = current

    def round(self) -> None:
        self.clock.advance(0.001)
        self.hub.advance(self.clock.now())
        for worker in self.random.sample(list(self.alive.values()), len(self.alive)):
            worker.step(self.clock.now())

    def run(self, until: Callable[[], bool], rounds: int = 20_000) -> None:
        for number in range(rounds):
            self.round()
            if number % 10 == 9 and until():
                return
        raise AssertionError(f"not there after {rounds} rounds: {self.look()}")

    def run_drained(self, rounds: int = 20_000) -> None:
        self.run(self.drained, rounds)

    def drained(self) -> bool:
        return all(beat.drained for beat in self.look())

    def look(self) -> list[WorkerBeat]:
        self.beats = [worker.beat(self.clock.now()) for worker in self.alive.values()]
        return self.beats

    def total(self, component: str, counter: str) -> int:
        return sum(
            int(getattr(task, counter)) for beat in self.look() for task in beat.tasks if task.component == component
        )

    def instances(self, component: str) -> list[object]:
        return [
            made.instance
            for worker in self.alive.values()
            for made in worker.wiring.tasks.values()
            if made.component == component
        ]


def placing(topology: Topology, place: Mapping[str, int]) -> list[int]:
    """The worker of each executor: that of its component in `place`, or the first."""
    names = [topology.plan.component_of[executor.first] for executor in topology.plan.executors()]
    return [place.get(name, 0) for name in names]
