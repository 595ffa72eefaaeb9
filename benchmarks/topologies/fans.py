"""Many receivers of each tuple, many senders to one receiver, and keys of which some come far more often."""

from __future__ import annotations

from itertools import accumulate
from random import Random
from typing import Any

import probe

from rainband import Topology, TopologyBuilder, TopologyContext

KEYS = 10_000
ROWS = 100_000


class Numbers(probe.Source):
    """Small whole numbers."""

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        return [[number] for number in range(1000)]


class Skewed(probe.Source):
    """Keys drawn by Zipf's law with exponent 1.1: the first makes a seventh of all."""

    def make_rows(self, context: TopologyContext) -> list[list[Any]]:
        weights = list(accumulate(rank**-1.1 for rank in range(1, KEYS + 1)))
        return [[f"key-{key}"] for key in Random(1).choices(range(KEYS), cum_weights=weights, k=ROWS)]


def fan_out(directory: str, acking: str, receivers: str) -> Topology:
    """Every tuple to every receiver."""
    builder = TopologyBuilder("fan-out")
    builder.set_spout("numbers", Numbers(directory, acking == "yes"))
    builder.set_bolt("sink", probe.Sink(directory), parallelism=int(receivers)).all_grouping("numbers")
    return builder.create_topology()


def fan_in(directory: str, acking: str, senders: str) -> Topology:
    """Every tuple to the one receiver."""
    builder = TopologyBuilder("fan-in")
    builder.set_spout("numbers", Numbers(directory, acking == "yes"), parallelism=int(senders))
    builder.set_bolt("sink", probe.Sink(directory)).global_grouping("numbers")
    return builder.create_topology()


def skew(directory: str, acking: str, grouping: str) -> Topology:
    """`grouping`: fields or partial_key."""
    builder = TopologyBuilder("skew")
    builder.set_spout("keys", Skewed(directory, acking == "yes"))
    sink = builder.set_bolt("sink", probe.Sink(directory), parallelism=4)
    if grouping == "fields":
        sink.fields_grouping("keys", ["value"])
    else:
        sink.partial_key_grouping("keys", ["value"])
    return builder.create_topology()
