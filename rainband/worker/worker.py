"""A worker: an object with `step(now)`, which does one pass and says when it wants the next.

One pass: take what came in, give every bolt task that has input a turn (those nearest the sinks first), settle trees,
give spouts their verdicts and a turn, flush. The process loops over it; LocalCluster and the simulator step it too.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from rainband.acker.ledger import Ledger, Tree
from rainband.clock import Clock
from rainband.config import Config
from rainband.errors import FailTuple, Refused, ValueRefused, WireError
from rainband.groupings.specs import CustomGrouping
from rainband.messaging import frames
from rainband.messaging.frames import ACKS, CONTROL, CREDIT, DATA, GONE
from rainband.messaging.links import Condemned, Gone, Links, PeerReplaced
from rainband.messaging.network import Network
from rainband.records import Assignment, Slot, Status, WorkerBeat, WorkerState
from rainband.topology.home import wire_id
from rainband.topology.plan import ACKER, Plan
from rainband.topology.secrets import Secrets
from rainband.topology.tuples import Tuple
from rainband.worker.beat import make_beat
from rainband.worker.bind import Instruments, shown
from rainband.worker.books import Books
from rainband.worker.deaths import pass_on, spouts_through
from rainband.worker.dispatch import Dispatch
from rainband.worker.life import Life, Positions
from rainband.worker.reports import ErrorReports
from rainband.worker.routes import Agenda, Outbox, Run
from rainband.worker.sides import Sides
from rainband.worker.spouts import LOST, SpoutTask
from rainband.worker.stalls import Stalls
from rainband.worker.tasks import run_ready
from rainband.worker.transfer import Inbound, Outbound, Said, roots_of
from rainband.worker.window import Window
from rainband.worker.wiring import LocalTask, Wiring

TURN = 256
SHARE = 4  # of each task in a spout's turn, so that the turns of many tasks are worth their while
FRAMES = 256
NEVER = float("inf")
TIMER_S = 0.05
TIMEOUT_SLACK = 1.02  # a root begins with the turn that emits it: so that none is given less than the timeout
POSITIONS_S = 0.5
GC_THRESHOLDS = (50_000, 20, 100)  # tuples in flight come and go in thousands: no reason to search them for cycles


class Worker:
    """Runs the tasks that `assignment` puts on `slot`. `load(component)` returns a fresh user instance each time.

    `incarnation` is the random number of this process, `seed` feeds every random choice (edge ids, permutations).
    With `raise_errors` the first error of user code is kept in `raised` for the caller to raise. `alone`: the process
    has nothing but this worker in it, so its garbage collection may be tuned.
    """

    def __init__(
        self,
        plan: Plan,
        assignment: Assignment,
        slot: Slot,
        *,
        incarnation: int,
        network: Network,
        load: Callable[[str], object],
        custom: Callable[[str], CustomGrouping],
        seed: int,
        clock: Clock,
        positions: Positions | None = None,
        instruments: Instruments | None = None,
        raise_errors: bool = False,
        virtual: bool = False,
        alone: bool = True,
        secrets: Secrets | None = None,
        pid: int = 0,
    ) -> None:
        self.plan = plan
        self.slot = slot
        self.incarnation = incarnation
        self.network = network
        self.clock = clock
        self.positions = positions
        self.raise_errors = raise_errors
        self.alone = alone
        self.raised: BaseException | None = None
        self.pid = pid
        self.started = clock.now()
        self.assignment = assignment
        self.host = assignment.hosts.get(slot.supervisor, "127.0.0.1")
        self.config = Config.layer(plan.config)
        self.state = WorkerState.STARTING
        self.whole = True
        random = Random(seed)
        self.agenda = Agenda(plan.levels, random)
        self.agenda.now = self.started
        self.books = Books(self.agenda, plan.spout_tasks, list(plan.tasks.get(ACKER, ())))
        self.sides = Sides(self.agenda, network.wake, virtual, clock)
        self.errors = ErrorReports(self.host, slot.port, self.config)
        self.life = Life(self.sides, positions, frozenset(self.config["topology.pickle.types"]), self.report)
        self.wiring = Wiring(
            plan,
            self.config,
            self.agenda,
            self.books,
            load=load,
            custom=custom,
            random=random,
            clock=clock.now,
            incarnation=incarnation,
            instruments=instruments,
            secrets=secrets or Secrets(),
            sides=self.sides,
            report=self.report,
        )
        self.address = assignment.address(slot)
        buffer_bytes: int = self.config["topology.transfer.buffer.bytes"]
        self.links = Links(self.address, incarnation, wire_id(assignment.topology_id), buffer_bytes)
        self.outboxes: dict[str, Outbox] = {}
        wiring, pickles = self.wiring, self.wiring.pickle_types
        self.inbound = Inbound(
            self.agenda, self.books, wiring.runners, wiring.targets, wiring.limit, wiring.source, wiring.width, pickles,
            lambda task, error: self.report(task, error, None),
        )  # fmt: skip
        self.outbound = Outbound(self.books, pickles, self.config["topology.max.value.bytes"], self.refused_value)
        self.dispatch = Dispatch(self.agenda, self.books, self.links, self.outboxes, self.inbound, self.outbound)
        self.timeout_s: float = float(self.config["topology.message.timeout.secs"])
        self.timeouts = bool(self.config["topology.enable.message.timeouts"])
        self.stalls = Stalls(self.timeout_s)
        self.timer_at = self.positions_at = self.wake_at = self.started
        self.rotate_at = self.started + self.timeout_s
        self.counters: dict[str, int] = {}
        self.passes = 0
        self.ticks: list[LocalTask] = []
        self.install(assignment)

    # Assignment

    def install(self, assignment: Assignment) -> None:
        """Bring tasks and routes in line with the assignment; tasks that stay are not touched."""
        self.assignment = assignment
        address_of: dict[int, str] = {}
        here: list[int] = []
        for task, placement in assignment.homes().items():
            address_of[task] = assignment.address(placement.slot)
            if placement.slot == self.slot:
                here.append(task)
                self.wiring.executor_of[task] = placement.executor.first
                self.life.placed[task] = placement.number
        self.life.handed = assignment.positions
        local = frozenset(here)
        before = self.inbound.address_of
        moved = frozenset(task for task in self.wiring.targets if before.get(task) != address_of.get(task))
        self.inbound.address_of = address_of
        present = set(self.wiring.tasks) | set(self.books.ledgers)
        leaving = [self.take_out(task) for task in sorted(present - local)]
        added = [self.make(task, local) for task in sorted(local - present)]
        self.wiring.place(self.outbox_of, moved, local)
        self.books.place()
        for task, rest in leaving:
            target = self.wiring.targets[task]
            for tup in rest:
                anchor = tup._anchor
                assert anchor is None or isinstance(anchor, Tree)
                if anchor is None or task in address_of:
                    target.deliver(tup._values, tup._source, anchor, True)
                else:  # it runs nowhere yet, and this worker may be gone when it does
                    self.agenda.fail(anchor)
                if anchor is not None:
                    self.agenda.release(anchor)
        self.leave_peers(set(address_of.values()))
        self.links.takes = len(local) > 0
        if before:
            keepers = self.plan.tasks.get(ACKER, ())
            self.lose_tasks(frozenset(task for task in moved if task in before or task in keepers), LOST)
        if self.state is WorkerState.RUNNING:
            for made in added:
                if made is not None:
                    self.bring_up(made)
            self.life.set_active(assignment.status is Status.ACTIVE)
            if not self.whole:
                self.state = WorkerState.CRASHED
        self.ticks = [made for made in self.wiring.tasks.values() if made.tick_s is not None]
        self.wake_at = 0.0

    def apply(self, assignment: Assignment, now: float) -> None:
        """Take a newer assignment; an old or equal one changes nothing."""
        current = self.assignment
        if (assignment.epoch, assignment.version) <= (current.epoch, current.version):
            return
        self.agenda.now = now
        self.books.clock_now = now
        self.install(assignment)

    def take_out(self, task: int) -> tuple[int, list[Tuple]]:
        made = self.wiring.remove(task)
        if made is None:
            return task, []
        rest = made.bolt.leftover() if made.bolt is not None else []
        self.life.save_positions([made])
        self.life.move(made)
        return task, rest

    def outbox_of(self, task: int) -> Outbox | None:
        address = self.inbound.address_of.get(task)
        if address is None or address == self.address:
            return None
        outbox = self.outboxes.get(address)
        if outbox is None:
            outbox = Outbox(address, self.agenda, self.wiring.under_way())
            self.outboxes[address] = outbox
            self.links.link(address)
        return outbox

    def leave_peers(self, addresses: set[str]) -> None:
        """Drop the links to workers that no longer belong to the topology.

        Tuples that they never receipted fail; what they were told of trees is told anew, where that belongs by now.
        """
        for address in [known for known in self.outboxes if known not in addresses]:
            for kept in self.links.drop(address):
                if isinstance(kept, Said):
                    self.inbound.tell(kept.columns)
                else:
                    self.fail_roots(roots_of(kept))
            self.inbound.forget(address)
            del self.outboxes[address]

    # Faults

    def fail_roots(self, roots: list[int]) -> None:
        for root in roots:
            self.books.fail_root(root, LOST)

    def lose_tasks(self, tasks: frozenset[int], reason: int) -> None:
        """Tuples under way to or in `tasks` may be lost: fail all that is pending and could pass through there."""
        if tasks:
            self.count("failed_by_loss", self.books.fail_spouts(spouts_through(self.plan, self.books, tasks)))

    def peer_lost(self, address: str, incarnation: int, lost: list[object], died_at: float) -> None:
        """The process `incarnation` at `address` is dead: its inboxes are gone, its credit begins anew."""
        self.count("peers_lost", 1)
        pass_on(self.links, self.outboxes, address, incarnation, self.agenda.now - died_at)
        for kept in lost:
            self.fail_roots(roots_of(kept))
        tasks = frozenset(task for task, at in self.inbound.address_of.items() if at == address)
        self.lose_tasks(tasks, LOST)
        self.inbound.forget(address)
        outbox = self.outboxes.get(address)
        if outbox is not None:
            outbox.counts.clear()
            outbox.grants.clear()
        for task in tasks:
            self.wiring.targets[task].place(None, outbox, anew=True)
        self.wake_at = 0.0

    def condemned(self) -> None:
        """Peers were told that this process is no more, and take nothing of it: make room for one they will take."""
        error = Refused("this worker was given up by its peers while it lived; it ends, to be started anew")
        self.errors.add("__system", 0, error, "", self.agenda.now, self.clock.wall())
        self.state = WorkerState.CRASHED

    def peer_gone(self, slot: Slot, incarnation: int, now: float, age_s: float = 0.0) -> None:
        """A supervisor saw the process `incarnation` on `slot` end, `age_s` seconds ago."""
        if slot == self.slot or slot.supervisor not in self.assignment.hosts:
            return
        self.agenda.now = now
        self.books.clock_now = now
        address = self.assignment.address(slot)
        if address not in self.outboxes:
            return
        lost = self.links.gone(address, incarnation, now - age_s)
        if lost is not None:
            self.peer_lost(address, incarnation, lost, now - age_s)

    def count(self, name: str, by: int) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def report(self, task: int, error: BaseException, tup: Tuple | None) -> None:
        """Record an error of user code."""
        component = self.plan.component_of.get(task, "")
        wanted = self.raise_errors or (isinstance(error, KeyboardInterrupt) and not self.alone)
        if wanted and self.raised is None and not isinstance(error, FailTuple):
            where = f"in component '{component}', task {task}"
            error.add_note(where if tup is None else f"{where}, tuple {shown(tup)}")
            self.raised = error
        self.errors.add(component, task, error, shown(tup), self.agenda.now, self.clock.wall())

    def refused_value(self, run: Run, position: int, error: ValueRefused) -> None:
        """A value that cannot travel was seen at flush: its roots fail, its credit comes back."""
        if run.credited:
            target = self.wiring.targets[run.targets[position]]
            target.sent -= 1
            target.drain()
        component, stream = self.wiring.streams[run.number]
        where = f"'{component}' emitted on stream '{stream}'"
        if error.field is not None:
            where += f", field '{self.plan.components[component].streams[stream].fields[error.field]}'"
        told = ValueRefused(f"{where}: {error.reason}", error.fix)
        self.report(run.source(position), told, None)

    # Life of the components

    def make(self, task: int, local: frozenset[int]) -> LocalTask | None:
        """None for a task of the system, and where user code did not even load: then the worker cannot start."""
        try:
            return self.wiring.add(task, local)
        except BaseException as error:
            self.report(task, error, None)
            self.whole = False
            return None

    def bring_up(self, made: LocalTask) -> None:
        """A task that came to a running worker."""
        if not self.life.open(made):
            self.state = WorkerState.CRASHED

    def start(self) -> None:
        """Prepare and open everything. A raise is recorded and the worker is CRASHED."""
        if not (self.whole and self.life.start(list(self.wiring.tasks.values()))):
            self.state = WorkerState.CRASHED
            return
        self.state = WorkerState.RUNNING
        self.life.set_active(self.assignment.status is Status.ACTIVE)
        if self.alone:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)

    def stop(self, now: float) -> None:
        """Close everything in an orderly way; positions are saved."""
        self.agenda.now = now
        self.state = WorkerState.DRAINING
        tasks = list(self.wiring.tasks.values())
        self.life.save_positions(tasks)
        self.sides.cancel()
        for made in tasks:
            self.life.close(made)
        self.sides.close()

    # The pass

    def step(self, now: float) -> float:
        """One pass. Returns the monotonic time at which the next is wanted: `now` or less for at once."""
        agenda = self.agenda
        self.stalls.resumed(now)
        agenda.now = now
        self.books.clock_now = now
        self.passes += 1
        if self.state is WorkerState.STARTING:
            self.links.flush(now, self.network)
            self.start()
            return now  # that it runs is told before the first call that may be long
        if self.state is not WorkerState.RUNNING:
            return NEVER
        if self.links.born_at == NEVER:
            self.links.born_at = now
        received = self.receive(now)
        if self.state is not WorkerState.RUNNING:
            return now
        if self.sides.busy:
            self.sides.collect()
        if agenda.shut_out:
            self.run_shut_out(now)
        if agenda.ready_count > 0:
            self.timer_at = min(self.timer_at, run_ready(agenda, self.clock.now()))
        self.books.settle()
        more = self.run_spouts(now)
        self.dispatch.flush(more or agenda.ready_count > 0)
        self.links.flush(now, self.network)
        if now >= self.timer_at or now >= self.links.next_at:
            self.timers(now)
        if received or more or agenda.ready_count > 0 or agenda.outboxes:
            deadline = now
        else:
            deadline = min(self.timer_at, self.wake_at, self.links.next_at, self.sides.deadline())
        self.stalls.paused(self.clock.now(), deadline)
        return deadline

    def receive(self, now: float) -> bool:
        frames = self.network.receive(FRAMES)
        for frame in frames:
            for event in self.links.receive(frame, now):
                try:
                    self.event(event)
                except WireError:
                    self.count("bad_messages", 1)
        return len(frames) > 0

    def event(self, event: Any) -> None:
        if isinstance(event, tuple):
            kind, address, payload = event
            if kind == DATA:
                self.inbound.data(address, payload)
            elif kind == ACKS:
                self.inbound.acks(payload)
            elif kind == CREDIT:
                self.inbound.credit(payload, self.outboxes.get(address))
            elif kind == CONTROL and frames.parse(payload).kind == GONE:
                for word in self.links.receive(payload, self.agenda.now):
                    self.event(word)
        elif isinstance(event, PeerReplaced):
            self.peer_lost(event.address, event.old_incarnation, event.lost_roots, self.agenda.now)
        elif isinstance(event, Gone):
            self.peer_lost(event.address, event.incarnation, event.lost_roots, event.died_at)
        elif isinstance(event, Condemned):
            self.condemned()

    def run_spouts(self, now: float) -> bool:
        if self.agenda.shut_out:
            self.run_shut_out(now)
        more = False
        wake_at = NEVER
        turn = max(TURN, SHARE * len(self.wiring.tasks))
        for task, spout in self.books.spouts.items():
            calls = spout.calls
            self.agenda.turn[0] = task
            if spout.run(turn, now):
                more = True
            elif spout.active and not spout.finished:
                window = self.wiring.windows[task]
                if spout.gate.blocked > 0:
                    if spout.place == 0 and spout.calls == calls:
                        self.agenda.line_up(spout)
                        self.agenda.shut_out.append(spout)
                    window.gate_shut(now, len(spout.emitter.pending))
                elif spout.limited:
                    spout.limited = False
                    window.held_back(now, int(spout.acked + spout.failed - spout.timed_out))
                    spout.window = window.size
                else:
                    window.had_nothing(now, len(spout.emitter.pending))
                    wake_at = min(wake_at, spout.wanted_at())
        self.wake_at = wake_at
        self.books.clock_now = self.agenda.now
        return more

    def run_shut_out(self, now: float) -> None:
        """A turn for each spout that found its gate shut at its turn, if no bolt has waited longer."""
        agenda = self.agenda
        turn = max(TURN, SHARE * len(self.wiring.tasks))
        place = agenda.first_place()
        shut_out, agenda.shut_out = agenda.shut_out, []
        for spout in shut_out:
            assert isinstance(spout, SpoutTask)
            if self.books.spouts.get(spout.task) is not spout:
                continue
            if spout.gate.blocked > 0 or spout.place > place:
                agenda.shut_out.append(spout)
                continue
            spout.place = 0
            agenda.turn[0] = spout.task
            spout.run(turn, now)

    def timers(self, now: float) -> None:
        """What is due by time: windows, timeouts, ticks, positions, links."""
        for task, spout in self.books.spouts.items():
            self.measure(spout, self.wiring.windows[task], now)
        if self.timeouts:
            self.expire(now)
        for made in self.wiring.tasks.values():
            if made.bolt is not None and now >= made.bolt.due_at:
                self.agenda.mark(made.bolt)
        for made in self.ticks:
            if made.opened and now >= made.tick_due:
                assert made.tick_s is not None
                made.tick_due += made.tick_s * (1 + (now - made.tick_due) // made.tick_s)
                self.tick(made)
        if now >= self.positions_at:
            self.positions_at = now + POSITIONS_S
            self.life.save_positions(list(self.wiring.tasks.values()))
        if now >= self.rotate_at:
            self.rotate_at = now + self.timeout_s
            for ledger in self.books.ledgers.values():
                assert isinstance(ledger, Ledger)
                self.count("trees_forgotten", ledger.rotate())
        for outbox in self.outboxes.values():
            if outbox.choked:
                self.dispatch.unchoke(outbox)
        deadline = self.links.tick(now)
        self.links.flush(now, self.network)
        self.timer_at = min(now + TIMER_S, deadline)
        for made in self.ticks:
            self.timer_at = min(self.timer_at, made.tick_due)

    def measure(self, spout: SpoutTask, window: Window, now: float) -> None:
        pending = len(spout.emitter.pending)
        full = pending >= window.size
        queued = full and any(made.bolt is not None and made.bolt.queued > 0 for made in self.wiring.tasks.values())
        timed_out = int(spout.timed_out)
        settled = int(spout.acked + spout.failed) - timed_out
        window.measure(now, settled, pending, int(spout.acked), spout.complete_s, timed_out, queued)
        spout.window = window.size

    def expire(self, now: float) -> None:
        """Fail roots that were pending for the message timeout, not counting time in which this loop stood still."""
        if self.books.expire(TIMEOUT_SLACK * self.timeout_s + self.stalls.within(now)):
            self.books.settle()

    def tick(self, made: LocalTask) -> None:
        """Call `tick` of a bolt; while what it emits would have to wait, that stands in line with the bolt's input."""
        bolt = made.bolt
        if bolt is not None and bolt.gate.blocked > 0:
            bolt.late_tick = partial(self.sides.tick, made)
            self.agenda.mark(bolt)
        elif bolt is not None:
            self.sides.tick(made)

    def beat(self, now: float) -> WorkerBeat:
        """What this worker says of itself; errors are handed over once."""
        return make_beat(self, now)
