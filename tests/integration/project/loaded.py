"""Components under load, for tests on real daemons: everything they see goes to files in one directory."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path

from rainband import Bolt, ManualBolt, ReliableSpout, Spout, TopologyBuilder, TopologyContext, Tuple
from rainband.topology.components import Bolt as AnyBolt
from rainband.topology.graph import Topology

LOOK_S = 0.05
PAYLOAD = "x" * 200


class Lines:
    """Appends lines to one file, each call with one write."""

    def __init__(self, directory: str, name: str) -> None:
        self.file = os.open(Path(directory) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *lines: object) -> None:
        os.write(self.file, "".join(f"{line}\n" for line in lines).encode())


class Signal:
    """Whether somebody has made a file; looked at now and then."""

    def __init__(self, directory: str, name: str) -> None:
        self.path = Path(directory) / name
        self.there = False
        self.look_at = 0.0

    def __bool__(self) -> bool:
        now = time.monotonic()
        if not self.there and now >= self.look_at:
            self.look_at = now + LOOK_S
            self.there = self.path.exists()
        return self.there


class Flood(Spout):
    """Numbers without end and without a pause, until there is a file `end`."""

    outputs = ("n", "payload")

    def __init__(self, directory: str, tracked: bool) -> None:
        self.directory = directory
        self.tracked = tracked

    def open(self, context: TopologyContext) -> None:
        self.end = Signal(self.directory, "end")
        self.sent = self.acked = self.failed = 0

    def next_tuple(self) -> None:
        if self.end:
            self.finish()
            self.tell()
            return
        self.emit([self.sent, PAYLOAD], message_id=self.sent if self.tracked else None)
        self.sent += 1

    def ack(self, message_id: object) -> None:
        self.acked += 1

    def fail(self, message_id: object) -> None:
        self.failed += 1

    def close(self) -> None:
        self.tell()

    def tell(self) -> None:
        told = {"sent": self.sent, "acked": self.acked, "failed": self.failed}
        (Path(self.directory) / "told").write_text(json.dumps(told))


class Slow(Bolt):
    """Takes `work_s` for each tuple until there is a file `hurry`."""

    def __init__(self, directory: str, work_s: float) -> None:
        self.directory = directory
        self.work_s = work_s

    def prepare(self, context: TopologyContext) -> None:
        self.hurry = Signal(self.directory, "hurry")
        self.sunk = Lines(self.directory, "sunk-slow-0")

    def execute(self, tup: Tuple) -> None:
        if not self.hurry:
            time.sleep(self.work_s)
        self.sunk.write(tup["n"])


class Steady(ReliableSpout):
    """This task's share of the numbers from 0, `rate` a second, until there is a file `end`. Goes on where it was."""

    outputs = ("n",)

    def __init__(self, directory: str, rate: float) -> None:
        self.directory = directory
        self.rate = rate

    def open(self, context: TopologyContext) -> None:
        self.name = f"{context.component}-{context.task_index}"
        Lines(self.directory, f"made-{self.name}").write(os.getpid())
        self.end = Signal(self.directory, "end")
        self.at = context.task_index
        self.stride = len(context.tasks())
        self.due = time.monotonic()

    def next_tuple(self) -> None:
        now = time.monotonic()
        if self.end:
            self.finish()
            (Path(self.directory) / f"sent-{self.name}").write_text(str(self.at))
        elif now >= self.due:
            self.due = max(self.due, now - 0.1) + 1.0 / self.rate
            self.emit([self.at], message_id=self.at)
            self.at += self.stride

    def position(self) -> int:
        return self.at

    def seek(self, position: int) -> None:
        self.at = position


class Station(Bolt):
    """Writes down in which process it was made, and each number with how many it has seen; passes numbers on."""

    outputs = ("n",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        name = f"{context.component}-{context.task_index}"
        Lines(self.directory, f"made-{name}").write(os.getpid())
        self.sunk = Lines(self.directory, f"sunk-{name}")

    def execute(self, tup: Tuple) -> None:
        self.sunk.write(tup["n"])
        self.emit([tup["n"]])


class Timed(Spout):
    """`total` numbers, one each 10 ms; writes down how long each took until it failed or (negative) was acked."""

    outputs = ("n",)

    def __init__(self, directory: str, total: int) -> None:
        self.directory = directory
        self.total = total

    def open(self, context: TopologyContext) -> None:
        self.index = context.task_index
        self.sent: list[float] = []
        self.verdicts = Lines(self.directory, "verdicts")
        self.activity = Lines(self.directory, "activity")

    def activate(self) -> None:
        self.activity.write(f"activate {time.monotonic()}")

    def deactivate(self) -> None:
        self.activity.write(f"deactivate {time.monotonic()}")

    def next_tuple(self) -> None:
        now = time.monotonic()
        if len(self.sent) == self.total:
            self.finish()
        elif not self.sent or now >= self.sent[-1] + 0.01:
            self.emit([len(self.sent)], message_id=len(self.sent))
            self.sent.append(now)

    def ack(self, message_id: int) -> None:
        self.verdicts.write(f"{self.index}-{message_id} {self.sent[message_id] - time.monotonic()}")

    def fail(self, message_id: int) -> None:
        self.verdicts.write(f"{self.index}-{message_id} {time.monotonic() - self.sent[message_id]}")


class Keeps(ManualBolt):
    """Never acks."""

    def execute(self, tup: Tuple) -> None:
        pass


class Awaits(Bolt):
    """An async bolt; writes down how many of its calls were under way."""

    outputs = ("n",)
    max_in_flight = 8

    def __init__(self, directory: str) -> None:
        self.directory = directory

    async def prepare(self, context: TopologyContext) -> None:
        self.under_way = 0
        self.widths = Lines(self.directory, "widths-awaits")

    async def execute(self, tup: Tuple) -> None:
        self.under_way += 1
        self.widths.write(self.under_way)
        await asyncio.sleep(0.01)
        self.under_way -= 1
        self.emit([tup["n"]])


class Blocks(Bolt):
    """A bolt on a thread of its own."""

    outputs = ("n",)
    blocking = True

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.threads = Lines(self.directory, "threads-blocks")

    def execute(self, tup: Tuple) -> None:
        self.threads.write(threading.get_ident())
        time.sleep(0.005)
        self.emit([tup["n"]])


class Ticks(Bolt):
    """Writes down when it ticks, and what it gets."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.times = Lines(self.directory, "ticks")
        self.sunk = Lines(self.directory, "sunk-ticks-0")

    def execute(self, tup: Tuple) -> None:
        self.sunk.write(tup["n"])

    def tick(self) -> None:
        self.times.write(time.monotonic())


def flooded(directory: str, tracked: bool, work_s: float, config: dict[str, object]) -> Topology:
    """An unbounded spout before a slow sink, in a worker each."""
    builder = TopologyBuilder("flooded", config={"topology.workers": 2, **config})
    builder.set_spout("flood", Flood(directory, tracked))
    builder.set_bolt("slow", Slow(directory, work_s)).shuffle_grouping("flood")
    return builder.create_topology()


def moving(name: str, directory: str, rate: float, workers: int) -> Topology:
    """Two steady spouts, then stations by shuffle and by fields."""
    builder = TopologyBuilder(name, config={"topology.workers": workers})
    builder.set_spout("steady", Steady(directory, rate), parallelism=2)
    builder.set_bolt("relay", Station(directory), parallelism=3).shuffle_grouping("steady")
    builder.set_bolt("sink", Station(directory), parallelism=2, tasks=4).fields_grouping("relay", ["n"])
    return builder.create_topology()


def timed(
    name: str, directory: str, total: int, bolt: AnyBolt, config: dict[str, object], spouts: int = 1
) -> Topology:
    """Spouts that measure verdicts, `total` numbers each, and one bolt, over two workers."""
    builder = TopologyBuilder(name, config={"topology.workers": 2, **config})
    builder.set_spout("timed", Timed(directory, total), parallelism=spouts)
    builder.set_bolt("bolt", bolt).shuffle_grouping("timed")
    return builder.create_topology()


def beside(name: str, directory: str, total: int) -> Topology:
    """Async, then blocking, then a bolt that ticks, over three workers."""
    builder = TopologyBuilder(name, config={"topology.workers": 3})
    builder.set_spout("timed", Timed(directory, total))
    builder.set_bolt("awaits", Awaits(directory), parallelism=1).shuffle_grouping("timed")
    builder.set_bolt("blocks", Blocks(directory), parallelism=2).shuffle_grouping("awaits")
    ticks = {"topology.tick.tuple.freq.secs": 0.2}
    builder.set_bolt("ticks", Ticks(directory), config=ticks).shuffle_grouping("blocks")
    return builder.create_topology()
