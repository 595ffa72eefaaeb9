"""A spout that could emit far more than its bolt can take."""

from __future__ import annotations

import time
from typing import Any

import probe

from rainband import Topology, TopologyBuilder, TopologyContext, Tuple

EXECUTE_S = 0.0002


class Rows(probe.Source):
    """Strings of 100 characters."""

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        return [[str(number) * 20] for number in range(10_000, 20_000)]


class Slow(probe.Sink):
    """Takes 0.2 ms for each tuple."""

    def execute(self, tup: Tuple) -> None:
        until = time.perf_counter() + EXECUTE_S
        while time.perf_counter() < until:
            pass
        self.reached += 1


def topology(directory: str) -> Topology:
    builder = TopologyBuilder("overload")
    builder.set_spout("rows", Rows(directory, True))
    builder.set_bolt("sink", Slow(directory)).shuffle_grouping("rows")
    return builder.create_topology()
