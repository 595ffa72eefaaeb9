"""A bolt that neither acks nor fails what it takes is named, once; one that holds tuples for a while is not."""

from __future__ import annotations

import pytest

from kit.bench import Bench
from kit.parts import ReliableNumbers
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import ManualBolt
from rainband.topology.tuples import Tuple
from rainband.worker.watch import Leaks


class Forgetful(ManualBolt):
    """Acks all but each tenth."""

    outputs = ()

    def execute(self, tup: Tuple) -> None:
        if tup["n"] % 10:
            self.ack(tup)


class Late(ManualBolt):
    """Acks each ten tuples when there are ten."""

    outputs = ()

    def __init__(self) -> None:
        self.held: list[Tuple] = []

    def execute(self, tup: Tuple) -> None:
        self.held.append(tup)
        if len(self.held) == 10:
            for one in self.held:
                self.ack(one)
            self.held = []


@pytest.mark.parametrize("bolt", [Forgetful, Late])
def test_a_leak_is_told_once(bolt: type[ManualBolt]) -> None:
    builder = TopologyBuilder("leaks", config={"topology.message.timeout.secs": 3})
    builder.set_spout("numbers", ReliableNumbers(100))
    builder.set_bolt("bolt", bolt()).shuffle_grouping("numbers")
    bench = Bench(builder.create_topology(), 1)
    worker = next(iter(bench.alive.values()))
    leaks = Leaks(worker.timeout_s)
    told = []
    for _ in range(40):
        for _ in range(100):
            bench.round()
        told += leaks.look(worker.wiring.tasks.values(), bench.clock.now())
    if bolt is Late:
        assert told == []
        return
    ((made, text),) = told
    assert made.component == "bolt"
    assert text.endswith("were neither acked nor failed within 3 s: a ManualBolt does so with each")
    assert int(text.split()[0]) >= 10
