"""Processes that end by kill -9 or by themselves, under load: nothing lost, what was pending runs at most once more."""

from __future__ import annotations

import os
import re
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from kit.chaos import SHORT, Arena, Case, alive, kill_at_once, now, wait
from kit.chaos_host import memory_group, needs_root
from rainband.nimbus.running import status_text

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 8, "settings": SHORT}

WORKER_BACK_S = 2.0
REPLAY_S = 5.0
DAEMON_BACK_S = 5.0
STANDSTILL_S = 2.0
LOOK_S = 1.5


def kill_and_judge(case: Case, component: str, without: tuple[str, ...] = ()) -> None:
    victim = case.worker(component, without)
    at = case.kill_worker(victim)
    back_s = case.wait_replaced(victim) - at
    case.wait_flowing()
    check(case, back_s)
    assert case.arena.logged("supervisor-1", f"worker {victim.pid}", "died", "signal 9 (SIGKILL)")
    assert any("signal 9 (SIGKILL)" in error.error for error in case.running.errors())


def check(case: Case, back_s: float) -> dict[str, Any]:
    """What issue and catalogue promise of the death of a worker, figures included."""
    verdict = case.judge()
    verdict["back_s"] = round(back_s, 3)
    print(case.name, verdict)
    assert back_s <= WORKER_BACK_S, verdict
    for fault in verdict["faults"]:
        assert (fault["all_acked_s"] or 0.0) <= REPLAY_S, verdict
    assert verdict["standstill_s"] <= STANDSTILL_S, verdict
    return verdict


def test_f01_killed_worker_of_bolts(case: Case) -> None:
    kill_and_judge(case, "relay", without=("numbers",))


def test_f02_killed_worker_of_the_spout(case: Case) -> None:
    kill_and_judge(case, "numbers")


@pytest.mark.attacked(shape="chain", workers=4, config={"topology.acker.executors": 1})
def test_f03_killed_worker_of_the_acker(case: Case) -> None:
    kill_and_judge(case, "__acker", without=("numbers", "relay", "sink"))


def test_f04_every_worker_killed_at_once(case: Case) -> None:
    victims = case.workers()
    assert len(victims) == 3
    at = case.fault(spout=True)
    kill_at_once([victim.pid for victim in victims])
    for victim in victims:
        case.wait_replaced(victim)
    back_s = now() - at
    case.wait_flowing()
    check(case, back_s)


ENDS = [
    ("segfault", (), "signal 11 (SIGSEGV)"),
    ("abort", (), "signal 6 (SIGABRT)"),
    ("_exit", (3,), "exit code 3"),
]


@pytest.mark.parametrize(("order", "arguments", "cause"), ENDS, ids=[end[0] for end in ENDS])
def test_f07_worker_ends_by_itself(case: Case, order: str, arguments: tuple[int, ...], cause: str) -> None:
    before = {w.port: w.pid for w in case.workers()}
    at = case.fault()
    case.order("keyed", order, *arguments)
    dead = wait(lambda: [pid for pid in before.values() if not alive(pid)], 5.0, case.explain)
    wait(lambda: len(case.workers()) == len(before), 10.0, case.explain)
    back_s = case.mended() - at
    case.wait_flowing()
    check(case, back_s)
    assert case.arena.logged("supervisor-1", f"worker {dead[0]}", "died", cause)
    assert any(cause in error.error for error in case.running.errors())


@needs_root
def test_f07_worker_is_killed_for_want_of_memory(case: Case) -> None:
    """The catalogue asks for the cause: not just signal 9, which anybody may have sent."""
    victim = case.worker("relay", without=("numbers",))
    others = {w.pid for w in case.workers()} - {victim.pid}
    with memory_group(f"rainband-{os.getpid()}", 64 << 20) as group:
        group.write_text(str(victim.pid))
        joined = now()
        wait(lambda: now() >= joined + LOOK_S, 5.0)
        at = case.fault()
        wait(lambda: order_until_dead(case, victim.pid), 20.0, case.explain)
        back_s = case.wait_replaced(victim) - at
        case.wait_flowing()
    case.judge()
    print(f"back after {back_s:.1f} s")
    assert {w.pid for w in case.workers()} > others
    assert case.arena.logged("supervisor-1", f"worker {victim.pid}", "died", "signal 9 (SIGKILL)", "out of memory")
    assert any("out of memory" in error.error for error in case.running.errors())


def order_until_dead(case: Case, pid: int) -> bool:
    """Either task of the component may take the order; the one that is not in the group only raises."""
    if alive(pid):
        case.order("relay", "eat", 100)
    return not alive(pid)


RAISES = [("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("cancel", "CancelledError")]


@pytest.mark.parametrize(("order", "error"), RAISES, ids=[order for order, _ in RAISES])
def test_f07_raise_that_is_no_exception_fails_the_tuple(case: Case, order: str, error: str) -> None:
    before = {w.pid for w in case.workers()}
    case.fault()
    case.order("keyed", order, *([3] if order == "exit" else []))
    case.mended()
    case.wait_flowing()
    verdict = case.judge()
    assert {w.pid for w in case.workers()} == before
    assert verdict["again"] <= 2, verdict
    assert any(error in known.error for known in case.running.errors("keyed"))


def started_at(cluster: Arena, port: int) -> list[float]:
    """When workers were started on the port, by the supervisor's log."""
    lines = cluster.logged("supervisor-1", f"slot {port}: started worker")
    return [datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() for line in lines]


def test_f08_crash_loop_backs_off_and_bothers_nobody(case: Case) -> None:
    other = case.arena.case("f08-bystander", shape="chain", workers=1)
    victim = case.worker("relay", without=("numbers",))
    broken = case.directory / "broken-prepare"
    broken.touch()
    before = len(started_at(case.arena, victim.port))
    case.kill_worker(victim)
    wait(lambda: len(started_at(case.arena, victim.port)) >= before + 4, 15.0, case.explain)
    times = started_at(case.arena, victim.port)[before:]
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps[0] >= 0.5
    assert gaps[1] >= 1.5
    assert gaps[2] >= 3.5
    told = [error for error in case.running.errors("relay") if "says no" in error.error]
    assert told
    assert "in prepare" in told[-1].traceback
    wait(lambda: status_text(case.statistics()) == "ACTIVE CRASHING", 5.0, case.explain)
    assert re.search(r"again in [124] s", case.arena.log("supervisor-1"))
    broken.unlink()
    case.wait_replaced(victim, 15.0)
    case.wait_flowing()
    assert status_text(case.statistics()) == "ACTIVE"
    case.judge()
    assert other.judge()["again"] == 0
    other.kill()


def test_f09_killed_supervisor(case: Case) -> None:
    cluster = case.arena
    before = {w.pid for w in case.workers()}
    at = case.fault()
    cluster.kill("supervisor-1")
    case.wait_flowing()
    cluster.start("supervisor-1")
    wait(lambda: all(cluster.logged("supervisor-1", f"adopted worker {pid}") for pid in before), 10)
    back_s = now() - at
    wait(lambda: {w.pid for w in case.workers()} == before, 10, case.explain)
    case.wait_flowing()
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert verdict["standstill_s"] <= STANDSTILL_S, verdict
    assert back_s <= DAEMON_BACK_S
    assert case.statistics().restarts == 0


def test_f09_topology_is_killed_while_its_supervisor_is_dead(case: Case) -> None:
    """Nobody is left to stop the workers: they ask Nimbus themselves."""
    pids = [worker.pid for worker in case.workers()]
    case.arena.kill("supervisor-1")
    case.kill()
    wait(lambda: not any(alive(pid) for pid in pids), 20.0, case.arena.worker_logs)
    assert "killed while no supervisor was there" in case.arena.worker_logs()
    case.arena.start("supervisor-1")
    case.arena.wait_supervisors(1)


def test_f12_killed_nimbus(case: Case) -> None:
    cluster = case.arena
    before, placed = {w.pid for w in case.workers()}, case.assignment().placements
    case.fault()
    cluster.kill("nimbus")
    case.wait_flowing()
    at = now()
    cluster.start("nimbus")
    cluster.wait_supervisors(1)
    back_s = now() - at
    wait(lambda: {w.pid for w in case.workers()} == before, 10, case.explain)
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert verdict["standstill_s"] <= STANDSTILL_S, verdict
    assert back_s <= DAEMON_BACK_S
    assert case.assignment().placements == placed
