"""Tasks of one component share what may be sent: none waits for ever behind another one that always has more."""

from __future__ import annotations

from kit.bench import Bench
from kit.parts import Numbers, Sink, Twice
from rainband.topology.builder import TopologyBuilder

ENDLESS = 1_000_000
TIGHT: dict[str, object] = {"topology.executor.receive.buffer.size": 2}


def counts(bench: Bench, component: str, counter: str) -> list[int]:
    tasks = [task for beat in bench.look() for task in beat.tasks if task.component == component]
    return sorted(int(getattr(task, counter)) for task in tasks)


def test_bolts_behind_a_full_target_take_turns() -> None:
    builder = TopologyBuilder("turns", config=TIGHT)
    builder.set_spout("numbers", Numbers(ENDLESS, tracked=False))
    builder.set_bolt("twice", Twice(), parallelism=3).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("twice")
    bench = Bench(builder.create_topology(), 2, place=[0, 1, 0, 0, 0])
    for _ in range(1000):
        bench.round()
    least, _, most = counts(bench, "twice", "executed")
    assert least >= 0.9 * most > 100


def test_spouts_behind_a_full_target_take_turns() -> None:
    builder = TopologyBuilder("turns", config=TIGHT)
    builder.set_spout("numbers", Numbers(ENDLESS, tracked=False), parallelism=3)
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    bench = Bench(builder.create_topology(), 2, place=[0, 0, 0, 1])
    for _ in range(1000):
        bench.round()
    least, _, most = counts(bench, "numbers", "emitted")
    assert least >= 0.9 * most > 100
