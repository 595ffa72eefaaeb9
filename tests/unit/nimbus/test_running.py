"""The handle, with a cluster that is a list of answers and a clock that is moved by waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rainband.clock import VirtualClock
from rainband.errors import ClusterUnavailable, NotReached, RainbandError, TopologyNotFound, UsageError
from rainband.nimbus.running import Running, crash_loop, describe, status_text
from rainband.records import (
    Done,
    ErrorRecord,
    Errors,
    GetErrors,
    GetStacks,
    GetStatistics,
    GetTopology,
    Kill,
    Rebalance,
    Request,
    Response,
    Stacks,
    Statistics,
    Status,
    TopologySummary,
    WorkerBeat,
    WorkerState,
)

Answer = Callable[[float], Response]


class Cluster:
    """Answers GetStatistics by `statistics(now)`, which may raise; remembers what it was asked."""

    def __init__(self, statistics: Answer, due_s: float | None = None) -> None:
        self.clock = VirtualClock()
        self.statistics = statistics
        self.due_s = due_s
        self.asked: list[Request] = []
        self.running = Running("wc", self, clock=self.clock, pause=self.clock.advance)

    def call(self, request: Request) -> Response:
        self.asked.append(request)
        if isinstance(request, GetStatistics):
            return self.statistics(self.clock.now())
        if isinstance(request, GetErrors):
            return Errors(tuple(ErrorRecord("split", 6, "h", 1, float(n), f"ValueError: {n}") for n in range(5)))
        if isinstance(request, GetTopology):
            return TopologySummary("wc", "wc-1-0", Status.ACTIVE, 1, 1, 1, 0.0, due_s=self.due_s)
        if isinstance(request, GetStacks):
            return Stacks({"h:1 pid 1": "File"} if self.clock.now() > 0.3 else {})
        return Done()


def acked(now: float) -> Statistics:
    return Statistics("wc", "wc-1-0", acked=int(now * 10), workers_wanted=2, workers_running=2 if now > 1 else 1)


def gone(error: RainbandError) -> Response:
    raise error


def test_wait_until_returns_the_statistics_that_met_it() -> None:
    cluster = Cluster(acked)
    found = cluster.running.wait_until(lambda s: s.acked >= 20, timeout_s=5)
    assert found.acked == 20
    assert cluster.clock.now() == pytest.approx(2.0, abs=0.1)


def test_it_looks_often_at_first_and_seldom_later() -> None:
    cluster = Cluster(acked)
    cluster.running.wait_until(lambda s: s.acked >= 100, timeout_s=20)
    assert 100 < len(cluster.asked) < 120


def test_not_reached_says_what_was_and_which_errors() -> None:
    cluster = Cluster(acked)
    with pytest.raises(NotReached) as raised:
        cluster.running.wait_drained(timeout_s=3)
    assert str(raised.value) == (
        "wc: it is not drained within 3 s (ACTIVE, 2 of 2 workers, emitted 0, acked 30, failed 0, pending 0, queued 0, "
        "errors 0, restarts 0); last errors: split task 6: ValueError: 2; split task 6: ValueError: 3; "
        "split task 6: ValueError: 4"
    )
    assert cluster.clock.now() == 3.0


def test_an_error_of_the_condition_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        Cluster(acked).running.wait_until(lambda s: 1 / s.failed, timeout_s=5)


def test_a_nimbus_that_comes_back_is_waited_for() -> None:
    cluster = Cluster(lambda now: acked(now) if now > 2 else gone(ClusterUnavailable("away")))
    assert cluster.running.wait_running(timeout_s=5).workers_running == 2
    cluster = Cluster(lambda now: gone(ClusterUnavailable("away")))
    with pytest.raises(ClusterUnavailable, match="away"):
        cluster.running.wait_running(timeout_s=5)
    assert cluster.clock.now() == 5.0


def test_a_topology_that_is_gone_is_not_waited_for() -> None:
    cluster = Cluster(lambda now: gone(TopologyNotFound("none")))
    with pytest.raises(TopologyNotFound):
        cluster.running.wait_until(lambda s: True, timeout_s=5)
    assert cluster.clock.now() == 0.0


def test_waiting_is_not_running() -> None:
    waiting = Statistics("wc", status=Status.WAITING)
    with pytest.raises(NotReached, match="not every worker runs within 1 s \\(WAITING"):
        Cluster(lambda now: waiting).running.wait_running(timeout_s=1)


def test_kill_returns_when_it_is_gone_or_another_took_its_name() -> None:
    cluster = Cluster(lambda now: acked(now) if now < 4 else gone(TopologyNotFound("none")), due_s=10)
    cluster.running.kill(wait_s=10)
    assert Kill("wc", 10) in cluster.asked
    assert cluster.clock.now() == pytest.approx(4.0, abs=0.11)
    cluster = Cluster(lambda now: Statistics("wc", "wc-1-0" if now < 2 else "wc-2-0"), due_s=10)
    cluster.running.kill(timeout_s=3)
    assert cluster.clock.now() == pytest.approx(2.0, abs=0.11)


def test_kill_gives_up_watching_at_its_limit() -> None:
    cluster = Cluster(acked, due_s=10)
    with pytest.raises(NotReached, match="it is still there within 40 s"):
        cluster.running.kill(wait_s=10)
    with pytest.raises(NotReached, match="within 1 s"):
        cluster.running.kill(wait_s=10, timeout_s=1)


def test_rebalance_returns_when_the_new_workers_run() -> None:
    def answer(now: float) -> Statistics:
        status = Status.REBALANCING if now < 3 else Status.ACTIVE
        running = 3 if now > 5 or now < 3 else 2
        return Statistics("wc", "wc-1-0", status=status, workers_wanted=3, workers_running=running)

    cluster = Cluster(answer, due_s=30)
    found = cluster.running.rebalance(workers=3, parallelism={"count": 4})
    assert found.workers_running == 3
    assert Rebalance("wc", None, 3, {"count": 4}) in cluster.asked
    assert cluster.clock.now() == pytest.approx(5.0, abs=0.11)


def test_stacks_are_those_that_came_in_time() -> None:
    cluster = Cluster(acked)
    assert cluster.running.stacks() == {"h:1 pid 1": "File"}
    assert cluster.clock.now() < 0.6
    cluster = Cluster(lambda now: Statistics("wc", workers_running=2))
    assert cluster.running.stacks(timeout_s=1) == {"h:1 pid 1": "File"}
    assert cluster.clock.now() == pytest.approx(1.0, abs=0.11)


def test_an_answer_of_another_kind_is_an_error() -> None:
    with pytest.raises(RainbandError, match="answered GetStatistics with Done"):
        Cluster(lambda now: Done()).running.statistics()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda running: running.rebalance(workers="2"), "workers='2' is no whole number"),
        (lambda running: running.rebalance(workers=True), "workers=True is no whole number"),
        (lambda running: running.rebalance(parallelism={"m": 2.0}), "parallelism of 'm'=2.0 is no whole number"),
        (lambda running: running.rebalance(parallelism="m=3"), "parallelism='m=3' is no mapping"),
        (lambda running: running.rebalance(wait_s="1"), "wait_s='1' is no number"),
        (lambda running: running.kill(wait_s="1"), "wait_s='1' is no number"),
    ],
)
def test_what_is_no_number_is_not_asked_for(call: Callable[[Running], object], said: str) -> None:
    cluster = Cluster(acked)
    with pytest.raises(UsageError, match=said):
        call(cluster.running)
    assert cluster.asked in ([], [GetTopology("wc")])


def beat(**of: Any) -> WorkerBeat:
    return WorkerBeat(**{"topology_id": "t", "port": 1, "pid": 2, "incarnation": 3, "version": 1, **of})


@pytest.mark.parametrize(
    ("beats", "text"),
    [
        ([], "ACTIVE"),
        ([beat(state=WorkerState.CRASHED, restarts=1, note="killed by SIGKILL")], "ACTIVE"),
        ([beat(state=WorkerState.RUNNING, restarts=9)], "ACTIVE"),
        ([beat(state=WorkerState.STARTING, restarts=9)], "ACTIVE"),
        ([beat(state=WorkerState.STARTING, restarts=2, note="exit code 1")], "ACTIVE CRASHING"),
        ([beat(state=WorkerState.RUNNING), beat(state=WorkerState.CRASHED, restarts=3, note="no")], "ACTIVE CRASHING"),
    ],
)
def test_crashing_is_to_be_down_after_several_restarts(beats: list[WorkerBeat], text: str) -> None:
    statistics = Statistics("flow", workers=tuple(beats))
    assert status_text(statistics) == text
    assert bool(crash_loop(statistics)) is ("CRASHING" in text)
    assert describe(statistics).startswith(f"{text}, ")
