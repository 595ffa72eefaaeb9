"""What runs inside bytewax: the word count and the chain as dataflows. Started by bytewax_peer in bytewax's
own venv.

`python bytewax_flow.py BENCH COUNT LINES METERS SECONDS ADDRESSES INDEX` runs one process; with addresses it
is one of a cluster. It stops by itself: the source ends after that many seconds. Its counters go to
METERS/PID.json in the form that `meters` reads. COUNT is `each` (one Python call per word, `stateful_map`, as
in the other engines) or `batch` (one per word and batch of a thousand lines, `stateful_batch`).
"""

# its package lives in a venv of its own
# mypy: disable-error-code="import-not-found, misc, has-type"
from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main

BATCH = 1000
SNAPSHOT_PERIOD_S = 0.2


class Meter:
    """This process's totals, written a few times a second and once at the end."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / f"{os.getpid()}.json"
        self.totals = {"roots": 0, "emitted": 0, "reached": 0, "distinct": 0}
        self.write_at = 0.0

    def write(self, now: float) -> None:
        self.write_at = now + SNAPSHOT_PERIOD_S
        partial = self.file.with_suffix(".tmp")
        partial.write_text(json.dumps({"time_ns": time.monotonic_ns(), **self.totals}))
        partial.replace(self.file)


class Batches(StatelessSourcePartition[str]):
    """The items round and round, a batch per call, until the time is up. Only the first worker reads."""

    def __init__(self, items: list[str], weights: list[int], seconds: float, meter: Meter) -> None:
        self.items, self.weights, self.meter = items, weights, meter
        self.until = time.monotonic() + seconds
        self.at = 0

    def next_batch(self) -> Iterable[str]:
        now = time.monotonic()
        if now >= self.until:
            raise StopIteration
        if now >= self.meter.write_at:
            self.meter.write(now)
        batch = slice(self.at, self.at + BATCH)
        found = self.items[batch]
        self.at = batch.stop if batch.stop < len(self.items) else 0
        self.meter.totals["roots"] += len(found)
        self.meter.totals["emitted"] += sum(self.weights[batch])
        return found


class Nothing(StatelessSourcePartition[str]):
    """What the other workers read."""

    def next_batch(self) -> Iterable[str]:
        raise StopIteration


class Source(DynamicSource[str]):
    """One reader, like the one spout of the other engines."""

    def __init__(self, bench: str, lines: Path, seconds: float, meter: Meter) -> None:
        self.bench, self.lines, self.seconds, self.meter = bench, lines, seconds, meter

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSourcePartition[str]:
        if worker_index:
            return Nothing()
        if self.bench == "chain":
            return Batches(["some data"] * BATCH, [1] * BATCH, self.seconds, self.meter)
        items = self.lines.read_text(encoding="utf-8").split("\n")[:-1]
        return Batches(items, [len(line.split()) for line in items], self.seconds, self.meter)


class Count(StatefulBatchLogic[str, int, int]):
    """How often one word came; what came is handed on as one number per batch."""

    def __init__(self, meter: Meter, resume: int | None) -> None:
        self.count = resume or 0
        meter.totals["distinct"] += 1

    def on_batch(self, batch: list[str]) -> tuple[Iterable[int], bool]:
        self.count += len(batch)
        return (len(batch),), StatefulBatchLogic.RETAIN

    def snapshot(self) -> int:
        return self.count


class Each:
    """The same, a word at a time."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def __call__(self, count: int | None, word: str) -> tuple[int, int]:
        if count is None:
            self.meter.totals["distinct"] += 1
            count = 0
        return count + 1, 1


class Total(StatelessSinkPartition[object]):
    """The end: adds up what was counted."""

    def __init__(self, bench: str, meter: Meter) -> None:
        self.keyed, self.meter = bench == "word-count", meter

    def write_batch(self, items: list[object]) -> None:
        reached = sum(count for _, count in items) if self.keyed else len(items)
        self.meter.totals["reached"] += reached
        now = time.monotonic()
        if now >= self.meter.write_at:
            self.meter.write(now)


class Sink(DynamicSink[object]):
    """One total per worker."""

    def __init__(self, bench: str, meter: Meter) -> None:
        self.bench, self.meter = bench, meter

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[object]:
        return Total(self.bench, self.meter)


def dataflow(bench: str, count: str, lines: Path, seconds: float, meter: Meter) -> Dataflow:
    """lines -> split -> count by word, or const -> id -> null."""
    flow = Dataflow(bench.replace("-", "_"))
    source = op.input("source", flow, Source(bench, lines, seconds, meter))
    if bench == "chain":
        op.output("null", op.map("id", source, lambda value: value), Sink(bench, meter))
        return flow
    words = op.key_on("word", op.flat_map("split", source, str.split), lambda word: word)
    if count == "each":
        counted = op.stateful_map("count", words, Each(meter))
    else:
        counted = op.stateful_batch("count", words, lambda resume: Count(meter, resume))
    op.output("total", counted, Sink(bench, meter))
    return flow


def main(bench: str, count: str, lines: str, meters: str, seconds: str, addresses: str, index: str) -> None:
    """One process of the flow, from start to end of input."""
    meter = Meter(Path(meters))
    flow = dataflow(bench, count, Path(lines), float(seconds), meter)
    cluster_main(flow, addresses.split(",") if addresses else [], int(index))
    meter.write(time.monotonic())


if __name__ == "__main__":
    main(*sys.argv[1:])
