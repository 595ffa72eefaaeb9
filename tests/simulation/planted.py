"""Bugs planted on purpose in the product's classes, to see that the simulation finds each: a checker must be checked.

A bug is a function that changes classes of the source tree (compiled ones cannot be changed) in this process only,
and a *swarm*: the options that its seeds have in common. `python -m tests.simulation --bugs` runs all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rainband.acker.ledger import COUNTER_MASK, Entry, Group, Ledger, Pending, Tree, Verdict
from rainband.groupings import choosers
from rainband.messaging import frames
from rainband.messaging.link import Link
from rainband.messaging.links import Links
from rainband.nimbus import core, lifecycle, scheduler
from rainband.nimbus.core import Nimbus
from rainband.nimbus.lifecycle import Event
from rainband.nimbus.liveness import Liveness
from rainband.records import Assignment, Status
from rainband.supervisor import orders, slot
from rainband.topology.plan import Plan
from rainband.worker import bind
from rainband.worker.books import Books
from rainband.worker.emit import BoltEmitter, ManualEmitter
from rainband.worker.life import Life
from rainband.worker.reliable import ReliableBook
from rainband.worker.routes import Agenda, EdgeIds, Runner, Target
from rainband.worker.spouts import FAILED, SpoutTask
from rainband.worker.stalls import Stalls
from rainband.worker.transfer import Inbound
from rainband.worker.window import Window
from rainband.worker.wiring import LocalTask, Wiring
from rainband.worker.worker import Worker
from simulation.disks import SimStore

Plant = Callable[[], None]
CALM: dict[str, Any] = {"faults": (), "loss": 0.0, "repeats": 0.0, "fifo": True, "stale_frames": False, "jitter_s": 0.0}
SPREAD: dict[str, Any] = {"nimbuses": 1, "supervisors": 3, "slots": 4, "workers": 4, "bolts": 3}


@dataclass(frozen=True)
class Bug:
    """`plant` does it; `swarm` are options that every seed of its hunt has."""

    name: str
    plant: Plant
    swarm: dict[str, Any]


BUGS: dict[str, Bug] = {}


def bug(*parts: dict[str, Any], **swarm: Any) -> Callable[[Plant], Plant]:
    """Register a bug; its swarm is all `parts` and `swarm` together, later ones first."""

    def register(plant: Plant) -> Plant:
        merged: dict[str, Any] = {}
        for part in (*parts, swarm):
            merged.update(part)
        BUGS[plant.__name__] = Bug(plant.__name__, plant, merged)
        return plant

    return register


def faulty(*kinds: str, every_s: float = 0.8) -> dict[str, Any]:
    return {**SPREAD, "faults": tuple(sorted(kinds)), "per_fault_s": every_s}


def put(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


# Links


@bug(SPREAD, repeats=0.2)
def link_takes_repeated_frames() -> None:
    real = Link._receive_batch

    def receive(self: Link, seq: int, frame: bytes, now: float) -> list[tuple[int, bytes]]:
        if seq <= self.received:
            return [(kind, payload) for kind, more, payload in frames.records(frame) if not more]
        return real(self, seq, frame, now)

    put(Link, "_receive_batch", receive)


@bug(SPREAD, loss=0.1, faults=())
def link_skips_gaps() -> None:
    real = Link._receive_batch

    def receive(self: Link, seq: int, frame: bytes, now: float) -> list[tuple[int, bytes]]:
        if seq > self.received + 1:
            self.received = seq - 1
        return real(self, seq, frame, now)

    put(Link, "_receive_batch", receive)


@bug(SPREAD, loss=0.1, faults=())
def link_forgets_a_quiet_tail() -> None:
    real = Link.tick

    def tick(self: Link, now: float) -> None:
        self.probe_at = float("inf")
        real(self, now)

    put(Link, "tick", tick)


@bug(CALM, faulty("kill_worker", every_s=3.0), timeout_s=6.0)
def link_reset_forgets_what_was_lost() -> None:
    real = Link.reset

    def reset(self: Link, peer: int) -> list[object]:
        real(self, peer)
        return []

    put(Link, "reset", reset)
    put(Worker, "lose_tasks", lambda self, tasks, reason: None)


@bug(faulty("isolate", "stop_supervisor", every_s=2.0), lease_s=5.0, slots=2, workers=6, safety_s=16.0, topologies=1)
def fenced_process_is_not_told() -> None:
    put(Links, "_condemn", lambda self, incarnation, frame: None)


@bug(faulty("kill_worker", "cut"), stale_frames=True)
def dead_peers_stay_known() -> None:
    put(Worker, "peer_lost", lambda self, address, incarnation, lost: None)


# Trees


@bug(SPREAD)
def edge_ids_are_zero() -> None:
    put(EdgeIds, "next", lambda self: 0)


@bug(SPREAD)
def emits_of_bolts_are_not_anchored() -> None:
    real = BoltEmitter.route

    def route(self: BoltEmitter, out: Any, row: tuple[object, ...], anchor: Tree | None) -> tuple[int, ...]:
        return real(self, out, row, None)

    put(BoltEmitter, "route", route)


@bug(SPREAD, bolts=5)
def many_anchors_only_the_first() -> None:
    real = Group.leaves
    put(Group, "leaves", lambda self: real(self)[:1])


@bug(SPREAD, bolts=5)
def manual_ack_twice_counts_twice() -> None:
    real = ManualEmitter.anchor_of

    def anchor_of(self: ManualEmitter, anchors: Any) -> Tree | None:
        return real(self, anchors[:1] if isinstance(anchors, list) else anchors)

    put(ManualEmitter, "anchor_of", anchor_of)


@bug(SPREAD, bolts=4)
def fail_is_not_propagated() -> None:
    put(Agenda, "fail", lambda self, anchor: None)


@bug(SPREAD, CALM, bolts=4)
def fail_waits_for_the_timeout() -> None:
    real = Books.fail_root

    def fail_root(self: Books, root: int, reason: int = FAILED) -> None:
        if self.spout_task(root) in self.spouts:
            real(self, root, reason)

    put(Books, "fail_root", fail_root)


@bug(SPREAD, CALM, ackers=2)
def repeated_init_is_not_ignored() -> None:
    real = Books.receive_inits

    def init(self: Ledger, root: int, edges: int, spout_task: int) -> Verdict | None:
        entry = self._entry(root)
        entry.task = spout_task
        entry.edges ^= edges
        return self._settle(root, entry)

    def receive(self: Books, values: list[int]) -> None:
        real(self, values)
        real(self, values)

    put(Ledger, "init", init)
    put(Books, "receive_inits", receive)


@bug(SPREAD, ackers=2)
def acker_compares_four_bits() -> None:
    real = Ledger._settle

    def settle(self: Ledger, root: int, entry: Entry) -> Verdict | None:
        if entry.edges % 16 == 0:
            entry.edges = 0
        return real(self, root, entry)

    put(Ledger, "_settle", settle)


@bug(SPREAD, ackers=2)
def acker_forgets_failures() -> None:
    real = Ledger._settle

    def settle(self: Ledger, root: int, entry: Entry) -> Verdict | None:
        entry.failed = False
        return real(self, root, entry)

    put(Ledger, "_settle", settle)


@bug(SPREAD)
def two_verdicts_for_one_root() -> None:
    def finish(self: Books, tree: Tree, done: bool, reason: int = FAILED) -> None:
        spout = self.spouts.get(self.spout_task(tree.root))
        if spout is not None:
            spout.emitter.pending.remove(tree.root)
            message_id = tree.message_id
            spout.settle(tree, done, reason, self.clock_now)
            if tree.root % 16 == 0:
                tree.message_id = message_id
                spout.settle(tree, done, reason, self.clock_now)

    put(Books, "finish", finish)


@bug(SPREAD)
def root_ids_repeat() -> None:
    def new_root(self: Pending) -> int:
        self.counter = (self.counter + 1) & COUNTER_MASK & 0xF
        return self.prefix | self.counter

    put(Pending, "new_root", new_root)


@bug(SPREAD, CALM, bolts=5)
def reports_lose_edges() -> None:
    real = Books.report

    def report(self: Books, root: int, edges: int) -> None:
        if edges % 16:
            real(self, root, edges)

    put(Books, "report", report)


# Timeouts and losses


@bug(faulty("kill_host", "isolate", "stop_worker"), timeout_s=6.0)
def timeouts_come_early() -> None:
    real = Books.expire
    put(Books, "expire", lambda self, timeout_s: real(self, timeout_s * 0.5))


@bug(faulty("stop_worker"), timeout_s=3.0)
def time_stood_still_counts() -> None:
    put(Stalls, "within", lambda self, now: 0.0)


@bug(CALM, faulty("kill_worker", every_s=3.0), timeout_s=6.0)
def death_of_a_peer_fails_no_trees() -> None:
    put(Worker, "lose_tasks", lambda self, tasks, reason: None)


@bug(faulty("kill_host", "kill_worker", "isolate"))
def trees_never_time_out() -> None:
    put(Worker, "expire", lambda self, now: None)
    put(Worker, "lose_tasks", lambda self, tasks, reason: None)


@bug(faulty("kill_worker"))
def lost_rows_are_not_replayed() -> None:
    put(ReliableBook, "lost", lambda self, message_id, now: None)


@bug(SPREAD, bolts=5)
def rows_are_given_up_too_soon() -> None:
    real = ReliableBook.__init__

    def init(self: ReliableBook, max_retries: int, delay_s: float, delay_max_s: float) -> None:
        real(self, max_retries - 1, delay_s, delay_max_s)

    put(ReliableBook, "__init__", init)


@bug(SPREAD, bolts=5)
def dead_letters_are_not_sent() -> None:
    real = bind.Reliable.fail

    def fail(self: bind.Reliable, message_id: object, reason: int) -> None:
        emit = self.again["emit"]
        self.again = {**self.again, "emit": lambda values, **how: None if "stream" in how else emit(values, **how)}
        real(self, message_id, reason)
        self.again = {**self.again, "emit": emit}

    put(bind.Reliable, "fail", fail)


@bug(faulty("kill_worker"), bolts=4)
def positions_are_saved_too_high() -> None:
    put(ReliableBook, "lowest", lambda self: (False, None))


# Flow


@bug(SPREAD, CALM, credit=1)
def overflow_is_lost() -> None:
    real = Target.drain

    def drain(self: Target) -> None:
        if self.runner is None and len(self.overflow) > 1:
            self.overflow.pop()
        real(self)

    put(Target, "drain", drain)


@bug(faulty("kill_worker"), credit=2)
def credit_is_not_reset() -> None:
    def place(self: Target, runner: Runner | None, outbox: Any) -> None:
        self.runner = runner
        self.outbox = outbox
        if runner is not None:
            runner.target = self
        self.drain()

    put(Target, "place", place)


@bug(SPREAD, credit=2)
def credit_is_ignored() -> None:
    real = Target.deliver

    def deliver(self: Target, row: Any, source: Any, anchor: Any, credited: bool) -> None:
        self.granted += 1
        real(self, row, source, anchor, credited)

    put(Target, "deliver", deliver)


@bug(SPREAD, CALM, credit=3, pending=100)
def grants_are_forgotten() -> None:
    real = Runner.grant

    def grant(self: Runner) -> None:
        if self.task % 2:
            real(self)

    put(Runner, "grant", grant)


@bug(SPREAD, pending=4)
def window_is_ignored() -> None:
    put(Window, "bounded", lambda self, size: size)
    put(Window, "measure", lambda self, *counts: None)


@bug(SPREAD)
def inboxes_are_taken_backwards() -> None:
    real = Runner.take
    put(Runner, "take", lambda self: real(self)[::-1])


@bug(faulty("pause"))
def paused_spouts_go_on() -> None:
    def set_active(self: Life, active: bool) -> None:
        for made in self.known:
            if made.spout is not None:
                made.spout.active = True
        self.active = active

    put(Life, "set_active", set_active)


# Groupings


@bug(SPREAD, bolts=5)
def keys_go_anywhere() -> None:
    real = choosers.Fields.choose

    def choose(self: choosers.Fields, values: tuple[object, ...]) -> int:
        return (real(self, values) + self.n * (id(self) // 64 % 7 == 0) + (values[0] == 7)) % self.n

    put(choosers.Fields, "choose", choose)


@bug(SPREAD, bolts=5)
def all_means_all_but_one() -> None:
    real = choosers.All.choose_many
    put(choosers.All, "choose_many", lambda self, values: real(self, values)[: max(1, self.n - 1)])


@bug(SPREAD, bolts=5)
def global_is_the_last_task() -> None:
    put(choosers.Global, "choose", lambda self, values: self.n - 1)


@bug(SPREAD, bolts=5)
def local_means_anywhere() -> None:
    put(choosers.LocalOrShuffle, "choose", choosers.Shuffle.choose)
    put(choosers.LocalOrShuffle, "relocate", lambda self, local: choosers.Shuffle.__init__(self, self.n, 1))


# Back-pressure


@bug(CALM, supervisors=2, slots=2, workers=2, topologies=1, bolts=6, credit=3, pass_s=0.005, delay_s=0.002)
def nobody_stands_in_line() -> None:
    put(Agenda, "line_up", lambda self, waiter: None)


# Placements


@bug(faulty("rebalance", "kill_supervisor", "stop_supervisor", every_s=0.5), lease_s=5.0)
def tuples_of_a_place_given_up_are_taken() -> None:
    real = Inbound.run

    def run(self: Inbound, sender: str, parts: Any) -> None:
        known, self.address_of = self.address_of, _Anywhere(sender)
        try:
            real(self, sender, parts)
        finally:
            self.address_of = known

    put(Inbound, "run", run)


class _Anywhere(dict[int, str]):
    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def get(self, key: int, default: Any = None) -> Any:
        return self.address


@bug(faulty("rebalance", every_s=0.5))
def a_moved_task_is_forgotten() -> None:
    real = Wiring.add

    def add(self: Wiring, task: int, local: frozenset[int]) -> LocalTask | None:
        if self.tasks and self.agenda.now - self.books.clock_now < 1e-9 and task % 3 == 0 and self.runners:
            if self.tasks[next(iter(self.tasks))].opened:
                return None
        return real(self, task, local)

    put(Wiring, "add", add)


@bug(faulty("rebalance", "slow_worker", every_s=0.4), credit=8, delay_s=0.002, topologies=1, rate=200.0)
def what_a_moved_task_held_goes_twice() -> None:
    real = Worker.take_out

    def take_out(self: Worker, task: int) -> tuple[int, list[Any]]:
        task, rest = real(self, task)
        return task, rest + rest

    put(Worker, "take_out", take_out)


@bug(faulty("second_nimbus", "rebalance", "pause", every_s=0.5))
def workers_take_older_assignments() -> None:
    def apply(self: Worker, assignment: Assignment, now: float) -> None:
        self.agenda.now = now
        self.books.clock_now = now
        self.install(assignment)

    put(Worker, "apply", apply)
    put(orders, "is_newer", lambda assignment, known: True)


# Nimbus, its store, supervisors


@bug(faulty("second_nimbus", "rebalance", "pause", every_s=0.5))
def epochs_are_not_compared() -> None:
    put(SimStore, "check_epoch", lambda self, epoch: None)


@bug(faulty("kill_nimbus", "pause", "rebalance", every_s=0.5))
def writes_are_not_synced() -> None:
    put(SimStore, "commit", lambda self: None)


@bug(topologies=2, supervisors=2, slots=2, workers=2)
def slots_are_given_twice() -> None:
    def usable(self: Nimbus, entry: Any) -> Any:
        return self._roster.usable(entry, set())

    put(Nimbus, "_usable", usable)


@bug(faulty("kill_topology", "pause", every_s=0.5))
def killed_topologies_come_back() -> None:
    lifecycle.TABLE[Status.KILLED, Event.ACTIVATE] = lifecycle.Step(Status.ACTIVE)


@bug(faulty("kill_topology"), bolts=5)
def kills_do_not_wait() -> None:
    put(Nimbus, "_settled", lambda self, entry, now: True)


@bug(faulty("kill_topology", "kill_nimbus", every_s=0.5))
def waits_are_forgotten_by_the_next_leader() -> None:
    real = Nimbus.__init__

    def init(self: Nimbus, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        self._due = {}

    put(Nimbus, "__init__", init)


@bug(faulty("kill_topology", "kill_nimbus", every_s=0.5))
def numbers_of_topologies_are_used_again() -> None:
    put(core, "read_counter", lambda values, entries: 0)


@bug(faulty("kill_nimbus"))
def a_new_leader_expects_nobody() -> None:
    real = Liveness.__init__
    put(Liveness, "__init__", lambda self, lease_s, expected, now: real(self, lease_s, (), now))


@bug(faulty("stop_supervisor", "kill_supervisor"))
def leases_run_out_early() -> None:
    real = Liveness.__init__
    put(Liveness, "__init__", lambda self, lease_s, expected, now: real(self, lease_s * 0.3, expected, now))


@bug(faulty("kill_host", "isolate"), lease_s=5.0)
def leases_never_run_out() -> None:
    put(Liveness, "expire", lambda self, now: [])
    put(Liveness, "alive", lambda self, supervisor: True)


@bug(faulty("kill_host", "kill_supervisor", "rebalance"))
def scheduler_forgets_what_runs_where() -> None:
    real = scheduler.place

    def place(executors: Any, workers: int, current: Any, usable: Any, **how: Any) -> Any:
        return real(executors, workers, {}, sorted(usable)[::-1], **how)

    put(core, "place", place)


@bug(faulty("kill_host", "kill_worker"), workers=6)
def scheduler_forgets_an_executor() -> None:
    real = Plan.executors
    put(core, "place", lambda executors, *given, **how: scheduler.place(list(executors)[:-1], *given, **how))
    assert real is Plan.executors


@bug(faulty("rebalance", "kill_topology", every_s=0.4))
def slot_forgets_its_process() -> None:
    real = slot._want_other

    def want_other(state: slot.Slot, event: slot.Wanted, now: float, limits: slot.Limits) -> slot.Step:
        if event.topology is None:
            return real(state, event, now, limits)
        return slot._settle(replace(state, wanted=event.topology))

    for at in (slot.State.RUNNING, slot.State.STARTING):
        slot.TABLE[at, slot.Wanted] = want_other


@bug(faulty("rebalance", "kill_topology"))
def slot_never_presses() -> None:
    slot.TABLE[slot.State.RUNNING, slot.Wanted] = slot._nothing


@bug(SPREAD)
def spouts_spin() -> None:
    put(SpoutTask, "wanted_at", lambda self: 0.0)
