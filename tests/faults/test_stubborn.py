"""Workers whose user code does not let go: it ignores SIGTERM, or keeps Python to itself. They end all the same."""

from __future__ import annotations

import pytest

from kit.chaos import SHORT, Case, alive, now, wait

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 6, "settings": SHORT}

SHUTDOWN_S = 3.0  # supervisor.worker.shutdown.sleep.secs, as shipped
MORE_S = 3.0
STUCK_S = 60
STUCK = [pytest.param("spin", marks=pytest.mark.slow), "hold"]


def make_stubborn(case: Case, component: str, how: str) -> None:
    case.order(component, "ignore")
    case.order(component, how, STUCK_S)


@pytest.mark.slow
@pytest.mark.attacked(shape="chain", workers=3)
@pytest.mark.parametrize("how", ["spin", "hold"])
def test_f07_topology_is_killed_whose_worker_is_stubborn(case: Case, how: str) -> None:
    pids = [w.pid for w in case.workers()]
    [stuck] = [w.pid for w in case.workers() if any(task.component == "relay" for task in w.tasks)]
    case.fault()
    make_stubborn(case, "relay", how)
    at = now()
    case.kill()
    wait(lambda: not any(alive(pid) for pid in pids), SHUTDOWN_S + MORE_S, case.arena.worker_logs)
    print(f"gone {now() - at:.1f} s after the kill")
    wait(lambda: case.arena.logged("supervisor-1", f"worker {stuck}", "signal 9 (SIGKILL)"), 5.0)


@pytest.mark.attacked(shape="chain", workers=3)
@pytest.mark.parametrize("how", STUCK)
def test_f07_stubborn_worker_is_replaced(case: Case, how: str) -> None:
    """Its tasks are to run elsewhere; what it held runs there, and nothing is lost."""
    kept = kept_by_a_rebalance(case)
    victim = next(name for name in ("relay", "sink") if case.slots_of(name)[0].port != kept)
    [stuck] = [w.pid for w in case.workers() if any(task.component == victim for task in w.tasks)]
    at = case.fault(spout=True)
    make_stubborn(case, victim, how)
    case.running.rebalance(workers=1, wait_s=0.5)
    wait(lambda: not alive(stuck), 2 * SHUTDOWN_S, case.explain)
    back_s = case.mended() - at
    case.wait_flowing()
    verdict = case.judge()
    print(f"elsewhere after {back_s:.1f} s", verdict)
    assert back_s <= 0.5 + 2 * SHUTDOWN_S + MORE_S
    assert len(case.workers()) == 1


def kept_by_a_rebalance(case: Case) -> int:
    """The port of the worker that goes on when there is to be only one; three again afterwards."""
    case.running.rebalance(workers=1)
    [slot] = case.assignment().slots()
    case.running.rebalance(workers=3)
    case.wait_flowing(100)
    return slot.port
