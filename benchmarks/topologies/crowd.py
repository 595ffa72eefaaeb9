"""A topology of a hundred executors, for a cluster whose supervisors are only simulated."""

from __future__ import annotations

import first

from rainband import Topology, TopologyBuilder


def topology(workers: str) -> Topology:
    """As many executors as workers."""
    builder = TopologyBuilder("crowd")
    builder.set_spout("idle", first.Idle())
    builder.set_bolt("end", first.End(), parallelism=int(workers) - 1).shuffle_grouping("idle")
    return builder.create_topology()
