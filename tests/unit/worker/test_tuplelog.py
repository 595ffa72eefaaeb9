"""topology.debug: what a component emits and executes is in the log; other components do not notice."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from kit.bench import Bench
from rainband import Bolt, ManualBolt, ReliableSpout, Spout, Tuple, complete_topology
from rainband.topology.builder import TopologyBuilder
from rainband.worker.emit import Emitter

DEBUG: dict[str, object] = {"topology.debug": True}


class Letters(Spout):
    outputs = ("letter",)

    def next_tuple(self) -> None:
        self.emit(["a"], message_id=1)
        self.emit(values=["b"], message_id=2)
        self.finish()


class Once(ReliableSpout):
    outputs = ("letter",)

    def next_tuple(self) -> None:
        self.emit(["a"], message_id=1)
        self.emit(values=["b"], message_id=2)
        self.finish()


class Double(Bolt):
    outputs = {"doubled": ("letter",)}

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["letter"] * 2], stream="doubled")


class Batches(Bolt):
    outputs = {"doubled": ("letter",)}

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.emit_many([[tup["letter"] * 2] for tup in tups], stream="doubled")


class Manual(ManualBolt):
    outputs = {"doubled": ("letter",)}

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["letter"] * 2], stream="doubled", anchors=[tup])
        self.ack(tup)


class Coroutine(Bolt):
    outputs = {"doubled": ("letter",)}

    async def execute(self, tup: Tuple) -> None:
        self.emit([tup["letter"] * 2], stream="doubled")


class Sink(Bolt):
    def execute(self, tup: Tuple) -> None:
        pass


def flow(spout: Spout, bolt: Bolt | ManualBolt) -> TopologyBuilder:
    builder = TopologyBuilder("flow")
    builder.set_spout("spout", spout, config=DEBUG)
    builder.set_bolt("double", bolt, config=DEBUG).shuffle_grouping("spout")
    builder.set_bolt("sink", Sink()).shuffle_grouping("double", stream="doubled")
    return builder


@pytest.mark.parametrize("spout", [Letters(), Once()], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("bolt", [Double(), Batches(), Manual(), Coroutine()], ids=lambda part: type(part).__name__)
def test_each_tuple_is_logged(spout: Spout, bolt: Bolt | ManualBolt, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rainband.worker"):
        result = complete_topology(flow(spout, bolt).create_topology())
    assert sorted(result.executed("sink")) == [("aa",), ("bb",)]
    assert sorted(record.getMessage() for record in caplog.records if record.name == "rainband.worker") == [
        "component double, task 1 emitted on stream doubled: ['aa']",
        "component double, task 1 emitted on stream doubled: ['bb']",
        "component double, task 1 executes a tuple of spout, stream default: ('a',)",
        "component double, task 1 executes a tuple of spout, stream default: ('b',)",
        "component spout, task 3 emitted on stream default: ['a']",
        "component spout, task 3 emitted on stream default: ['b']",
    ]


def test_components_without_it_are_bound_as_they_are() -> None:
    builder = flow(Letters(), Double())
    builder.set_bolt("quiet", Double()).shuffle_grouping("spout")
    bench = Bench(builder.create_topology(), 1)
    ((quiet,), (loud,)) = (bench.instances(name) for name in ("quiet", "double"))
    assert isinstance(quiet.emit.__self__, Emitter)  # type: ignore[attr-defined]
    assert not hasattr(loud.emit, "__self__")  # type: ignore[attr-defined]
