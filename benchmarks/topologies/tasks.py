"""The word count over more or fewer tasks."""

from __future__ import annotations

import probe
import words

from rainband import Topology, TopologyBuilder


def topology(directory: str, path: str, tasks: str) -> Topology:
    """`tasks` in all, one spout among them, the others shared by split and count."""
    half = max(1, (int(tasks) - 1) // 2)
    builder = TopologyBuilder("tasks")
    builder.set_spout("lines", words.Lines(directory, True, path))
    builder.set_bolt("split", words.Split(), parallelism=half).shuffle_grouping("lines")
    builder.set_bolt("count", Tally(directory), parallelism=half).fields_grouping("split", ["word"])
    return builder.create_topology()


class Tally(probe.Sink):
    """Counts words in all, not each: a thousand books of words would measure the processor's cache."""
