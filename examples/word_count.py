"""Count the words of files, and show the most frequent ones at the end.

    rainband local examples/word_count.py -- FILE...        (default: the examples themselves)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rainband import Bolt, ReliableSpout, Topology, TopologyBuilder, TopologyContext, Tuple

SHOWN = 10


class Lines(ReliableSpout):
    """Every line of every file, under its place as message id: what fails on the way is replayed."""

    outputs = ("line",)

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def open(self, context: TopologyContext) -> None:
        mine = self.files[context.task_index :: len(context.tasks())]
        self.lines = self.read(mine)

    def read(self, files: list[str]) -> Iterator[tuple[str, int, str]]:
        for file in files:
            with open(file, encoding="utf-8", errors="replace") as source:
                for number, line in enumerate(source, 1):
                    yield file, number, line

    def next_tuple(self) -> None:
        row = next(self.lines, None)
        if row is None:
            self.finish()
        else:
            file, number, line = row
            self.emit([line], message_id=(file, number))


class Split(Bolt):
    """A line into its words."""

    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        for word in tup["line"].split():
            self.emit([word])


class Count(Bolt):
    """How often each word has come so far. Fields grouping brings equal words to one task."""

    outputs = ("word", "count")

    def prepare(self, context: TopologyContext) -> None:
        self.counts: Counter[str] = Counter()

    def execute(self, tup: Tuple) -> None:
        word = tup["word"]
        self.counts[word] += 1
        self.emit([word, self.counts[word]])


class Report(Bolt):
    """Keeps the newest count of each word and prints the highest at the end."""

    def prepare(self, context: TopologyContext) -> None:
        self.newest: dict[str, int] = {}

    def execute(self, tup: Tuple) -> None:
        word, count = tup
        self.newest[word] = max(count, self.newest.get(word, 0))

    def top(self) -> list[tuple[str, int]]:
        return sorted(self.newest.items(), key=lambda row: (-row[1], row[0]))[:SHOWN]

    def cleanup(self) -> None:
        for word, count in self.top():
            print(f"{count:8,} {word}")


def topology(*files: str) -> Topology:
    """Called with what follows `--` on the command line."""
    found = list(files) or sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
    builder = TopologyBuilder("word-count")
    builder.set_spout("lines", Lines(found))
    builder.set_bolt("split", Split(), parallelism=2).shuffle_grouping("lines")
    builder.set_bolt("count", Count(), parallelism=2).fields_grouping("split", ["word"])
    builder.set_bolt("report", Report()).global_grouping("count")
    return builder.create_topology()
