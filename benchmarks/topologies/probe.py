"""What the components of the benchmarks count themselves, as files DIR/COMPONENT-TASK.json.

The workers' own counters say how many tuples ran; these say which, so that a result can be checked against the truth.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rainband import Bolt, Spout, TopologyContext, Tuple

SAMPLE = 64
PERIOD_NS = 500_000_000


def save(directory: str, context: TopologyContext, totals: dict[str, Any]) -> None:
    """Replace this task's file as a whole."""
    path = Path(directory, f"{context.component}-{context.task_index}.json")
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps({"time_ns": time.monotonic_ns(), **totals}))
    partial.replace(path)


def bucket(nanoseconds: int) -> int:
    """Microseconds to three significant binary digits and a half: at most 6 % too low."""
    micros = max(0, nanoseconds // 1000)
    shift = max(0, micros.bit_length() - 5)
    return micros >> shift << shift


class Source(Spout):
    """Emits row after row as fast as it may. Message ids are numbers; the latency of every 64th tree is taken."""

    outputs = ("value",)

    def __init__(self, directory: str, acking: bool) -> None:
        self.directory = directory
        self.acking = acking

    def open(self, context: TopologyContext) -> None:
        self.context = context
        self.emitted = self.acked = self.failed = 0
        self.begun: dict[int, int] = {}
        self.latency_us: dict[int, int] = {}
        self.write_at = 0
        self.rows = self.make_rows(context)

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        """The rows to emit round and round."""
        raise NotImplementedError

    def next_tuple(self) -> None:
        number = self.emitted
        self.emitted = number + 1
        rows = self.rows
        row = rows[number % len(rows)]
        if not self.acking:
            self.emit(row, message_id=None)
            return
        if number % SAMPLE == 0:
            self.begin(number)
        self.emit(row, message_id=number)

    def begin(self, number: int) -> None:
        """The latency of this tree is taken."""
        self.begun[number] = time.monotonic_ns()

    def next_batch(self) -> None:
        """As `next_tuple`, SAMPLE rows in a call."""
        first = self.emitted
        numbers = range(first, first + SAMPLE)
        self.emitted = numbers.stop
        count = len(self.rows)
        at = first % count
        rows = self.rows[at : at + SAMPLE]
        while len(rows) < SAMPLE:
            rows += self.rows[: SAMPLE - len(rows)]
        if self.acking:
            self.begin(first)
        self.emit_many(rows, message_ids=numbers if self.acking else [None] * SAMPLE)

    def ack(self, message_id: Any) -> None:
        self.acked += 1
        if message_id % SAMPLE == 0:
            now = time.monotonic_ns()
            began = self.begun.pop(message_id, now)
            at = bucket(now - began)
            self.latency_us[at] = self.latency_us.get(at, 0) + 1
            if now >= self.write_at:
                self.write_at = now + PERIOD_NS
                self.save()

    def fail(self, message_id: Any) -> None:
        self.failed += 1
        self.begun.pop(message_id, 0)

    def save(self) -> None:
        totals = {"emitted": self.emitted, "acked": self.acked, "failed": self.failed, "latency_us": self.latency_us}
        save(self.directory, self.context, totals)

    def close(self) -> None:
        self.save()


class Sink(Bolt):
    """Counts what reaches it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.context = context
        self.reached = 0

    def execute(self, tup: Tuple) -> None:
        self.reached += 1

    def cleanup(self) -> None:
        save(self.directory, self.context, {"reached": self.reached})
