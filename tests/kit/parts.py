"""Spouts and bolts for the engine's tests: numbered rows in, everything seen kept by the sink."""

from __future__ import annotations

from rainband.topology.components import Bolt, ManualBolt, ReliableSpout, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.tuples import Tuple


class Numbers(Spout):
    """Rows (n,) for this task's share of 0..total-1, tracked unless told otherwise."""

    outputs = ("n",)

    def __init__(self, total: int, tracked: bool = True) -> None:
        self.total = total
        self.tracked = tracked

    def open(self, context: TopologyContext) -> None:
        self.rows = iter(range(context.task_index, self.total, len(context.tasks())))
        self.acked: list[int] = []
        self.failed: list[int] = []

    def next_tuple(self) -> None:
        number = next(self.rows, None)
        if number is None:
            self.finish()
        else:
            self.emit([number], message_id=number if self.tracked else None)

    def ack(self, message_id: int) -> None:
        self.acked.append(message_id)

    def fail(self, message_id: int) -> None:
        self.failed.append(message_id)


class ReliableNumbers(ReliableSpout):
    """The same with replay by the runtime and a position that survives the worker."""

    outputs = ("n",)
    retry_delay_s = 0.01

    def __init__(self, total: int) -> None:
        self.total = total

    def open(self, context: TopologyContext) -> None:
        self.at = context.task_index
        self.stride = len(context.tasks())
        self.acked: list[int] = []
        self.dead: list[int] = []

    def next_tuple(self) -> None:
        if self.at >= self.total:
            self.finish()
            return
        self.emit([self.at], message_id=self.at)
        self.at += self.stride

    def ack(self, message_id: int) -> None:
        self.acked.append(message_id)

    def fail(self, message_id: int) -> None:
        self.dead.append(message_id)

    def position(self) -> int:
        return self.at

    def seek(self, position: int) -> None:
        self.at = position


class Pass(Bolt):
    """Emits what it gets."""

    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["n"]])


class Twice(Bolt):
    """Emits what it gets two times."""

    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["n"]])
        self.emit([tup["n"]])


class Pairs(ManualBolt):
    """Holds tuples until it has two, then emits both anchored to both: multi-anchoring."""

    outputs = ("n",)

    def prepare(self, context: TopologyContext) -> None:
        self.held: list[Tuple] = []

    def execute(self, tup: Tuple) -> None:
        self.held.append(tup)
        if len(self.held) == 2:
            self.release()

    def tick(self) -> None:
        self.release()

    def release(self) -> None:
        held, self.held = self.held, []
        for tup in held:
            self.emit([tup["n"]], anchors=held)
        for tup in held:
            self.ack(tup)


class Sink(Bolt):
    """Keeps what it saw."""

    def prepare(self, context: TopologyContext) -> None:
        self.seen: list[object] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup["n"])


class Poison(Bolt):
    """Raises for every tuple whose number is in `bad`."""

    outputs = ("n",)

    def __init__(self, bad: frozenset[int]) -> None:
        self.bad = bad

    def execute(self, tup: Tuple) -> None:
        if tup["n"] in self.bad:
            raise ValueError(f"cannot take {tup['n']}")
        self.emit([tup["n"]])
