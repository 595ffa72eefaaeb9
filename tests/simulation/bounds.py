"""What must stay small: queues (D7) and books (D8) while the run goes on, passes (L4) and what is left (D8) at rest."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rainband.acker.ledger import Entry
from rainband.worker.reliable import DeadLetter
from rainband.worker.routes import INBOX_MAX
from rainband.worker.worker import TIMER_S
from simulation.desk import Desk
from simulation.oracle import OPEN, Violation
from simulation.topologies import Batch, Hold, emits

if TYPE_CHECKING:
    from simulation.processes import WorkerProcess
    from simulation.world import World

LOOK_S = 0.5
REST_S = 2.0
SLOWEST_PASS_S = 1.1
EVENTS_PER_S = 50.0
Known = tuple[int, int, int]


class Bounds:
    """`entries` are those of all ledgers: the entry, its bucket, and how long its process had run when it was new."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: dict[Known, tuple[Entry, int, float]] = {}
        self.doubles: dict[tuple[str, int], float] = {}

    # While it goes on

    def passed(self, process: WorkerProcess) -> None:
        """D7 after each pass of a worker: rows pending, and tuples that came with the credit that was given."""
        worker, world = process.worker, self.world
        assert worker is not None
        for task, spout in worker.books.spouts.items():
            pending = spout.emitter.pending
            if len(pending) > world.options.pending:
                rows = sum(not isinstance(tree.message_id, DeadLetter) for tree in pending.trees())
                if rows > world.options.pending:
                    world.wrong("D7", f"task {task} has {rows} rows pending of {world.options.pending}")
        if worker.inbound.received == process.received:
            return
        process.received = worker.inbound.received
        for lines in worker.inbound.lines.values():
            for line in lines.values():
                if line.delivered > line.granted:
                    world.wrong("D7", f"{line.sender} sent task {line.task} {line.delivered} of {line.granted} allowed")

    def look(self) -> None:
        """Again every LOOK_S: what waits in workers, and for how long their ledgers have known what they know."""
        self.world.after(LOOK_S, self.look)
        entries: dict[Known, tuple[Entry, int, float]] = {}
        for process in self.world.processes():
            if process.worker is not None and process.desk is not None:
                self._look_at_ledgers(process, entries)
                self._look_at_queues(process, process.desk)
        self.entries = entries
        if self.world.phase == "heal":
            self._look_at_doubles()

    def _look_at_doubles(self) -> None:
        """A4 where a Nimbus leads and nothing is cut off any more: two workers have the same task for a lease at most.

        Before there is no such bound: workers run on without Nimbus, and their peers fence them.
        """
        world = self.world
        if world.leader() is None:
            self.doubles = {}
            return
        having: Counter[tuple[str, int]] = Counter()
        for process in world.processes():
            if process.worker is not None:
                having.update((process.topology_id, task) for task in process.worker.wiring.tasks)
        self.doubles = {key: self.doubles.get(key, world.time) for key, count in having.items() if count > 1}
        for (topology_id, task), since in self.doubles.items():
            if world.time > since + world.options.lease_s + LOOK_S:
                world.wrong("A4", f"two workers have had task {task} of {topology_id} since {since:.2f}")

    def _look_at_ledgers(
        self, process: WorkerProcess, entries: dict[Known, tuple[Entry, int, float]]
    ) -> None:
        """D8: what an acker knows is gone 3T after it was new or touched; time that it did not run does not count."""
        assert process.worker is not None
        assert process.desk is not None
        ran_s = process.ran_s()
        longest_s = 3 * (self.world.options.timeout_s + SLOWEST_PASS_S + TIMER_S) + LOOK_S
        for task, ledger in process.worker.books.ledgers.items():
            for bucket, known in enumerate(ledger.buckets):
                for root, entry in known.items():
                    was = self.entries.get((process.incarnation, task, root))
                    since = ran_s
                    if was is None and root not in process.desk.oracle.roots:
                        self.world.wrong("D8", f"acker {task} has an entry for {root:#x}, which nobody emitted")
                    elif was is not None and was[0] is entry and bucket >= was[1]:
                        since = was[2]
                    entries[process.incarnation, task, root] = (entry, bucket, since)
                    if ran_s > since + longest_s:
                        self.world.wrong("D8", f"acker {task} has known {root:#x} for {ran_s - since:.1f} s")

    def _look_at_queues(self, process: WorkerProcess, desk: Desk) -> None:
        """D7: bytes on links; rows in inboxes and before targets, unless tasks moved: those bring their inbox along."""
        worker, world = process.worker, self.world
        assert worker is not None
        for link in worker.links.links():
            if link.queued_bytes + link.outstanding_bytes > link.buffer_bytes + worker.outbound.bytes_max:
                world.wrong("D7", f"{link.queued_bytes + link.outstanding_bytes} bytes wait for {link.address}")
        if world.moved:
            return
        for made in worker.wiring.tasks.values():
            if made.bolt is None or made.component == "letters":
                continue
            sources = Counter(desk.oracle.emissions[tup[1]].incarnation for tup in made.bolt.inbox)
            own = sources.pop(process.incarnation, 0)
            if own > min(world.options.credit, INBOX_MAX) + self._at_once(desk, made.component):
                world.wrong("D7", f"{own} tuples of its own worker wait for task {made.task}")
            for incarnation, waiting in sorted(sources.items()):
                if waiting > world.options.credit:
                    world.wrong("D7", f"{waiting} tuples of worker {incarnation} wait for task {made.task}")
        for target in worker.agenda.overflowing.values():
            component = worker.plan.component_of[target.task]
            if component != "letters" and len(target.overflow) > self._at_once(desk, component):
                world.wrong("D7", f"{len(target.overflow)} tuples wait for credit of task {target.task}")

    def _at_once(self, desk: Desk, component: str) -> float:
        """How many tuples for one of its tasks components of this worker may emit after they were to stop.

        Each task ends the call it is in: a batch has no bound of its own.
        """
        load = desk.oracle.load
        most = 0.0
        for source, *_ in load.inputs[component]:
            made = load.made[source]
            tasks = sum(task in desk.local for task in load.tasks[source])
            call = float("inf") if isinstance(made, Batch) else 3 if isinstance(made, Hold) else emits(made)
            most += tasks * call if tasks else 0
        return most

    # At rest

    def rest(self) -> None:
        """L4: nothing spins. D8: nothing is left in any book. D7: what was sent has arrived. Raises Violation."""
        world = self.world
        longest = 3.5 * world.options.timeout_s if world.options.ackers > 0 else 0.5
        world.advance(world.time + longest)
        before, ticks = self._turns(), self._ticks()
        world.advance(world.time + REST_S)
        for name, turns in self._turns().items():
            rate = (turns - before.get(name, turns)) / REST_S
            if rate > EVENTS_PER_S + ticks.get(name, 0.0):
                raise Violation(f"L4: {name} makes {rate:.0f} turns per second without anything to do")
        for process in world.processes():
            self._check_empty(process)
        self._check_books()
        self._check_arrived()

    def _turns(self) -> dict[str, int]:
        """How often each process has looked at the world so far."""
        world = self.world
        turns = {process.address: process.passes for process in world.processes()}
        turns |= {f"nimbus {nimbus.number}": nimbus.turns for nimbus in world.living_nimbuses()}
        for host in world.hosts:
            if host.supervisor is not None:
                turns[f"supervisor {host.name}"] = host.supervisor.passes
        return turns

    def _ticks(self) -> dict[str, float]:
        """Ticks per second that a topology asks of each worker: not for nothing, and each task at its own time."""
        return {
            process.address: sum(1.0 / made.tick_s for made in process.worker.ticks if made.tick_s)
            for process in self.world.processes()
            if process.worker is not None
        }

    def _check_books(self) -> None:
        """D7: where no process died and nothing moved, every tuple that was sent has arrived."""
        workers = [process.worker for process in self.world.processes() if process.worker is not None]
        sent = sum(int(worker.outbound.sent) for worker in workers)
        received = sum(int(worker.inbound.received) for worker in workers)
        if not self.world.disturbed and sent != received:
            raise Violation(f"D7: {sent} tuples were sent between workers, {received} arrived, and nobody died")

    def _check_arrived(self) -> None:
        """D7 where something died: what was sent by who still lives to where nobody ever died arrived, or is counted.

        What goes to a new process before the sender has heard of it is lost with the old one.
        """
        world = self.world
        if world.moved:
            return
        living = {process.incarnation for process in world.processes()}
        for topology_id, guest in world.finals():
            own = [process.worker for process in world.processes() if process.topology_id == topology_id]
            counted = sum(int(worker.inbound.refused) for worker in own if worker is not None)
            missing = [
                (emission.uid, task)
                for emission in guest.oracle.emissions.values()
                if emission.incarnation in living
                for task, state in emission.state.items()
                if state == OPEN and not world.deaths.get(emission.to[task])
            ]
            if len(missing) > counted:
                raise Violation(f"D7: {missing[:5]} (uid, task) never arrived, and {counted} tuples were refused")

    def _check_empty(self, process: WorkerProcess) -> None:
        worker = process.worker
        assert worker is not None
        left = {
            "ledger entries": sum(len(ledger) for ledger in worker.books.ledgers.values()),
            "pending": worker.books.pending,
            "overflow": len(worker.agenda.overflowing),
            "unsent": sum(not link.idle for link in worker.links.links()),
            "queued": sum(made.bolt.queued for made in worker.wiring.tasks.values() if made.bolt is not None),
        }
        if any(left.values()):
            raise Violation(f"D8: {process.address} at rest still has {left}")
