"""Tells when its first tuple was acked. Imports nothing but the standard library."""

from __future__ import annotations

import time
from pathlib import Path

from rainband import Bolt, Spout, Topology, TopologyBuilder, Tuple


class Once(Spout):
    """A tuple now and then; writes the monotonic time of the first ack to a file."""

    outputs = ("value",)

    def __init__(self, path: str) -> None:
        self.path = path
        self.told = False

    def next_tuple(self) -> None:
        self.emit(["x"], message_id=1)

    def ack(self, message_id: object) -> None:
        if not self.told:
            self.told = True
            partial = Path(self.path + ".tmp")
            partial.write_text(str(time.monotonic_ns()))
            partial.replace(self.path)


class Idle(Spout):
    """Nothing at all."""

    outputs = ("value",)

    def next_tuple(self) -> None:
        pass


class End(Bolt):
    """Takes what comes."""

    def execute(self, tup: Tuple) -> None:
        pass


def topology(directory: str) -> Topology:
    builder = TopologyBuilder("first")
    builder.set_spout("once", Once(directory + "/acked"), config={"topology.max.spout.pending": 1})
    builder.set_bolt("end", End()).shuffle_grouping("once")
    return builder.create_topology()


def idle() -> Topology:
    builder = TopologyBuilder("idle")
    builder.set_spout("idle", Idle())
    builder.set_bolt("end", End()).shuffle_grouping("idle")
    return builder.create_topology()
