"""Whoever looks at a worker that stands still reads which task is in a call: in every callback it is that one."""

from __future__ import annotations

from kit.bench import Bench
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.tuples import Tuple

BENCH: list[Bench] = []
SEEN: list[tuple[str, int, int]] = []


def seen(callback: str, task: int) -> None:
    (worker,) = BENCH[0].alive.values()
    SEEN.append((callback, task, worker.agenda.turn[0]))


class Source(Spout):
    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.task = context.task_id
        self.sent = 0
        seen("open", self.task)

    def next_tuple(self) -> None:
        seen("next_tuple", self.task)
        if self.sent < 5:
            self.sent += 1
            self.emit([self.sent], message_id=self.sent)

    def ack(self, message_id: object) -> None:
        seen("ack", self.task)

    def close(self) -> None:
        seen("close", self.task)


class Relay(Bolt):
    outputs = ("n",)

    def prepare(self, context: TopologyContext) -> None:
        self.task = context.task_id
        seen("prepare", self.task)

    def execute(self, tup: Tuple) -> None:
        seen("execute", self.task)
        self.emit([tup[0]])

    def tick(self) -> None:
        seen("tick", self.task)

    def cleanup(self) -> None:
        seen("cleanup", self.task)


class Sink(Relay):
    def execute(self, tup: Tuple) -> None:
        seen("execute", self.task)


def test_the_task_in_a_call_is_shown() -> None:
    builder = TopologyBuilder("turns", config={"topology.tick.tuple.freq.secs": 1})
    builder.set_spout("source", Source())
    builder.set_bolt("relay", Relay(), parallelism=2).shuffle_grouping("source")
    builder.set_bolt("sink", Sink()).fields_grouping("relay", ["n"])
    bench = Bench(builder.create_topology(), 1)
    BENCH[:], SEEN[:] = [bench], []
    bench.run(lambda: bench.total("source", "acked") == 5)
    for _ in range(1100):
        bench.round()
    (worker,) = bench.alive.values()
    worker.stop(bench.clock.now())
    callbacks = {"open", "next_tuple", "ack", "close", "prepare", "execute", "tick", "cleanup"}
    assert {callback for callback, _, _ in SEEN} == callbacks
    assert [at for at in SEEN if at[1] != at[2]] == []
