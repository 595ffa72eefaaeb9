"""Numbered rows through two hops of one grouping each, into files: numbers -> relay -> sink, once per kind.

A sink's task appends the numbers it got to `sunk-KIND-INDEX`, many lines with one write; a spout's task leaves
`told-KIND-INDEX`, how many acks and fails it was told. Judged by compare.py, which imports nothing of rainband.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rainband import Bolt, CustomGrouping, DirectStream, Spout, TopologyBuilder, TopologyContext, Tuple
from rainband.topology.graph import Topology

KINDS = ("shuffle", "fields", "partial_key", "all", "global", "none", "direct", "local_or_shuffle", "custom")
KEYS = 1009
LINES = 4096
FIELDS = ("n", "key")


class Pairwise(CustomGrouping):
    """Two numbers after one another go together."""

    def prepare(self, context: TopologyContext, tasks: Sequence[int]) -> None:
        self.tasks = tasks

    def choose_tasks(self, values: Sequence[object]) -> Sequence[int]:
        number = values[0]
        assert isinstance(number, int)
        return (self.tasks[number // 2 % len(self.tasks)],)


class Numbers(Spout):
    """This task's share of 0..total-1, tracked or not, `rate` numbers a second or (0) as fast as it goes."""

    def __init__(self, directory: str, kind: str, total: int, tracked: bool, rate: float) -> None:
        self.directory = directory
        self.kind = kind
        self.total = total
        self.tracked = tracked
        self.interval_s = 1.0 / rate if rate else 0.0
        self.outputs = outputs(kind)

    def open(self, context: TopologyContext) -> None:
        self.told = Path(self.directory) / f"told-{self.kind}-{context.task_index}"
        self.rows = iter(range(context.task_index, self.total, len(context.tasks())))
        self.targets = context.tasks(f"relay-{self.kind}")
        self.acked = self.failed = 0
        self.due = time.monotonic()

    def next_tuple(self) -> None:
        if self.interval_s:
            if time.monotonic() < self.due:
                return
            self.due += self.interval_s
        number = next(self.rows, None)
        if number is None:
            self.finish()
            return
        row = (number, f"key {number % KEYS}")
        message_id = number if self.tracked else None
        if self.kind == "direct":
            self.emit_direct(self.targets[number % len(self.targets)], row, message_id=message_id)
        else:
            self.emit(row, message_id=message_id)

    def ack(self, message_id: object) -> None:
        self.acked += 1

    def fail(self, message_id: object) -> None:
        self.failed += 1

    def close(self) -> None:
        self.told.write_text(json.dumps({"acked": self.acked, "failed": self.failed}))


class Relay(Bolt):
    """Passes rows on."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.outputs = outputs(kind)

    def prepare(self, context: TopologyContext) -> None:
        self.targets = context.tasks(f"sink-{self.kind}")

    def execute(self, tup: Tuple) -> None:
        if self.kind == "direct":
            self.emit_direct(self.targets[tup["n"] % len(self.targets)], tup.values)
        else:
            self.emit(tup.values)


class Sink(Bolt):
    """Writes down what it gets."""

    def __init__(self, directory: str, kind: str) -> None:
        self.directory = directory
        self.kind = kind

    def prepare(self, context: TopologyContext) -> None:
        path = Path(self.directory) / f"sunk-{self.kind}-{context.task_index}"
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.lines: list[bytes] = []

    def execute(self, tup: Tuple) -> None:
        self.lines.append(b"%d\n" % tup["n"])
        if len(self.lines) >= LINES:
            self.tick()

    def tick(self) -> None:
        if self.lines:
            os.write(self.file, b"".join(self.lines))
            self.lines.clear()

    def cleanup(self) -> None:
        self.tick()


def outputs(kind: str) -> dict[str, tuple[str, ...] | DirectStream]:
    return {"default": DirectStream(*FIELDS) if kind == "direct" else FIELDS}


def counted(
    directory: str,
    kinds: Sequence[str],
    total: int,
    config: dict[str, object],
    tracked: bool = True,
    rate: float = 0.0,
) -> Topology:
    """One chain per kind: two tasks of numbers, three of relay, two of sink."""
    builder = TopologyBuilder("counted", config=config)
    for kind in kinds:
        builder.set_spout(f"numbers-{kind}", Numbers(directory, kind, total, tracked, rate), parallelism=2)
        relay = builder.set_bolt(f"relay-{kind}", Relay(kind), parallelism=3)
        ticks = {"topology.tick.tuple.freq.secs": 0.5}
        sink = builder.set_bolt(f"sink-{kind}", Sink(directory, kind), parallelism=2, config=ticks)
        for declarer, source in ((relay, f"numbers-{kind}"), (sink, f"relay-{kind}")):
            if kind == "custom":
                declarer.custom_grouping(source, Pairwise())
            elif kind in ("fields", "partial_key"):
                getattr(declarer, f"{kind}_grouping")(source, ["key"])
            else:
                getattr(declarer, f"{kind}_grouping")(source)
    return builder.create_topology()
