"""Entries with another assignment: a new schedule, or a new status, in a version above the old one. Pure.

Where a topology is `topology.exclusive`, a task that moves is taken from its old place first, and runs in the new one
once it has surely ended there: its supervisor has said so, or its lease is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from rainband.cluster.store import EPOCH_MAX
from rainband.nimbus.roster import Roster
from rainband.nimbus.rows import Entry
from rainband.nimbus.scheduler import Schedule
from rainband.records import Assignment, Leaving, Placement


def scheduled(entry: Entry, schedule: Schedule, roster: Roster, reached: Mapping[int, bytes], epoch: int) -> Entry:
    """With the schedule as its assignment. Without any slot what was stays; a first one wants all its slots.

    `reached` are the positions its spouts have told of since the old one.
    """
    old = entry.assignment
    if not schedule.slots or (old is None and schedule.missing):
        return entry
    version = old.version + 1 if old is not None else 1
    before = {p.executor: p for p in old.placements} if old is not None else {}
    placements = tuple([
        known
        if (known := before.get(executor)) is not None and known.slot == slot
        else Placement(executor, slot, version)
        for executor, slot in schedule.slots.items()
    ])
    leaving = still_leaving(entry, schedule, roster, (epoch, version))
    hosts, keys = roster.addresses(schedule.slots.values(), old)
    if old is not None and (old.placements, old.leaving, old.hosts, old.keys) == (placements, leaving, hosts, keys):
        return entry
    positions = {**(old.positions if old is not None else {}), **reached}
    new = Assignment(entry.topology_id, version, entry.row.status, placements, hosts, epoch, keys, positions, leaving)
    return replace(entry, assignment=new)


def still_leaving(
    entry: Entry, schedule: Schedule, roster: Roster, since: tuple[int, int]
) -> tuple[Leaving, ...]:
    """Tasks of an exclusive topology that have to end somewhere before they may run where the schedule puts them."""
    old = entry.assignment
    if old is None or not entry.plan.config.get("topology.exclusive", False):
        return ()
    goes = {task: slot for e, slot in schedule.slots.items() for task in range(e.first, e.last + 1)}
    left = roster.still_there(old)
    for task, home in old.homes().items():
        if goes.get(task) != home.slot and roster.liveness.alive(home.slot.supervisor):
            left.append(Leaving(task, home.slot, since))
    return tuple(left)


def released(entry: Entry, roster: Roster, epoch: int) -> Entry:
    """Without those that were leaving and have ended: they run where they are placed now."""
    old = entry.assignment
    if old is None:
        return entry
    left = tuple(roster.still_there(old))
    if left == old.leaving:
        return entry
    return replace(entry, assignment=msgspec.structs.replace(old, leaving=left, version=old.version + 1, epoch=epoch))


def announced(entry: Entry, epoch: int) -> Entry:
    """With an assignment that tells the workers the status."""
    old = entry.assignment
    if old is None or old.status == entry.row.status:
        return entry
    new = msgspec.structs.replace(old, status=entry.row.status, version=old.version + 1, epoch=epoch)
    return replace(entry, assignment=new)


def raised(entry: Entry, known: tuple[int, int], epoch: int) -> Entry:
    """With the same assignment above the (epoch, version) that a supervisor has, if that was ever above ours.

    So it is after the store was brought back from a copy. What a later leader wrote is not ours to outdo.
    """
    old = entry.assignment
    heard_epoch, heard = known
    if old is None or known <= (old.epoch, old.version) or heard_epoch > epoch or heard >= EPOCH_MAX:
        return entry
    new = msgspec.structs.replace(old, version=max(old.version, heard) + 1, epoch=epoch)
    return replace(entry, assignment=new)
