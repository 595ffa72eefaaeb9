"""The topology that is attacked: numbered lines of a durable file, through every kind of grouping, into files.

    numbers -shuffle-> relay -fields--> keyed -fields--> sink      (keyed: counts per number, as a stateful bolt would)
                             -shuffle-> pairs -shuffle-> sink      (pairs: holds two tuples, anchors to both)
                             -all-----> wide                       (wide: every task gets every number; writes by batch)

Each write is one line `number time` by one write(2) on an O_APPEND descriptor, before the tuple is acked; the time is
CLOCK_MONOTONIC, the same in every process of a machine. What is written is judged by oracle.py, which imports nothing
of rainband.

A file `do-COMPONENT` in the directory is an order to one task of that component: see `obey`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rainband import Bolt, ManualBolt, ReliableSpout, TopologyBuilder, TopologyContext, Tuple
from rainband.topology.graph import Topology

LINE_BYTES = 10
BLOCK_LINES = 4096
LOOK_S = 0.05
BEHIND_S = 0.25
REMEMBERED_MAX = 10_000


class Journal:
    """Appends `number time` lines to one file; any number of processes may have it open."""

    def __init__(self, directory: str, name: str) -> None:
        self.descriptor = os.open(Path(directory) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *numbers: int) -> None:
        now = time.monotonic()
        os.write(self.descriptor, b"".join(b"%d %.6f\n" % (number, now) for number in numbers))


class Orders:
    """Looks now and then for a file `do-COMPONENT`; the task that takes it away carries it out."""

    def __init__(self, directory: str, component: str, context: TopologyContext | None = None) -> None:
        self.path = Path(directory) / f"do-{component}"
        self.context = context
        self.look_at = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if now >= self.look_at:
            self.look_at = now + LOOK_S
            if self.path.exists():
                taken = self.path.with_name(f"{self.path.name}-{os.getpid()}")
                try:
                    self.path.rename(taken)
                except OSError:
                    return
                what, *arguments = taken.read_text().split()
                if what == "confess" and self.context is not None:
                    confess(self.context, *arguments)
                obey(what, *arguments)


def confess(context: TopologyContext, *names: str) -> None:
    """Fail with secrets in hand: nobody may learn more of them than their code says."""
    secrets = [context.secret(name) for name in names]
    raise RuntimeError(f"{len(secrets)} secrets of {sum(map(len, secrets))} letters did not help")


def obey(what: str, *arguments: str) -> None:
    """Do what a buggy or unlucky component might."""
    if what == "segfault":
        ctypes.string_at(0)
    elif what == "abort":
        os.abort()
    elif what == "_exit":
        os._exit(int(arguments[0]))
    elif what == "exit":
        sys.exit(int(arguments[0]))
    elif what == "interrupt":
        raise KeyboardInterrupt
    elif what == "cancel":
        raise asyncio.CancelledError
    elif what == "raise":
        raise RuntimeError(" ".join(arguments))
    elif what == "sleep":
        time.sleep(float(arguments[0]))
    elif what == "spin":
        until = time.monotonic() + float(arguments[0])
        while time.monotonic() < until:
            pass
    elif what == "hold":
        ctypes.PyDLL(None).sleep(int(arguments[0]))  # in C, and no other Python thread may run
    elif what == "eat":
        memory = [bytearray(b"x" * (1 << 20)) for _ in range(int(arguments[0]))]
        raise RuntimeError(f"ate {len(memory)} MiB and still hungry")
    elif what == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif what == "shout":
        for _ in range(int(arguments[0])):
            sys.stdout.write("x" * 1023 + "\n")
    elif what == "files":
        held = every_descriptor()
        time.sleep(float(arguments[0]))
        close_all(held)
    elif what == "hoard":
        threading.Timer(float(arguments[0]), close_all, [every_descriptor()]).start()
    else:
        raise ValueError(f"no such order: {what}")


def every_descriptor() -> list[int]:
    """Opened, until there is none left."""
    held: list[int] = []
    try:
        while len(held) < 1 << 20:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    return held


def close_all(held: list[int]) -> None:
    for descriptor in held:
        os.close(descriptor)


class Numbers(ReliableSpout):
    """Reads `source-INDEX`, LINE_BYTES a number, at most `rate` of them a second, up to the line that `end` says."""

    outputs = ("n",)
    retry_delay_s = 0.2
    max_retries = 1000

    def __init__(self, directory: str, rate: float) -> None:
        self.directory = directory
        self.rate = rate

    def open(self, context: TopologyContext) -> None:
        index = context.task_index
        self.source = os.open(Path(self.directory) / f"source-{index}", os.O_RDONLY)
        self.end_file = Path(self.directory) / "end"
        self.emitted = Journal(self.directory, "emitted")
        self.acked = Journal(self.directory, "acked")
        self.line = 0
        self.end: int | None = None
        self.block: list[int] = []
        self.block_at = 0
        self.orders = Orders(self.directory, "numbers")
        self.look_at = 0.0
        self.due = time.monotonic()

    def next_tuple(self) -> None:
        now = time.monotonic()
        if now >= self.look_at:
            self.look_at = now + LOOK_S
            if self.end is None and self.end_file.exists():
                self.end = int(self.end_file.read_text())
            self.orders.look()
        if self.end is not None and self.line >= self.end:
            self.finish()
            return
        if now < self.due:
            return
        self.due = max(self.due, now - BEHIND_S) + 1.0 / self.rate
        if not self.block_at <= self.line < self.block_at + len(self.block):
            data = os.pread(self.source, BLOCK_LINES * LINE_BYTES, self.line * LINE_BYTES)
            self.block = [int(text) for text in data.split()]
            self.block_at = self.line
            if not self.block:
                return
        number = self.block[self.line - self.block_at]
        self.emitted.write(number)
        self.emit([number], message_id=number)
        self.line += 1

    def ack(self, message_id: int) -> None:
        self.acked.write(message_id)

    def position(self) -> int:
        return self.line

    def seek(self, position: int) -> None:
        self.line = position


class Relay(Bolt):
    """Passes numbers on."""

    outputs = ("n",)

    def __init__(self, directory: str, work_s: float = 0.0) -> None:
        self.directory = directory
        self.work_s = work_s

    def prepare(self, context: TopologyContext) -> None:
        self.orders = Orders(self.directory, context.component, context)
        self.relayed = Journal(self.directory, "relayed")
        (Path(self.directory) / f"prepared-{os.getpid()}").touch()
        broken = Path(self.directory) / "broken-prepare"
        if broken.exists():
            raise OSError(f"{broken} says no")

    def execute(self, tup: Tuple) -> None:
        self.orders.look()
        if self.work_s:
            time.sleep(self.work_s)
        self.relayed.write(tup[0])
        self.emit([tup[0]])


class Keyed(Bolt):
    """Counts how often it saw each number and passes both on."""

    outputs = ("n", "seen")

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.orders = Orders(self.directory, context.component)
        self.seen: Counter[int] = Counter()

    def execute(self, tup: Tuple) -> None:
        self.orders.look()
        if len(self.seen) == REMEMBERED_MAX:
            self.seen.clear()
        self.seen[tup["n"]] += 1
        self.emit([tup["n"], self.seen[tup["n"]]])


class Pairs(ManualBolt):
    """Holds a tuple until the next or the tick comes, then emits both, each anchored to both."""

    outputs = ("n",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.orders = Orders(self.directory, context.component)
        self.held: list[Tuple] = []

    def execute(self, tup: Tuple) -> None:
        self.orders.look()
        self.held.append(tup)
        if len(self.held) == 2:
            self.tick()

    def tick(self) -> None:
        held, self.held = self.held, []
        for tup in held:
            self.emit([tup["n"]], anchors=held)
        for tup in held:
            self.ack(tup)


class Wide(Bolt):
    """Writes down what it gets, a batch at a time."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.orders = Orders(self.directory, context.component)
        self.journal = Journal(self.directory, f"sunk-wide-{context.task_index}")

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.orders.look()
        self.journal.write(*[tup[0] for tup in tups])


class Sink(Bolt):
    """Writes down what it gets, by the component it comes from."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.orders = Orders(self.directory, context.component)
        self.journals = {name: Journal(self.directory, f"sunk-{name}") for name in ("keyed", "pairs", "relay")}

    def execute(self, tup: Tuple) -> None:
        self.orders.look()
        self.journals[tup.component].write(tup[0])


def full(name: str, directory: str, rate: float, config: dict[str, object]) -> Topology:
    """Every grouping. Sinks: keyed, pairs, wide-0, wide-1."""
    builder = TopologyBuilder(name, config=config)
    builder.set_spout("numbers", Numbers(directory, rate))
    builder.set_bolt("relay", Relay(directory), parallelism=2).shuffle_grouping("numbers")
    builder.set_bolt("keyed", Keyed(directory), parallelism=2).fields_grouping("relay", ["n"])
    pairs = builder.set_bolt("pairs", Pairs(directory), config={"topology.tick.tuple.freq.secs": 0.5})
    pairs.shuffle_grouping("relay")
    builder.set_bolt("wide", Wide(directory), parallelism=2).all_grouping("relay")
    sink = builder.set_bolt("sink", Sink(directory), parallelism=2)
    sink.fields_grouping("keyed", ["n"]).shuffle_grouping("pairs")
    return builder.create_topology()


def chain(name: str, directory: str, rate: float, config: dict[str, object], work_s: float = 0.0) -> Topology:
    """numbers -> relay -> sink, one task each: with as many workers each has its own. Sink: relay."""
    builder = TopologyBuilder(name, config=config)
    builder.set_spout("numbers", Numbers(directory, rate))
    builder.set_bolt("relay", Relay(directory, work_s)).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink(directory)).fields_grouping("relay", ["n"])
    return builder.create_topology()
