"""The laws of assignment and control, checked at each write to the store: A1, A3, A5, A7, A8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainband.nimbus.rows import Entry, read_entries
from rainband.records import Slot, Status

if TYPE_CHECKING:
    from simulation.chief import NimbusProcess
    from simulation.world import World

SLACK_S = 1.2


class Laws:
    """What has been written so far, as far as later writes must not contradict it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch_of: dict[int, int] = {}
        self.newest_epoch = 0
        self.removed: set[str] = set()
        self.numbers: dict[int, str] = {}
        self.versions: dict[str, tuple[int, int]] = {}
        self.due: dict[str, float] = {}

    def wrong(self, law: str, text: str) -> None:
        self.world.wrong(law, text)

    def written(self, writer: NimbusProcess, epoch: int, before: dict[str, bytes], after: dict[str, bytes]) -> None:
        self._epochs(writer, epoch)
        old, damaged_before = read_entries(before)
        new, damaged = read_entries(after)
        if damaged and not damaged_before:
            self.wrong("A6", f"unreadable rows: {damaged}")
        self._ids(old, new)
        self._slots(new)
        for topology_id, entry in new.items():
            self._waits(topology_id, old.get(topology_id), entry)
            self._versions(topology_id, entry)
            self._moves(writer, old.get(topology_id), entry)
        for topology_id in sorted(old.keys() - new.keys()):
            self._removed(topology_id, old[topology_id])

    def _epochs(self, writer: NimbusProcess, epoch: int) -> None:
        if epoch < self.newest_epoch:
            self.wrong("A1", f"epoch {epoch} wrote after epoch {self.newest_epoch}")
        self.newest_epoch = max(epoch, self.newest_epoch)
        if self.epoch_of.setdefault(epoch, writer.number) != writer.number:
            self.wrong("A1", f"two Nimbuses wrote in epoch {epoch}")

    def _ids(self, old: dict[str, Entry], new: dict[str, Entry]) -> None:
        names: set[str] = set()
        for topology_id, entry in new.items():
            if topology_id in self.removed:
                self.wrong("A5", f"{topology_id} came back after it was removed")
            if entry.name in names:
                self.wrong("A5", f"two topologies are called {entry.name}")
            names.add(entry.name)
            if self.numbers.setdefault(entry.row.number, topology_id) != topology_id:
                self.wrong("A5", f"{topology_id} has the number of {self.numbers[entry.row.number]}")
            if topology_id in old and old[topology_id].row.status is Status.KILLED is not entry.row.status:
                self.wrong("A5", f"{topology_id} was killed and is {entry.row.status}")

    def _slots(self, new: dict[str, Entry]) -> None:
        owner: dict[Slot, str] = {}
        for topology_id, entry in new.items():
            if entry.assignment is None:
                continue
            executors = [placement.executor for placement in entry.assignment.placements]
            placed = sorted(task for e in executors for task in range(e.first, e.last + 1))
            if placed != sorted(entry.plan.component_of):
                self.wrong("A3", f"{topology_id}: tasks {placed} are placed, each should be once")
            for slot in entry.slots:
                if owner.setdefault(slot, topology_id) != topology_id:
                    self.wrong("A3", f"{slot} belongs to {owner[slot]} and {topology_id}")
                if slot.port not in self.world.host(slot.supervisor).ports:
                    self.wrong("A3", f"{slot} is no slot")

    def _versions(self, topology_id: str, entry: Entry) -> None:
        assignment = entry.assignment
        if assignment is None:
            return
        version = (assignment.epoch, assignment.version)
        if version < self.versions.get(topology_id, (0, 0)):
            self.wrong("A1", f"{topology_id}: assignment {version} after {self.versions[topology_id]}")
        self.versions[topology_id] = version

    def _moves(self, writer: NimbusProcess, old: Entry | None, new: Entry) -> None:
        """A3: new slots are on living supervisors. A8: only what lost its place moves."""
        if new.assignment is None or (old is not None and old.assignment == new.assignment):
            return
        self.world.disturbed |= old is not None and old.where != new.where
        before = old.where if old is not None else {}
        fresh = new.slots - (old.slots if old is not None else frozenset())
        for slot in sorted(fresh):
            if not self._alive(writer, slot.supervisor, SLACK_S, float("-inf")):
                self.wrong("A3", f"{new.topology_id} is put on {slot}, whose supervisor is silent")
        if old is None or old.assignment is None or len(new.slots) > len(old.slots):
            return
        if old.row.status is Status.REBALANCING:
            return
        numbers = {p.executor: p.number for p in old.assignment.placements}
        for placement in new.assignment.placements:
            was = before.get(placement.executor)
            if was is None:
                continue
            known = was.port in writer.ports.get(was.supervisor, (was.port,))
            if was != placement.slot and known and self._alive(writer, was.supervisor, -SLACK_S, writer.started):
                self.wrong("A8", f"{placement.executor} moves from {was}, which is well, to {placement.slot}")
            if (was == placement.slot) != (numbers[placement.executor] == placement.number):
                self.wrong("A8", f"{placement.executor}: placement number {placement.number} at {placement.slot}")

    def _alive(self, writer: NimbusProcess, supervisor: str, slack_s: float, unheard: float) -> bool:
        """Whether its lease runs; one that was never heard counts as heard at `unheard`."""
        lease_s = self.world.options.lease_s + slack_s + (writer.paused_s if slack_s > 0 else 0.0)
        return self.world.time - writer.heard.get(supervisor, unheard) < lease_s

    def _waits(self, topology_id: str, old: Entry | None, new: Entry) -> None:
        """A7: a rebalance is carried out when it is due, or once nothing is pending."""
        if old is None:
            return
        if old.row.status is Status.REBALANCING and not old.row.moving:
            if new.row.moving or new.row.status not in (Status.REBALANCING, Status.KILLED):
                self._in_time(old, "is rebalanced")
        wait_s, before_s = new.row.remaining_s, old.row.remaining_s
        if wait_s is not None and not new.row.moving:
            if old.row.status is not new.row.status or (before_s is not None and wait_s > before_s):
                self.due[topology_id] = self.world.time + wait_s

    def _removed(self, topology_id: str, old: Entry) -> None:
        self.removed.add(topology_id)
        if old.row.status is not Status.KILLED:
            self.wrong("A7", f"{topology_id} is removed although it is {old.row.status}")
        self._in_time(old, "is removed")

    def _in_time(self, old: Entry, what: str) -> None:
        topology_id = old.topology_id
        due = self.due.get(topology_id)
        if due is None:
            self.wrong("A7", f"{topology_id} {what} although nobody asked for it")
        elif self.world.time < due - 1e-6:
            pending = self.world.pending(topology_id, old.slots)
            if pending:
                self.wrong("A7", f"{topology_id} {what} {due - self.world.time:.2f} s early, with {pending} pending")
