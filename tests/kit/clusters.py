"""A small plan, and what its workers and supervisors would report: for tests of Nimbus."""

from __future__ import annotations

from itertools import count

from rainband.records import Heartbeat, TaskCount, WorkerBeat, WorkerState
from rainband.topology.plan import ComponentPlan, InputPlan, Plan, StreamPlan

WALL = 1_700_000_000.0
MOMENTS = count(1)


def word_count(name: str = "wc", workers: int = 1, **fields: object) -> Plan:
    """lines -> 2 split -> 2 count of 4 tasks: tasks 1-4 count, 5 lines, 6-7 split."""
    lines = ComponentPlan("lines", "spout", {"default": StreamPlan(("line",))}, (), 1, 1, 64, level=2)
    shuffled = (InputPlan("lines", "default", "shuffle"),)
    split = ComponentPlan("split", "bolt", {"default": StreamPlan(("word",))}, shuffled, 2, 2, 128, level=1)
    counter = ComponentPlan("count", "bolt", {}, (InputPlan("split", "default", "fields", ("word",)),), 2, 4, 256)
    components = {"lines": lines, "split": split, "count": counter}
    return Plan(name, components, {"topology.workers": workers}, **fields)  # type: ignore[arg-type]


def beat(
    topology_id: str,
    port: int = 6700,
    incarnation: int = 1,
    *tasks: TaskCount,
    state: WorkerState = WorkerState.RUNNING,
    version: int = 1,
    **fields: object,
) -> WorkerBeat:
    """What a worker says now: each beat a moment later than the one before."""
    fields.setdefault("uptime_s", float(next(MOMENTS)))
    fields.setdefault("idle", not fields.get("in_flight"))
    return WorkerBeat(topology_id, port, 100, incarnation, version, state, tasks=tasks, **fields)  # type: ignore[arg-type]


def heartbeat(
    supervisor: str = "a", *workers: WorkerBeat, ports: tuple[int, ...] = (6700, 6701), **fields: object
) -> Heartbeat:
    return Heartbeat(supervisor, "127.0.0.1", 1, ports, workers, **fields)  # type: ignore[arg-type]
