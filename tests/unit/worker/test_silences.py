"""A worker says of a peer that does not answer, once, and that it does again."""

from __future__ import annotations

from kit.bench import Bench
from kit.parts import ReliableNumbers, Sink
from rainband.topology.builder import TopologyBuilder
from rainband.worker.watch import Complaints, Silences


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


def test_frames_that_could_not_be_read_are_told_now_and_then() -> None:
    complaints = Complaints(60.0)
    assert complaints.look(0, "", 0.0) == []
    version = "frame version 2 is not 1. Use the same rainband on both sides"
    assert complaints.look(1, version, 1.0) == [f"1 frame came that could not be read, the newest: {version}"]
    assert complaints.look(900, "not a rainband frame", 59.0) == []
    told = ["899 frames came that could not be read, the newest: not a rainband frame"]
    assert complaints.look(900, "not a rainband frame", 61.0) == told
    assert complaints.look(900, "not a rainband frame", 200.0) == []
