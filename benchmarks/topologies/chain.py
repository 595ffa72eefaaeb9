"""const -> id -> null: nothing but the runtime's own work for three tuples' hops."""

from __future__ import annotations

from typing import Any

import probe

from rainband import Bolt, Topology, TopologyBuilder, TopologyContext, Tuple


class Const(probe.Source):
    """The same value for ever."""

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        return []

    def next_tuple(self) -> None:
        number = self.emitted
        self.emitted = number + 1
        if not self.acking:
            self.emit(["some data"], message_id=None)
            return
        if number % probe.SAMPLE == 0:
            self.begin(number)
        self.emit(["some data"], message_id=number)


class Id(Bolt):
    """What came in goes out."""

    outputs = ("value",)

    def execute(self, tup: Tuple) -> None:
        self.emit([tup[0]])


def topology(directory: str, acking: str) -> Topology:
    builder = TopologyBuilder("chain")
    builder.set_spout("const", Const(directory, acking == "yes"))
    builder.set_bolt("id", Id()).shuffle_grouping("const")
    builder.set_bolt("null", probe.Sink(directory)).shuffle_grouping("id")
    return builder.create_topology()
