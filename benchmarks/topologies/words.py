"""Word count: 1 spout with the lines of a file in memory, 2 split by shuffle, 2 count by fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import probe

from rainband import Bolt, Topology, TopologyBuilder, TopologyContext, Tuple


class Lines(probe.Source):
    """The lines, round and round."""

    outputs = ("line",)

    def __init__(self, directory: str, acking: bool, path: str) -> None:
        super().__init__(directory, acking)
        self.path = path

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        with Path(self.path).open(encoding="utf-8", newline="\n") as file:
            return [[line.rstrip("\n")] for line in file]


class LinesBatch(Lines):
    """Many lines in a call."""

    def next_tuple(self) -> None:
        self.next_batch()


class Split(Bolt):
    """A line into its words."""

    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        for word in tup["line"].split():
            self.emit([word])


class Count(Bolt):
    """How often each word came."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.context = context
        self.counts: dict[str, int] = {}

    def execute(self, tup: Tuple) -> None:
        word = tup["word"]
        self.counts[word] = self.counts.get(word, 0) + 1

    def cleanup(self) -> None:
        probe.save(self.directory, self.context, {"counts": self.counts})


class SplitBatch(Bolt):
    """Many lines at once into their words."""

    outputs = ("word",)

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.emit_many([(word,) for tup in tups for word in tup.values[0].split()])


class CountBatch(Bolt):
    """Counts many words at once."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.context = context
        self.counts: Counter[str] = Counter()

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.counts.update([tup.values[0] for tup in tups])

    def cleanup(self) -> None:
        probe.save(self.directory, self.context, {"counts": self.counts})


def topology(directory: str, acking: str, path: str, door: str) -> Topology:
    """`door`: "each" for emit and execute, "batch" for emit_many and execute_batch."""
    builder = TopologyBuilder("word-count")
    lines = LinesBatch if door == "batch" else Lines
    builder.set_spout("lines", lines(directory, acking == "yes", path))
    split = SplitBatch() if door == "batch" else Split()
    count = CountBatch(directory) if door == "batch" else Count(directory)
    builder.set_bolt("split", split, parallelism=2).shuffle_grouping("lines")
    builder.set_bolt("count", count, parallelism=2).fields_grouping("split", ["word"])
    return builder.create_topology()
