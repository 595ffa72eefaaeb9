"""Bugs planted in what must stay small, and in how often a row may come."""

from __future__ import annotations

from typing import Any

from rainband.acker.ledger import Ledger
from rainband.groupings.choosers import Shuffle
from rainband.nimbus.roster import Roster
from rainband.nimbus.service import Service
from rainband.records import HeartbeatReply
from rainband.supervisor import lease
from rainband.worker.reliable import ReliableBook
from rainband.worker.routes import Target
from rainband.worker.transfer import Inbound
from simulation.hosts import SimStation, Supervisor
from simulation.planted import CALM, SPREAD, bug, faulty, put
from simulation.planted_control import BUGS
from simulation.processes import WorkerProcess

__all__ = ["BUGS"]

LEASED = faulty("delays", "isolate", "stop_host", every_s=0.5) | {
    "exclusive": True, "supervisors": 3, "slots": 2, "workers": 3, "bolts": 4, "lease_s": 5.0, "spawn_s": 0.1,
    "safety_s": 14.0, "credit": 4096, "rate": 30.0, "roots": 300, "topologies": 1,
}  # fmt: skip


@bug(faulty("kill_worker", "kill_host", every_s=0.4), ackers=2, timeout_s=3.0, safety_s=12.0)
def ackers_never_forget() -> None:
    put(Ledger, "rotate", lambda self: 0)


@bug(SPREAD, CALM, credit=8, bolts=5, rate=200.0, pass_s=0.01)
def nobody_is_told_that_a_target_is_full() -> None:
    put(Target, "set_full", lambda self, full: None)


@bug(
    faulty("kill_worker", "slow_worker", every_s=0.4), supervisors=2, slots=2, workers=3, bolts=2, credit=1, rate=200.0,
    roots=300, safety_s=6.0, spawn_s=1.5, topologies=1,
)  # fmt: skip
def what_all_targets_have_no_room_for_goes_round() -> None:
    real = Shuffle._pass_over

    def pass_over(self: Shuffle, index: int) -> int:
        self.newest = index
        return real(self, index)

    put(Shuffle, "_pass_over", pass_over)


@bug(faulty("kill_worker"), stale_frames=False)
def tuples_are_dropped_uncounted_after_a_death() -> None:
    real = Inbound.run

    def run(self: Inbound, sender: str, parts: Any) -> None:
        if self.received != 5:
            real(self, sender, parts)
        self.received += self.received == 5

    put(Inbound, "run", run)


@bug(LEASED)
def leases_count_from_the_answer() -> None:
    real = Supervisor._answered

    def answered(self: Supervisor, reply: HeartbeatReply, now: float) -> None:
        self.sent_at = now
        real(self, reply, now)

    put(Supervisor, "_answered", answered)
    put(lease, "LASTS_SHARE", 1.0)


@bug(LEASED)
def who_stood_still_works_on_before_it_looks_at_its_lease() -> None:
    real = WorkerProcess.run

    def run(self: WorkerProcess) -> None:
        until, self.host.lease_until = self.host.lease_until, float("inf")
        real(self)
        self.host.lease_until = until
        if self.alive and self.host.clock.now() >= until:
            self.end(0, "not confirmed, and exclusive")

    put(WorkerProcess, "run", run)


MOVED = LEASED | faulty("rebalance", "isolate", "stop_worker", "stop_host", every_s=0.5)


@bug(MOVED)
def exclusive_tasks_begin_elsewhere_at_once() -> None:
    put(Roster, "has_ended", lambda self, assignment, left: True)


@bug(MOVED)
def what_a_worker_was_told_to_end_counts_as_ended() -> None:
    put(SimStation, "behind", lambda self: False)


@bug(faulty("jump_clock"))
def control_code_reads_the_clock_on_the_wall() -> None:
    real = Service.turn

    def turn(self: Service, requests: Any, now: float, late_s: float) -> None:
        real(self, requests, now + self.clock.wall() % 7200.0, late_s)

    put(Service, "turn", turn)


@bug(CALM)
def nimbus_spins() -> None:
    put(Service, "_wait_s", lambda self, now: 0.0)


@bug(CALM)
def supervisors_spin() -> None:
    put(Supervisor, "_next", lambda self, now: now + 0.005)


@bug(faulty("kill_worker", "cut"), loss=0.02)
def rows_that_were_acked_come_again() -> None:
    real = ReliableBook.acked
    seen: set[object] = set()

    def acked(self: ReliableBook, message_id: object) -> None:
        if message_id in seen or message_id not in self.rows:
            real(self, message_id)
        else:
            seen.add(message_id)
            self.lost(message_id, 0.0)

    put(ReliableBook, "acked", acked)
