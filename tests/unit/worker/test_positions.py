"""Where a ReliableSpout goes on: with its own placement's position, or with the one that came with the assignment."""

from __future__ import annotations

import msgspec

from kit.bench import Bench
from kit.parts import ReliableNumbers, Sink
from rainband.cluster.positions import MemoryPositions
from rainband.records import Status
from rainband.topology.builder import TopologyBuilder


def bench() -> Bench:
    builder = TopologyBuilder("positions", config={"topology.max.spout.pending": 10})
    builder.set_spout("numbers", ReliableNumbers(1000))
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    return Bench(builder.create_topology(), 2, place=[0, 0], positions=True)


def test_a_restarted_worker_goes_on_where_it_was() -> None:
    made = bench()
    made.run(lambda: made.total("numbers", "acked") > 300)
    made.look()
    acked = made.total("numbers", "acked")
    made.kill(made.slots[0])
    made.start(made.slots[0])
    made.run_drained()
    assert made.total("numbers", "acked") <= 1000 - acked + 20


def test_a_spout_that_moved_goes_on_where_it_had_come_to_on_the_other_host() -> None:
    made = bench()
    made.run(lambda: made.total("numbers", "acked") > 300)
    made.apply(made.place, Status.INACTIVE)
    made.run(lambda: made.total("numbers", "pending") == 0)
    acked = made.total("numbers", "acked")
    reached = made.beats[0].positions
    made.positions = MemoryPositions()
    made.assignment = msgspec.structs.replace(made.assign([1, 1]), positions=reached)
    made.alive[made.slots[0]].apply(made.assignment, made.clock.now())
    made.start(made.slots[1])
    made.run_drained()
    assert made.total("numbers", "acked") == 1000 - acked
