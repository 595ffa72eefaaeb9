"""The laws of assignment and control: A1, A3, A5, A6, A7, A8, A10 at each write to the store, the others in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainband.nimbus.rows import Entry, read_entries
from rainband.records import Slot, Status
from simulation.control import DAMAGED, POOR
from simulation.ensemble import SLOW_TICKS

if TYPE_CHECKING:
    from rainband.supervisor.processes import Exit
    from simulation.chief import NimbusProcess
    from simulation.processes import WorkerProcess
    from simulation.world import World

SLACK_S = 1.2
EARLY_S = 1e-6
RATE = 0.025
STEADY_S = 3.5
LOOK_S = 0.5
ELECTED_S = 2.0
SESSION_ENDS = 1.0 + SLOW_TICKS  # servers end a session at their next tick
SILENCE_S = 4.0
LOUD = {
    "stop_worker", "slow_worker", "crash_loop", "stop_supervisor", "kill_supervisor", "kill_host", "delays",
    "partition", "isolate", "ring",
}  # fmt: skip


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
        self.fast_s: dict[str, float] = {}
        self.spent_s = 0.0
        self.foreign = {DAMAGED, POOR}

    def wrong(self, law: str, text: str) -> None:
        self.world.wrong(law, text)

    def written(
        self, writer: NimbusProcess, epoch: int, before: dict[str, bytes], after: dict[str, bytes], decided_at: float
    ) -> None:
        """A batch was taken now that its writer decided on at `decided_at`."""
        self.spent_s = writer.clock.spent_s
        self._epochs(writer, epoch)
        old, damaged_before = read_entries(before)
        new, damaged = read_entries(after)
        if damaged.keys() - damaged_before.keys():
            self.wrong("A6", f"unreadable rows: {damaged}")
        self._ids(old, new)
        self._slots(new)
        changed = [i for i in sorted(old.keys() | new.keys()) if old.get(i) != new.get(i)]
        if len(changed) > 1:
            self.wrong("A10", f"one write changes {changed}")
        for topology_id, entry in new.items():
            self._waits(topology_id, old.get(topology_id), entry)
            self._versions(topology_id, entry)
            self._moves(writer, old.get(topology_id), entry, decided_at)
            if topology_id not in old:
                self._bundle(writer, entry, decided_at)
        for topology_id in sorted(old.keys() - new.keys() - self.foreign):
            self._removed(topology_id, old[topology_id])

    def _bundle(self, writer: NimbusProcess, entry: Entry, decided_at: float) -> None:
        """A6: the code of a topology is on two Nimbuses before it is accepted, if two are there."""
        world = self.world
        digest = entry.plan.bundle
        holders = [number for number, blobs in enumerate(world.blobs) if blobs.holds(digest)]
        if writer.machine not in holders and world.blobs[writer.machine].wiped_at < decided_at:
            self.wrong("A6", f"{entry.topology_id} is accepted by n{writer.machine}, its bundle is on {holders}")
        steady = world.time - STEADY_S
        others = [p for p in world.living_nimbuses() if p is not writer and not p.stopped and p.born < steady]
        calm = world.faults.struck_at < steady and not world.wires.blocked and not world.wires.refusing
        if len(holders) < 2 and others and calm and writer.line is not None and writer.born < steady:
            self.wrong("A6", f"{entry.topology_id} is accepted with its bundle on {holders} only")

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
            if entry.leaving and not self.world.options.exclusive:
                self.wrong("A3", f"{topology_id}: {entry.leaving} are waited for, though it is not exclusive")
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

    def _moves(self, writer: NimbusProcess, old: Entry | None, new: Entry, at: float) -> None:
        """A3: new slots are on living supervisors. A8: only what lost its place moves."""
        if new.assignment is None or (old is not None and old.assignment == new.assignment):
            return
        if old is not None and old.where != new.where:
            self.world.disturb()
            self.world.moved = True
        before = old.where if old is not None else {}
        fresh = new.slots - (old.slots if old is not None else frozenset())
        for slot in sorted(fresh):
            if not self._alive(writer, slot.supervisor, SLACK_S, float("-inf"), at):
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
            if was != placement.slot and known and self._alive(writer, was.supervisor, -SLACK_S, writer.started, at):
                self.wrong("A8", f"{placement.executor} moves from {was}, which is well, to {placement.slot}")
            if (was == placement.slot) != (numbers[placement.executor] == placement.number):
                self.wrong("A8", f"{placement.executor}: placement number {placement.number} at {placement.slot}")

    def _alive(self, writer: NimbusProcess, supervisor: str, slack_s: float, unheard: float, at: float) -> bool:
        """Whether its lease runs; one that was never heard counts as heard at `unheard`."""
        lease_s = self.world.options.lease_s + slack_s + (writer.paused_s if slack_s > 0 else 0.0)
        return at - writer.heard.get(supervisor, unheard) < lease_s

    def _waits(self, topology_id: str, old: Entry | None, new: Entry) -> None:
        """A7: a rebalance is carried out when it is due, or once nothing is pending."""
        if old is None:
            return
        if old.row.status is Status.REBALANCING and not old.row.moving:
            if new.row.moving or new.row.status not in (Status.REBALANCING, Status.KILLED):
                self._in_time(old, "is rebalanced")
        if old.row.moving and new.row.status is Status.REBALANCING:
            again = not new.row.moving or (new.row.remaining_s or 0.0) > (old.row.remaining_s or 0.0) + EARLY_S
            if again:
                self.wrong("A7", f"{topology_id} is rebalanced twice for one request")
        wait_s, before_s = new.row.remaining_s, old.row.remaining_s
        if wait_s is not None and not new.row.moving:
            if old.row.status is not new.row.status or (before_s is not None and wait_s > before_s):
                self.due[topology_id] = self.world.time + wait_s
                self.fast_s[topology_id] = wait_s * RATE if self.world.ensemble is not None else 0.0

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
        elif self.world.time + self.spent_s < due - self.fast_s[topology_id] - EARLY_S:
            pending = self.world.pending(topology_id, old.slots)
            if pending:
                self.wrong("A7", f"{topology_id} {what} {due - self.world.time:.2f} s early, with {pending} pending")

    # In between

    def believers(self) -> None:
        """A2: after each event that could make a Nimbus believe that it leads.

        No lease outlasts a session that is ended by force: there only epochs keep leaders apart.
        """
        if "expire_session" in self.world.options.faults:
            return
        believing = [f"nimbus {p.number}" for p in self.world.living_nimbuses() if p.believes()]
        if len(believing) > 1:
            self.wrong("A2", f"{' and '.join(believing)} believe that they lead")

    def process_gone(self, process: WorkerProcess, how: Exit) -> None:
        """A11: without any Nimbus no worker is ended by its own side, unless it may never run in two places."""
        world = self.world
        if world.options.exclusive or set(world.options.faults) & LOUD:
            return
        if world.time < world.faults.silent_since + SILENCE_S:
            return
        if not how.from_outside:
            silent_s = world.time - world.faults.silent_since
            self.wrong("A11", f"{process.address} ends ({how.cause}) after {silent_s:.1f} s without any Nimbus")

    def look(self) -> None:
        """What has to be so at any time; again every LOOK_S."""
        world = self.world
        world.after(LOOK_S, self.look)
        for topology_id, entry in sorted(read_entries(world.disk.values)[0].items()):
            if topology_id not in self.foreign and not any(blobs.holds(entry.plan.bundle) for blobs in world.blobs):
                self.wrong("A6", f"the bundle of {topology_id} is on no disk")
        if world.phase == "heal":
            self._overdue()
            elected_at = world.healed_at + SESSION_ENDS * world.options.session_s + ELECTED_S
            if world.time > elected_at and world.leader() is None:
                self.wrong("L3", "no Nimbus leads, and nothing is in the way")

    def _overdue(self) -> None:
        world = self.world
        for process in world.processes():
            desk = process.desk
            if desk is None or process.asking_until or world.time < process.booted_at:
                continue
            calm_since = max(world.healed_at, process.booted_at)
            quiet_since = max(world.healed_at, world.disturbed_at, self._whole_since(process)) + SLACK_S
            for task in desk.spouts:
                if task not in desk.closed:
                    desk.oracle.overdue(desk.life(task), task, world.time, calm_since, quiet_since)

    def _whole_since(self, process: WorkerProcess) -> float:
        """When the last worker of its topology was told of the newest assignment, and ran.

        Before, a verdict may wait for an acker that is not there, or go where it was.
        """
        assert process.worker is not None
        assignment = process.worker.assignment
        own = [other for other in self.world.processes() if other.topology_id == process.topology_id]
        placed = {
            other.slot: other.placed_at
            for other in own
            if other.worker is not None and other.worker.assignment.version == assignment.version
        }
        return max(placed.get(slot, float("inf")) for slot in assignment.slots())
