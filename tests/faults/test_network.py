"""Hosts of their own (network namespaces) with keys, and cables that are cut, one way or both, or too thin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.chaos import SHORT, Arena, Case, alive, now, wait
from kit.chaos_host import Hosts, arena_on, needs_ip

pytestmark = [pytest.mark.faults, pytest.mark.slow, needs_ip]

LEASE_S = 6.0
CUT_S = 8.0
FLOWING = 100
LINKED_S = 3.0
ONE_WAY_S = 8.0
MOVED_S = 5.0
FENCED_S = 10.0
PORTS_S = 5.0
LEASES = {**SHORT, "nimbus.supervisor.timeout.secs": LEASE_S}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(2) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena_on(hosts, tmp_path_factory.mktemp("network"), LEASES) as made:
        yield made


def test_f34_no_port_is_left_for_new_connections(case: Case, hosts: Hosts) -> None:
    """A worker that starts there can connect to nobody until there are ports again; the others live."""
    number = 3 - host_of(case, "numbers")
    name = f"supervisor-{number}"
    mine = {slot.port for slot in case.assignment().slots() if case.arena.supervisor_of(slot) == name}
    victim = next(w for w in case.workers() if w.port in mine)
    others = {w.pid for w in case.workers()} - {victim.pid}
    with hosts.no_ports(number):
        case.kill_worker(victim)
        lasts(3.0)
        assert not any(w.port == victim.port for w in case.workers())
        assert case.arena.alive_supervisors() == 2
    at = now()
    case.wait_replaced(victim)
    case.wait_flowing(FLOWING)
    back_s = case.mended() - at
    verdict = case.judge()
    print(f"flowing {back_s:.1f} s after there were ports", verdict)
    assert back_s <= PORTS_S
    assert {w.pid for w in case.workers()} > others


def host_of(case: Case, component: str) -> int:
    """The number of the host that runs the only task of a component."""
    [slot] = case.slots_of(component)
    return int(case.arena.supervisor_of(slot).removeprefix("supervisor-"))


def lasts(seconds: float) -> None:
    until = now() + seconds
    wait(lambda: now() >= until, seconds + 5)


def test_f20_workers_cut_off_from_each_other(case: Case, hosts: Hosts) -> None:
    before = {w.pid for w in case.workers()}
    at = case.fault()
    hosts.cut(1, 2)
    try:
        lasts(CUT_S)
    finally:
        hosts.heal(1, 2)
    healed = now()
    case.wait_flowing(FLOWING)
    back_s = case.mended() - healed
    verdict = case.judge()
    print(f"cut for {healed - at:.1f} s, flowing {back_s:.1f} s after", verdict)
    assert verdict["again"] == 0, verdict
    assert back_s <= LINKED_S
    assert {w.pid for w in case.workers()} == before
    assert case.statistics().failed == 0


def test_f22_cut_in_one_direction(case: Case, hosts: Hosts) -> None:
    before = {w.pid for w in case.workers()}
    case.fault()
    hosts.cut(2, 1, one_way=True)
    try:
        lasts(CUT_S)
    finally:
        hosts.heal(1, 2)
    healed = now()
    case.wait_flowing(FLOWING)
    back_s = case.mended() - healed
    verdict = case.judge()
    print(f"one-way cut, flowing {back_s:.1f} s after", verdict)
    assert verdict["again"] == 0, verdict
    assert back_s <= ONE_WAY_S
    assert {w.pid for w in case.workers()} == before


def test_f21_supervisor_cut_off_from_nimbus(case: Case, hosts: Hosts) -> None:
    number = 3 - host_of(case, "numbers")
    name = f"supervisor-{number}"
    mine = {slot.port for slot in case.assignment().slots() if case.arena.supervisor_of(slot) == name}
    old = [w.pid for w in case.workers() if w.port in mine]
    kept = [w.pid for w in case.workers() if w.port not in mine]
    assert old
    at = case.fault()
    hosts.cut(0, number)
    try:
        def moved() -> bool:
            s = case.statistics()
            here = [slot for slot in case.assignment().slots() if case.arena.supervisor_of(slot) == name]
            return not here and s.workers_running == s.workers_wanted

        wait(moved, LEASE_S + 10.0, case.explain)
        moved_s = now() - at
        assert all(alive(pid) for pid in old)
        case.wait_flowing()
    finally:
        hosts.heal(0, number)
    healed = now()
    wait(lambda: not any(alive(pid) for pid in old), 20.0, case.explain)
    fenced_s = case.mended() - healed
    case.arena.wait_supervisors(2)
    case.wait_flowing()
    verdict = case.judge()
    print(f"cut off from Nimbus: moved after {moved_s:.1f} s, old ones gone {fenced_s:.1f} s after it healed", verdict)
    assert moved_s <= LEASE_S + MOVED_S
    assert fenced_s <= FENCED_S
    assert {w.pid for w in case.workers()} >= set(kept)


@pytest.mark.attacked(rate=4000.0)
def test_f24_thin_cable(case: Case, hosts: Hosts) -> None:
    before = {w.pid for w in case.workers()}
    case.fault()
    for number in (1, 2):
        hosts.slow_down(number, "1mbit", "500ms")
    try:
        lasts(10.0)
        rss = [w.rss_bytes for w in case.workers()]
        s = case.statistics()
    finally:
        for number in (1, 2):
            hosts.speed_up(number)
    case.wait_flowing()
    case.mended()
    verdict = case.judge()
    print(f"1 Mbit: rss {[size >> 20 for size in rss]} MiB, {s.timed_out} timed out", verdict)
    assert verdict["again"] == 0, verdict
    assert max(rss) <= 150 << 20
    assert {w.pid for w in case.workers()} == before
