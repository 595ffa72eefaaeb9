"""Drained is never said too early and always in the end: workers in a model with slow links, ticks and lazy beats."""

from __future__ import annotations

from collections import deque
from random import Random

import msgspec
import pytest

from rainband.nimbus.rest import Rest
from rainband.nimbus.rows import Entry, TopologyRow
from rainband.records import (
    Assignment,
    Executor,
    Leaving,
    LinkCount,
    Placement,
    Slot,
    Status,
    TaskCount,
    WorkerBeat,
    WorkerState,
)
from rainband.topology.plan import ComponentPlan, InputPlan, Plan, StreamPlan

ID = "chain-1-1"
LEVELS = 4
STREAM = {"default": StreamPlan(("n",))}


def chain() -> Plan:
    """A spout and three bolts in a row; untracked."""
    components = {"spout": ComponentPlan("spout", "spout", STREAM, (), 1, 1, 64, level=LEVELS - 1)}
    for number in range(1, LEVELS):
        source = "spout" if number == 1 else f"bolt{number - 1}"
        inputs = (InputPlan(source, "default", "shuffle"),)
        level = LEVELS - 1 - number
        components[f"bolt{number}"] = ComponentPlan(f"bolt{number}", "bolt", STREAM, inputs, 1, 1, 64, level=level)
    return Plan("chain", components, {})


def test_nothing_is_done_while_a_task_is_still_to_get_its_place() -> None:
    """The spout was taken away somewhere and has no place yet: what is here has nothing to do."""
    slot = Slot("a", 6700)
    assignment = Assignment(ID, 2, Status.ACTIVE, (Placement(Executor("bolt1", 2, 2), slot, 1),), {"a": "127.0.0.1"})
    leaving = msgspec.structs.replace(assignment, leaving=(Leaving(1, Slot("b", 6700), (0, 2)),))
    row = TopologyRow("chain", ID, 1, Status.ACTIVE, Status.ACTIVE, 0.0)
    beat = WorkerBeat(ID, 6700, 1, 1, 2, WorkerState.RUNNING, idle=True)
    for known, done in ((assignment, True), (leaving, False)):
        assert Rest().look(Entry(row, chain(), known), {slot: beat}, {slot: 1}) is done


class Model:
    """Workers that hand tuples on: (level, whether it came of the spout). Worker 0 has the spout."""

    def __init__(self, seed: int, workers: int, ticks: bool) -> None:
        self.random = Random(seed)
        self.slots = [Slot("a", 6700 + number) for number in range(workers)]
        self.ticks = ticks
        self.left = self.random.randrange(1, 6)
        self.queues: list[deque[tuple[int, bool]]] = [deque() for _ in self.slots]
        self.wires = {(a, b): deque[tuple[int, bool]]() for a in range(workers) for b in range(workers) if a != b}
        self.sent = dict.fromkeys(self.wires, 0)
        self.received = dict.fromkeys(self.wires, 0)

    def send(self, worker: int, level: int, from_spout: bool) -> None:
        target = self.random.randrange(len(self.slots))
        if target == worker:
            self.queues[worker].append((level, from_spout))
        else:
            self.sent[worker, target] += 1
            self.wires[worker, target].append((level, from_spout))

    def move(self) -> None:
        """Anything that may happen next."""
        what = self.random.randrange(4)
        worker = self.random.randrange(len(self.slots))
        if what == 0 and self.left:
            self.left -= 1
            self.send(0, 1, True)
        elif what == 1 and self.queues[worker]:
            level, from_spout = self.queues[worker].popleft()
            if level < LEVELS - 1:
                for _ in range(self.random.randrange(3)):
                    self.send(worker, level + 1, from_spout)
        elif what == 2 and self.wires:
            source, target = self.random.choice(list(self.wires))
            if self.wires[source, target]:
                self.received[source, target] += 1
                self.queues[target].append(self.wires[source, target].popleft())
        elif what == 3 and self.ticks and self.random.random() < 0.3:
            self.send(worker, self.random.randrange(2, LEVELS), False)

    def beat(self, worker: int) -> WorkerBeat:
        peers = [number for number in range(len(self.slots)) if number != worker]
        links = tuple(
            LinkCount(f"127.0.0.1:{6700 + n}", n + 1, self.sent[worker, n], self.received[n, worker]) for n in peers
        )
        tasks = (TaskCount(1, "spout", finished=self.left == 0),) if worker == 0 else ()
        return WorkerBeat(
            ID, 6700 + worker, 1, worker + 1, 1, WorkerState.RUNNING,
            tasks=tasks, idle=not self.queues[worker], links=links,
        )  # fmt: skip

    @property
    def done(self) -> bool:
        places = [*self.queues, *self.wires.values()]
        return self.left == 0 and not any(from_spout for place in places for _, from_spout in place)


@pytest.mark.parametrize("ticks", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_said_when_it_is_so_and_only_then(workers: int, ticks: bool) -> None:
    for seed in range(150):
        model = Model(seed, workers, ticks)
        executors = [Executor("spout", 1, 1), *(Executor(f"bolt{n}", n + 1, n + 1) for n in range(1, LEVELS))]
        places = tuple(Placement(e, model.slots[n % workers], 1) for n, e in enumerate(executors))
        assignment = Assignment(ID, 1, Status.ACTIVE, places, {"a": "127.0.0.1"})
        entry = Entry(TopologyRow("chain", ID, 1, Status.ACTIVE, Status.ACTIVE, 0.0), chain(), assignment)
        rest = Rest()
        beats: dict[Slot, WorkerBeat] = {}
        turns: dict[Slot, int] = {}
        said = False
        for step in range(20_000):
            model.move()
            if model.random.random() < 0.2:
                worker = model.random.randrange(workers)
                beats[model.slots[worker]], turns[model.slots[worker]] = model.beat(worker), step
                said = rest.look(entry, beats, turns)
                assert not said or model.done, f"seed {seed}: said too early at step {step}"
            if said:
                break
        assert said, f"seed {seed}: never said"
