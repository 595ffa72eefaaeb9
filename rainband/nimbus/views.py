"""Answers to questions: what people and tools see of the entries. Nothing here decides or changes anything."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping

from rainband.build import VERSION
from rainband.errors import Refused, TopologyNotFound, TopologyUnreadable, did_you_mean
from rainband.nimbus.roster import Roster
from rainband.nimbus.rows import Entry, unreadable
from rainband.nimbus.scheduler import workers_wanted
from rainband.records import ClusterSummary, Done, TopologySummary


def find(entries: Mapping[str, Entry], damaged: Mapping[str, str], name: str) -> Entry:
    """By name, or by topology id (the two never meet).

    Raises TopologyNotFound, or TopologyUnreadable for one that was set aside: `damaged` says why by key.
    """
    for entry in entries.values():
        if name in (entry.name, entry.topology_id):
            return entry
    if aside := unreadable(damaged, name):
        fix = "What runs of it goes on. Restore the state of Nimbus, or kill it"
        reason = damaged[f"topology/{aside}"]
        raise TopologyUnreadable(f"what is stored of {aside} cannot be read: {reason}", fix)
    names = sorted(entry.name for entry in entries.values())
    running = f"Running: {', '.join(names[:10])}" if names else "None is running"
    raise TopologyNotFound(f"no topology is named {name[:80]!r}", did_you_mean(name, names) or running)


def check_component(entry: Entry, component: str | None) -> None:
    """Raises Refused when the topology has no such component."""
    if component is not None and component not in entry.plan.components:
        known = sorted(name for name in entry.plan.components if not name.startswith("__"))
        fix = did_you_mean(component, known) or f"It has {', '.join(known)}"
        raise Refused(f"{entry.name} has no component {component[:80]!r}", fix)


def wanted(entry: Entry) -> int:
    """How many workers it asks for."""
    return workers_wanted(len(entry.plan.executors()), entry.plan.workers)


def accepted(entry: Entry, missing: int) -> Done:
    """The answer to its Submit."""
    if entry.assignment is not None:
        return Done(entry.topology_id)
    return Done(entry.topology_id, f"needs {count_slots(wanted(entry))}, {wanted(entry) - missing} free")


def count_slots(number: int) -> str:
    """`1 slot`, `2 slots`."""
    return f"{number} slot" + ("" if number == 1 else "s")


def uptime_s(entry: Entry, wall: float) -> float:
    return max(0.0, wall - entry.row.submitted_at)


def summary(entry: Entry, *, missing: int, running: int, due_s: float | None, wall: float) -> TopologySummary:
    """One row of the list; `due_s` is what is left of the wait of a kill or rebalance."""
    return TopologySummary(
        name=entry.name,
        topology_id=entry.topology_id,
        status=entry.shown_status,
        workers=wanted(entry),
        executors=len(entry.plan.executors()),
        tasks=sum(component.tasks for component in entry.plan.components.values()),
        uptime_s=uptime_s(entry, wall),
        slots_missing=missing,
        due_s=due_s,
        workers_running=running,
    )


def cluster(
    entries: Iterable[Entry], roster: Roster, now: float, *, nimbuses: tuple[str, ...], cluster_id: str, state: str
) -> ClusterSummary:
    """The `nimbuses`, the leader first, the supervisors and which of their slots are in use."""
    used: dict[str, list[int]] = {}
    for entry in entries:
        for slot in entry.slots:
            used.setdefault(slot.supervisor, []).append(slot.port)
    return ClusterSummary(
        leader=nimbuses[0],
        nimbuses=nimbuses,
        supervisors=roster.summaries(used, now),
        cluster_id=cluster_id,
        state=state,
        version=VERSION,
        python=platform.python_version(),
    )
