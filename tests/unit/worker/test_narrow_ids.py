"""What happens when edge ids collide all the time: wrong verdicts, perhaps, but no crash and no standstill."""

from __future__ import annotations

import pytest

from kit.bench import Bench
from kit.parts import Pass, ReliableNumbers, Sink
from rainband.build import compiled
from rainband.topology.builder import TopologyBuilder
from rainband.worker.routes import EdgeIds


class NarrowIds(EdgeIds):
    """Ids of 8 bits."""

    def again(self, state: int) -> EdgeIds:
        return NarrowIds(state)

    def next(self) -> int:
        return EdgeIds.next(self) & 255 or 1


@pytest.mark.skipif(compiled(), reason="compiled classes call each other past any subclass")
def test_f42_narrow_edge_ids_crash_nothing() -> None:
    config: dict[str, object] = {"topology.acker.executors": 1, "topology.message.timeout.secs": 1}
    builder = TopologyBuilder("narrow", config=config)
    builder.set_spout("numbers", ReliableNumbers(200))
    builder.set_bolt("pass", Pass(), parallelism=2).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink(), parallelism=2).shuffle_grouping("pass")
    bench = Bench(builder.create_topology(), 3)
    for worker in bench.alive.values():
        worker.agenda.ids = NarrowIds(worker.incarnation)
    bench.run_drained(60_000)
    assert bench.total("numbers", "acked") == 200
