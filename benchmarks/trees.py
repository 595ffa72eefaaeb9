"""What a pending tree weighs: a spout emits a million tuples, a bolt in the same worker keeps them all open.

    python -m benchmarks.trees COUNT      prints bytes per tree as JSON

Runs the engine in this process, because nothing but pending trees should grow meanwhile. The message ids and the row
are there before. The row is a tuple, since a list would be copied into one for each tree: the user's values again, 48
bytes for one value.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from rainband import ManualBolt, Spout, Topology, TopologyBuilder, Tuple
from rainband.build import compiled
from rainband.clock import SystemClock
from rainband.messaging.network import MemoryHub
from rainband.records import Assignment, Executor, Placement, Slot, Status
from rainband.worker.worker import Worker

PAGE_BYTES = 4096
SLOT = Slot("here", 6700)


class Emit(Spout):
    """One row, again and again, each with a message id that was there before."""

    outputs = ("value",)

    def open(self, context: Any) -> None:
        self.ids = [str(number) for number in range(COUNT)]
        self.at = 0

    def next_tuple(self) -> None:
        if self.at < COUNT:
            self.emit(ROW, message_id=self.ids[self.at])
            self.at += 1


class Keep(ManualBolt):
    """Neither acks nor fails."""

    def prepare(self, context: Any) -> None:
        self.kept: list[Tuple | None] = [None] * COUNT
        self.count = 0

    def execute(self, tup: Tuple) -> None:
        self.kept[self.count] = tup
        self.count += 1


COUNT = 0
ROW = ("value",)


def topology() -> Topology:
    builder = TopologyBuilder("trees", {"topology.max.spout.pending": COUNT})
    builder.set_spout("emit", Emit())
    builder.set_bolt("keep", Keep()).shuffle_grouping("emit")
    return builder.create_topology()


def worker() -> Worker:
    made = topology()
    executors = [Executor(name, task, task) for name, tasks in made.plan.tasks.items() for task in tasks]
    placements = tuple(Placement(executor, SLOT, 1) for executor in executors)
    assignment = Assignment("trees-1", 1, Status.ACTIVE, placements, {"here": "127.0.0.1"}, 1)
    network = MemoryHub().network(assignment.address(SLOT))
    return Worker(
        made.plan, assignment, SLOT,
        incarnation=1, network=network, load=made.load, custom=made.custom_grouping, seed=1, clock=SystemClock(),
    )  # fmt: skip


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * PAGE_BYTES


def main(count: int) -> dict[str, object]:
    global COUNT
    COUNT = count
    here = worker()
    clock = SystemClock()
    here.timer_at = float("inf")  # neither timeouts nor the pending window's own judgement
    here.step(clock.now())
    spout = next(made.spout for made in here.wiring.tasks.values() if made.spout is not None)
    bolt: Any = next(made.instance for made in here.wiring.tasks.values() if made.bolt is not None)
    gc.collect()
    begun, before = bolt.count, rss_bytes()
    while bolt.count < count:
        spout.window = count
        here.step(clock.now())
    grown = rss_bytes() - before
    if len(spout.emitter.pending) != count:
        raise AssertionError("not all trees are pending")
    return {"trees": count, "bytes_per_tree": round(grown / (count - begun)), "compiled": compiled()}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
