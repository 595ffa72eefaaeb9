"""What a full target lets through goes round: no task waits for ever behind another one that always has more."""

from __future__ import annotations

import pytest

from kit.bench import Bench
from kit.parts import Numbers, Sink, Twice
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt
from rainband.topology.context import TopologyContext
from rainband.topology.tuples import Tuple

ENDLESS = 10_000_000
WHERE = pytest.mark.parametrize("sink_at", [0, 1])
CREDIT = pytest.mark.parametrize("credit", [1, 2, 3, 64])


def builder_with(credit: int) -> TopologyBuilder:
    return TopologyBuilder("turns", config={"topology.executor.receive.buffer.size": credit})


def shares(bench: Bench, counter: str, *components: str) -> list[int]:
    """What each task of `components` has done in the second half of a while."""
    found: list[dict[int, int]] = []
    for _ in range(2):
        for _ in range(400):
            bench.round()
        tasks = [task for beat in bench.look() for task in beat.tasks if task.component in components]
        found.append({task.task: int(getattr(task, counter)) for task in tasks})
    first, second = found
    return sorted(second[task] - first[task] for task in second)


def even(counts: list[int], least: float = 0.7) -> bool:
    return counts[0] > 40 and counts[0] >= least * counts[-1]


@CREDIT
@WHERE
@pytest.mark.parametrize("tasks", [2, 3])
def test_bolts_of_one_component_take_turns(credit: int, sink_at: int, tasks: int) -> None:
    builder = builder_with(credit)
    builder.set_spout("numbers", Numbers(ENDLESS, tracked=False))
    builder.set_bolt("twice", Twice(), parallelism=tasks).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("twice")
    assert even(shares(Bench.placed(builder, {"sink": sink_at}), "executed", "twice"))


@CREDIT
@WHERE
def test_components_that_fill_one_target_take_turns(credit: int, sink_at: int) -> None:
    builder = builder_with(credit)
    for name in ("x", "y"):
        builder.set_spout(f"of-{name}", Numbers(ENDLESS, tracked=False))
        builder.set_bolt(name, Twice()).shuffle_grouping(f"of-{name}")
    builder.set_bolt("sink", Sink()).shuffle_grouping("x").shuffle_grouping("y")
    assert even(shares(Bench.placed(builder, {"sink": sink_at}), "executed", "x", "y"))


@CREDIT
@WHERE
@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_spouts_of_one_component_take_turns(credit: int, sink_at: int, tasks: int) -> None:
    builder = builder_with(credit)
    builder.set_spout("numbers", Numbers(ENDLESS, tracked=False), parallelism=tasks)
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    assert even(shares(Bench.placed(builder, {"sink": sink_at}), "emitted", "numbers"))


@CREDIT
@WHERE
def test_spouts_of_several_components_take_turns(credit: int, sink_at: int) -> None:
    builder = builder_with(credit)
    names = ["a", "b", "c"]
    for name in names:
        builder.set_spout(name, Numbers(ENDLESS, tracked=False))
    sink = builder.set_bolt("sink", Sink())
    for name in names:
        sink.shuffle_grouping(name)
    assert even(shares(Bench.placed(builder, {"sink": sink_at}), "emitted", *names))


@CREDIT
@WHERE
def test_a_spout_and_a_bolt_take_turns(credit: int, sink_at: int) -> None:
    builder = builder_with(credit)
    builder.set_spout("numbers", Numbers(ENDLESS, tracked=False))
    builder.set_spout("direct", Numbers(ENDLESS, tracked=False))
    builder.set_bolt("twice", Twice()).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("twice").shuffle_grouping("direct")
    assert even(shares(Bench.placed(builder, {"sink": sink_at}), "emitted", "direct", "twice"), 0.45)


class Ticking(Bolt):
    """Emits two for each tuple; counts its ticks."""

    outputs = ("n",)

    def prepare(self, context: TopologyContext) -> None:
        self.ticks = 0

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["n"]])
        self.emit([tup["n"]])

    def tick(self) -> None:
        self.ticks += 1


@CREDIT
@WHERE
def test_a_tick_has_its_turn_too(credit: int, sink_at: int) -> None:
    builder = builder_with(credit)
    builder.set_spout("numbers", Numbers(ENDLESS, tracked=False))
    ticking = builder.set_bolt("ticking", Ticking(), parallelism=2, config={"topology.tick.tuple.freq.secs": 0.1})
    ticking.shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("ticking")
    bench = Bench.placed(builder, {"sink": sink_at})
    for _ in range(2000):
        bench.round()
    assert all(bolt.ticks in (19, 20) for bolt in bench.instances("ticking"))  # type: ignore[attr-defined]
