"""A worker says of a peer that does not answer, once, and that it does again."""

from __future__ import annotations

from kit.bench import Bench
from kit.parts import ReliableNumbers, Sink
from rainband.topology.builder import TopologyBuilder
from rainband.worker.reports import Silences


def test_a_peer_that_does_not_answer_is_named_once_and_so_is_its_return() -> None:
    cut = [False]
    builder = TopologyBuilder("cut")
    builder.set_spout("numbers", ReliableNumbers(3000))
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    topology = builder.create_topology()
    place = [1 if topology.plan.component_of[e.first] == "sink" else 0 for e in topology.plan.executors()]
    bench = Bench(topology, 2, place=place, fate=lambda source, target, frame: () if cut[0] else (0.001,))
    worker = bench.alive[bench.slots[0]]
    silences = Silences(5.0)

    def look(now: float) -> list[str]:
        return silences.look(worker.links.by_address, now)

    bench.run(lambda: bench.total("sink", "executed") > 0)
    cut[0] = True
    for _ in range(50):
        bench.round()
    assert look(100.0) == []
    assert look(104.0) == []
    (line,) = look(105.5)
    assert line.startswith("the worker at 127.0.0.1:6701 has not answered for 6 s: ")
    assert look(110.0) == []
    cut[0] = False
    bench.run(lambda: bench.total("numbers", "acked") == 3000)
    assert look(120.0) == ["the worker at 127.0.0.1:6701 answers again after 20 s"]
    assert look(130.0) == []
