"""More bugs planted on purpose: in elections, epochs, leases, bundles, and in what one leader leaves to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from rainband.cluster import campaign, election
from rainband.cluster.election import Candidate, Lease
from rainband.cluster.zookeeper import Facts, Step, ZooKeeperStore
from rainband.errors import RainbandError, StoreError
from rainband.nimbus import core, service
from rainband.nimbus.core import Nimbus
from rainband.nimbus.rows import Entry, read_entries
from rainband.nimbus.service import Service
from rainband.records import ListTopologies, Response, Submit
from rainband.supervisor import slot
from rainband.worker.books import Books
from simulation.disks import SimBlobs
from simulation.hosts import SimStation
from simulation.planted import BUGS, SPREAD, bug, put

__all__ = ["BUGS"]

THREE: dict[str, Any] = {
    "nimbuses": 3, "supervisors": 2, "slots": 2, "workers": 2, "bolts": 2, "roots": 40, "per_fault_s": 0.6,
}  # fmt: skip


@bug(THREE, faults=("cut_store", "pause", "rebalance", "stop_nimbus", "store_flaky"))
def the_guard_of_writes_is_ignored() -> None:
    real = ZooKeeperStore._try_commit

    def try_commit(self: ZooKeeperStore, facts: Facts, steps: list[Step], until: float) -> bool | None:
        self._guard = -1
        return real(self, facts, steps, until)

    put(ZooKeeperStore, "_try_commit", try_commit)


@bug(THREE, faults=("cut_store", "stop_nimbus"))
def leases_end_by_an_event() -> None:
    put(Lease, "held", lambda self, now: self.until != float("-inf"))


@bug(THREE, faults=("cut_store", "stop_nimbus"), session_s=6.0)
def leases_outlast_sessions() -> None:
    put(election, "lasts_s", lambda session_s: 1.25 * session_s)


@bug(THREE, faults=("end_nimbus", "kill_nimbus"))
def the_last_candidate_leads() -> None:
    real = election.queue_of

    def queue_of(nodes: Iterable[str]) -> list[Candidate]:
        return real(nodes)[::-1]

    put(campaign, "queue_of", queue_of)


@bug(THREE, faults=("pause", "store_slow"), lease_s=4.0, session_s=9.0, supervisors=3, topologies=1, per_fault_s=0.4)
def time_spent_writing_counts_against_supervisors() -> None:
    real = Service._tick
    put(service, "SLOW_S", service.STILL_S)
    put(Service, "_tick", lambda self, now: real(self, self.clock.now()))


@bug(THREE, faults=("damage_row", "kill_nimbus"))
def a_leader_without_a_bundle_makes_way() -> None:
    real = Service._begin

    def begin(self: Service, now: float) -> None:
        real(self, now)
        named = {entry.plan.bundle for entry in self.nimbus._entries.values()} if self.leads else set()
        if not all(self._shelf.has(digest) for digest in named):
            self._nimbus = None
            self._opened.election.resign()

    put(Service, "_begin", begin)


@bug(THREE, faults=("damage_row", "kill_nimbus"))
def a_damaged_row_stops_the_leader() -> None:
    def read(values: Mapping[str, bytes]) -> tuple[dict[str, Entry], dict[str, str]]:
        entries, damaged = read_entries(values)
        if damaged:
            raise StoreError(f"cannot read {damaged}")
        return entries, damaged

    put(core, "read_entries", read)


@bug(THREE, faults=("kill_topology",), safety_s=12.0)
def bundles_stay_on_one_nimbus() -> None:
    def must_wait(self: Service, peer: bytes, request_id: int, request: Submit) -> bool:
        return False

    put(Service, "_must_wait", must_wait)


@bug(THREE, faults=("kill_nimbus", "kill_topology"))
def bundles_are_not_synced() -> None:
    put(SimBlobs, "sync", lambda self: None)


@bug(THREE, faults=("cut_store", "kill_topology", "pause", "rebalance"))
def an_old_leader_goes_on() -> None:
    real = Service._look_who_leads

    def look(self: Service, now: float) -> None:
        if self._nimbus is None:
            real(self, now)

    put(Service, "_look_who_leads", look)


@bug(THREE, faults=("kill_topology", "pause", "store_flaky"))
def an_answer_that_got_lost_means_refused() -> None:
    put(ZooKeeperStore, "_was_committed", lambda self, facts, until, lost: False)


@bug(THREE, faults=("end_nimbus", "kill_nimbus", "rebalance"), spawn_s=1.5)
def the_next_leader_does_it_again() -> None:
    real = Nimbus.__init__

    def init(self: Nimbus, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        for topology_id, entry in sorted(self._entries.items()):
            if entry.row.moving:
                row = msgspec.structs.replace(entry.row, moving=False, remaining_s=0.0)
                self._write(entry, replace(entry, row=row))
                self._due[topology_id] = 0.0

    put(Nimbus, "__init__", init)


@bug(THREE, faults=("kill_topology", "pause", "rebalance"))
def lists_are_old() -> None:
    real = Nimbus._list

    def answer(self: Nimbus, request: ListTopologies, now: float, wall: float) -> Response:
        at, known = self.__dict__.get("known_list", (float("-inf"), None))
        if known is None or now > at + 3.0:
            at, known = now, real(self, request, now, wall)
            self.__dict__["known_list"] = (at, known)
        found: Response = known
        return found

    put(Nimbus, "_list", answer)


@bug(THREE, faults=("disk_full", "kill_topology", "pause"), nimbuses=1)
def what_failed_is_believed() -> None:
    real = Nimbus._write

    def write(self: Nimbus, old: Entry | None, new: Entry | None, *also: Any) -> None:
        try:
            real(self, old, new, *also)
        except RainbandError:
            if new is not None and new.topology_id in self._entries:
                self._entries[new.topology_id] = new
            raise

    put(Nimbus, "_write", write)


@bug(THREE, faults=("control_down",), lease_s=7.0, per_fault_s=3.0)
def workers_end_when_nimbus_is_silent() -> None:
    real = SimStation.look

    def look(self: SimStation, now: float) -> None:
        if not self.shop.leased():
            self.feed(slot.Wanted(None), now)
        else:
            self.shop._assign(now)
        real(self, now)

    put(SimStation, "look", look)


@bug(SPREAD, faults=("isolate", "kill_host"), safety_s=8.0, timeout_s=5.0, bolts=4)
def timeouts_come_late() -> None:
    real = Books.expire
    put(Books, "expire", lambda self, timeout_s: real(self, timeout_s * 1.5))
