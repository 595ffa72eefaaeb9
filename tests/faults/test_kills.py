"""kill -9 of each kind of process, once under load: nothing lost, what was pending runs at most once more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.chaos import Arena, Case, now, wait

pytestmark = pytest.mark.faults

WORKER_BACK_S = 2.0
REPLAY_S = 5.0
DAEMON_BACK_S = 5.0
STANDSTILL_S = 2.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(tmp_path_factory.mktemp("kills"), slots=5) as made:
        yield made
        made.end_cleanly()


@pytest.fixture
def case(cluster: Arena, request: pytest.FixtureRequest) -> Iterator[Case]:
    config = getattr(request, "param", {})
    name = request.node.name.split("[")[0].removeprefix("test_")
    made = cluster.case(name, **config)
    made.wait_flowing()
    yield made
    made.kill()


def kill_and_judge(case: Case, component: str, without: tuple[str, ...] = ()) -> dict[str, object]:
    victim = case.worker(component, without)
    at = case.kill_worker(victim)
    back_s = case.wait_replaced(victim) - at
    case.wait_flowing()
    verdict = case.judge()
    verdict["back_s"] = round(back_s, 3)
    print(case.name, verdict)
    assert back_s <= WORKER_BACK_S, verdict
    assert verdict["faults"][0]["all_acked_s"] is None or verdict["faults"][0]["all_acked_s"] <= REPLAY_S, verdict
    assert verdict["standstill_s"] <= STANDSTILL_S, verdict
    name = case.arena.names[1]
    assert case.arena.logged(name, f"worker {victim.pid}", "died", "signal 9 (SIGKILL)")
    assert any("signal 9 (SIGKILL)" in error.error for error in case.running.errors())
    return verdict


def test_f01_killed_worker_of_bolts(case: Case) -> None:
    kill_and_judge(case, "relay", without=("numbers",))


def test_f02_killed_worker_of_the_spout(case: Case) -> None:
    kill_and_judge(case, "numbers")


@pytest.mark.parametrize(
    "case", [{"shape": "chain", "workers": 4, "config": {"topology.acker.executors": 1}}], indirect=True
)
def test_f03_killed_worker_of_the_acker(case: Case) -> None:
    kill_and_judge(case, "__acker", without=("numbers", "relay", "sink"))


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
