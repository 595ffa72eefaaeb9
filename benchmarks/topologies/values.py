"""Values of many bytes, and numpy arrays, across workers."""

from __future__ import annotations

import importlib
from typing import Any

import probe

from rainband import Bolt, Topology, TopologyBuilder, TopologyContext, Tuple


class Blocks(probe.Source):
    """Sixteen different blocks of `size` bytes."""

    def __init__(self, directory: str, acking: bool, size: int) -> None:
        super().__init__(directory, acking)
        self.size = size

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        return [[bytes([number]) * self.size] for number in range(16)]


class Columns(Blocks):
    """The same as arrays of 64-bit floats."""

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        numpy: Any = importlib.import_module("numpy")
        return [[numpy.full(self.size // 8, float(number))] for number in range(16)]


class Measure(probe.Sink):
    """Counts tuples and the bytes in them."""

    def prepare(self, context: TopologyContext) -> None:
        super().prepare(context)
        self.bytes = 0

    def execute(self, tup: Tuple) -> None:
        value = tup[0]
        self.reached += 1
        self.bytes += value.nbytes if hasattr(value, "nbytes") else len(value)

    def cleanup(self) -> None:
        probe.save(self.directory, self.context, {"reached": self.reached, "bytes": self.bytes})


class Pass(Bolt):
    """What came in goes out."""

    outputs = ("value",)

    def execute(self, tup: Tuple) -> None:
        self.emit([tup[0]])


def blocks(directory: str, acking: str, size: str) -> Topology:
    return chained("size", Blocks(directory, acking == "yes", int(size)), directory)


def columns(directory: str, acking: str, size: str) -> Topology:
    return chained("columns", Columns(directory, acking == "yes", int(size)), directory)


def chained(name: str, source: probe.Source, directory: str) -> Topology:
    builder = TopologyBuilder(name)
    builder.set_spout("source", source)
    builder.set_bolt("pass", Pass()).shuffle_grouping("source")
    builder.set_bolt("sink", Measure(directory)).shuffle_grouping("pass")
    return builder.create_topology()
