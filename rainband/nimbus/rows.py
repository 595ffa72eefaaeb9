"""What Nimbus stores, and how it reads it back: rows are untrusted, one that cannot be read is set aside.

    topology/<id>   TopologyRow          plan/<id>   Plan          assignment/<id>   Assignment          counter   int
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec

from rainband.cluster.store import Change, Delete, Put
from rainband.errors import InvalidTopology
from rainband.records import Assignment, Executor, Leaving, Record, Slot, Status
from rainband.topology.plan import Plan

COUNTER = "counter"


class Reshape(Record, frozen=True):
    """What a rebalance asks for: None and {} keep what is."""

    workers: int | None = None
    parallelism: dict[str, int] = {}


class TopologyRow(Record, frozen=True):
    """`number` counts submits, `resume` is the status to return to after REBALANCING.

    `submitted_at` is wall time, for people. `remaining_s` is what is left of the wait of KILLED and REBALANCING.
    `moving`: REBALANCING, and placed anew already. `token` is that of the Submit.
    """

    name: str
    topology_id: str
    number: int
    status: Status
    resume: Status
    submitted_at: float
    remaining_s: float | None = None
    reshape: Reshape | None = None
    moving: bool = False
    token: str = ""


@dataclass(frozen=True)
class Entry:
    """One topology as decided; `assignment` is None until it was scheduled for the first time."""

    row: TopologyRow
    plan: Plan
    assignment: Assignment | None = None

    @property
    def topology_id(self) -> str:
        return self.row.topology_id

    @property
    def name(self) -> str:
        return self.row.name

    @cached_property
    def where(self) -> dict[Executor, Slot]:
        """Slots by executor, as assigned."""
        return {p.executor: p.slot for p in self.assignment.placements} if self.assignment is not None else {}

    @cached_property
    def slots(self) -> frozenset[Slot]:
        return frozenset(self.where.values())

    @property
    def leaving(self) -> tuple[Leaving, ...]:
        return self.assignment.leaving if self.assignment is not None else ()

    @cached_property
    def supervisors(self) -> frozenset[str]:
        """Those who have to know: of its slots, and of those where its tasks may still run."""
        return frozenset(slot.supervisor for slot in (*self.slots, *[left.slot for left in self.leaving]))

    @property
    def shown_status(self) -> Status:
        """WAITING is how a topology without any slot looks."""
        running = self.row.status in (Status.ACTIVE, Status.INACTIVE)
        return Status.WAITING if running and self.assignment is None else self.row.status


def changes(old: Entry | None, new: Entry | None) -> list[Change]:
    """What to write so that the store holds `new` instead of `old`; None: not there."""
    if new is None:
        assert old is not None
        return removal(old.topology_id)
    result: list[Change] = []
    if old is None or old.row != new.row:
        result.append(Put(f"topology/{new.topology_id}", msgspec.msgpack.encode(new.row)))
    if old is None or old.plan != new.plan:
        result.append(Put(f"plan/{new.topology_id}", new.plan.encode()))
    if new.assignment is not None and (old is None or old.assignment != new.assignment):
        result.append(Put(f"assignment/{new.topology_id}", msgspec.msgpack.encode(new.assignment)))
    return result


def removal(topology_id: str) -> list[Change]:
    return [Delete(key) for key in keys_of(topology_id)]


def keys_of(topology_id: str) -> list[str]:
    """All that is stored of one topology."""
    return [f"{kind}/{topology_id}" for kind in ("topology", "plan", "assignment")]


def read_entries(
    values: Mapping[str, bytes], unreadable: Mapping[str, str] | None = None
) -> tuple[dict[str, Entry], dict[str, str]]:
    """(readable topologies by id, why the others are not readable by key); `unreadable` are keys without a value."""
    entries: dict[str, Entry] = {}
    damaged: dict[str, str] = {}
    lost = unreadable or {}
    for key in sorted({*values, *lost}):
        kind, _, topology_id = key.partition("/")
        if kind != "topology":
            continue
        if reasons := [f"{key}: {lost[key]}" for key in keys_of(topology_id) if key in lost]:
            damaged[key] = "; ".join(reasons)
            continue
        try:
            entries[topology_id] = read_entry(values, topology_id)
        except (msgspec.DecodeError, InvalidTopology, KeyError, ValueError) as error:
            damaged[key] = str(error)
    return entries, damaged


def read_entry(values: Mapping[str, bytes], topology_id: str) -> Entry:
    row = msgspec.msgpack.decode(values[f"topology/{topology_id}"], type=TopologyRow)
    if row.topology_id != topology_id:
        raise ValueError(f"the row names {row.topology_id}")
    plan = Plan.decode(values[f"plan/{topology_id}"])
    stored = values.get(f"assignment/{topology_id}")
    return Entry(row, plan, None if stored is None else msgspec.msgpack.decode(stored, type=Assignment))


def unreadable(damaged: Mapping[str, str], name: str) -> str:
    """The id among the `damaged` keys that belongs to a name or id; '' when none does."""
    ids = [key.partition("/")[2] for key in damaged]
    return next((found for found in ids if name in (found, found.rsplit("-", 2)[0])), "")


def read_counter(values: Mapping[str, bytes], entries: Mapping[str, Entry]) -> int:
    """The number of the newest submit; never smaller than one in use."""
    stored = values.get(COUNTER, b"")
    counted = int(stored) if stored.isdigit() else 0
    return max([counted, *(entry.row.number for entry in entries.values())])
