"""Processes that stand still (SIGSTOP) and go on, and hosts that are lost: what is slow is waited for, no longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.chaos import SHORT, Arena, Case, alive, kill_at_once, now, wait

pytestmark = pytest.mark.faults
CLUSTER = {"supervisors": 2, "slots": 6, "settings": SHORT}

LEASE_S = float(SHORT["nimbus.supervisor.timeout.secs"])
MOVED_S = 5.0
REPLACED_S = 3.0
WORKER_TIMEOUT_S = float(SHORT["supervisor.worker.timeout.secs"])


def let_pass(seconds: float) -> None:
    """The duration of a fault: the only time that is waited for without a condition."""
    until = now() + seconds
    wait(lambda: now() >= until, seconds + 5)


def test_f05_worker_stands_still_for_less_than_its_timeout(case: Case) -> None:
    victim = case.worker("relay", without=("numbers",))
    at = case.fault()
    case.arena.stop(victim.pid)
    let_pass(WORKER_TIMEOUT_S - 1.5)
    case.arena.go_on(victim.pid)
    healed = now()
    case.wait_flowing(100)
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert verdict["standstill_s"] <= healed - at + 1.0, verdict
    assert case.statistics().restarts == 0


def test_f06_worker_stands_still_for_good(case: Case) -> None:
    victim = case.worker("relay", without=("numbers",))
    at = case.fault()
    case.arena.stop(victim.pid)
    case.wait_replaced(victim, WORKER_TIMEOUT_S + 8.0)
    back_s = now() - at
    case.wait_flowing(100)
    case.judge()
    print(f"replaced after {back_s:.1f} s (timeout {WORKER_TIMEOUT_S:g} s)")
    assert not alive(victim.pid)
    assert back_s <= WORKER_TIMEOUT_S + REPLACED_S
    name = case.arena.supervisor_of(next(s for s in case.assignment().slots() if s.port == victim.port))
    assert case.arena.logged(name, f"worker {victim.pid}", "given up", "stopped by a signal")


def test_f06_whole_host_stands_still_and_its_workers_wake_first(case: Case, host: str) -> None:
    """Replaced while they stood still, the old processes find themselves fenced: nothing they do counts."""
    kept = [w.pid for w in case.workers() if w.pid not in workers_of(case, host)]
    old = workers_of(case, host)
    supervisor = case.arena.pid(host)
    case.fault()
    for pid in [supervisor, *old]:
        case.arena.stop(pid)
    wait_moved(case, host, LEASE_S + 8.0)
    for pid in old:
        case.arena.go_on(pid)
    case.wait_flowing()
    case.arena.go_on(supervisor)
    wait(lambda: not any(alive(pid) for pid in old), 10.0, case.explain)
    case.mended()
    case.wait_flowing()
    case.judge()
    assert {w.pid for w in case.workers()} >= set(kept)


@pytest.fixture
def host(case: Case) -> Iterator[str]:
    """The supervisor that has some of the bolts but not the spout."""
    with_spout = {slot.supervisor for slot in case.slots_of("numbers")}
    others = [slot for slot in case.assignment().slots() if slot.supervisor not in with_spout]
    yield case.arena.supervisor_of(others[0])
    for name in case.arena.names[1:]:
        if name not in case.arena.children:
            case.arena.start(name)
    case.arena.wait_supervisors(2)


def workers_of(case: Case, name: str) -> list[int]:
    """Pids of the case's workers on one supervisor."""
    ports = {slot.port for slot in case.assignment().slots() if case.arena.supervisor_of(slot) == name}
    return [w.pid for w in case.workers() if w.port in ports]


def wait_moved(case: Case, name: str, timeout_s: float) -> None:
    """Wait until all workers run, none of them on the supervisor."""

    def moved() -> bool:
        here = [slot for slot in case.assignment().slots() if case.arena.supervisor_of(slot) == name]
        s = case.statistics()
        return not here and s.workers_running == s.workers_wanted

    wait(moved, timeout_s, case.explain)


def test_f10_supervisor_stands_still_past_its_lease(case: Case, host: str) -> None:
    kept = [w.pid for w in case.workers() if w.pid not in workers_of(case, host)]
    old = workers_of(case, host)
    assert old
    at = case.fault()
    case.arena.stop(case.arena.pid(host))
    wait_moved(case, host, LEASE_S + 8.0)
    moved_s = now() - at
    assert all(alive(pid) for pid in old)
    case.arena.go_on(case.arena.pid(host))
    healed = now()
    wait(lambda: not any(alive(pid) for pid in old), 10.0, case.explain)
    fenced_s = case.mended() - healed
    case.wait_flowing()
    case.judge()
    print(f"moved after {moved_s:.1f} s (lease {LEASE_S:g} s), old ones gone {fenced_s:.1f} s after it went on")
    assert moved_s <= LEASE_S + MOVED_S
    assert {w.pid for w in case.workers()} >= set(kept)


def test_f11_host_is_lost(case: Case, host: str) -> None:
    kept = [w.pid for w in case.workers() if w.pid not in workers_of(case, host)]
    at = case.fault()
    lost = workers_of(case, host)
    case.arena.kill(host)
    kill_at_once(lost)
    wait_moved(case, host, LEASE_S + 10.0)
    back_s = case.mended() - at
    case.wait_flowing()
    verdict = case.judge()
    print(f"host lost: all tasks running elsewhere after {back_s:.2f} s", verdict)
    assert back_s <= LEASE_S + MOVED_S
    assert {w.pid for w in case.workers()} >= set(kept)


def test_f13_nimbus_stands_still_past_every_lease(case: Case) -> None:
    before, placed = {w.pid for w in case.workers()}, case.assignment().placements
    case.fault()
    case.arena.stop(case.arena.pid("nimbus"))
    let_pass(LEASE_S + 1.5)
    case.arena.go_on(case.arena.pid("nimbus"))
    case.arena.wait_supervisors(2)
    case.mended()
    wait(lambda: {w.pid for w in case.workers()} == before, 10.0, case.explain)
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert case.assignment().placements == placed
    assert case.arena.logged("nimbus", "stood still")


def test_arena_has_two_supervisors(cluster: Arena) -> None:
    assert cluster.alive_supervisors() == 2
