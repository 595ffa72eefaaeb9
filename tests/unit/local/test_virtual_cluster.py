"""LocalCluster under a virtual clock: time, faults, moves and pauses, all in the caller's thread."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.parts import Numbers, Pairs, Pass, Poison, ReliableNumbers, Sink
from rainband.errors import InvalidConfig, NotReached, TopologyExists, TopologyNotFound, UsageError
from rainband.local.cluster import LocalCluster, LocalRunning
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.graph import Topology
from rainband.topology.tuples import Tuple


class Endless(Spout):
    """Always ready."""

    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.n = 0
        self.failed: list[int] = []

    def next_tuple(self) -> None:
        self.n += 1
        self.emit([self.n], message_id=self.n)

    def fail(self, message_id: int) -> None:
        self.failed.append(message_id)


class Ticking(Bolt):
    """Emits at each tick how many tuples it has seen."""

    outputs = ("seen",)

    def prepare(self, context: TopologyContext) -> None:
        self.seen = 0

    def execute(self, tup: Tuple) -> None:
        self.seen += 1

    def tick(self) -> None:
        self.emit([self.seen])


class Sleepy(Bolt):
    """Takes 100 ms of virtual time for a tuple."""

    outputs = ("n",)

    async def execute(self, tup: Tuple) -> None:
        await asyncio.sleep(0.1)
        self.emit([tup["n"]])


class Stuck(Bolt):
    """Cannot be prepared the first `times` times."""

    tries: list[int] = []

    def __init__(self, times: int) -> None:
        self.times = times

    def prepare(self, context: TopologyContext) -> None:
        self.tries.append(1)
        if len(self.tries) <= self.times:
            raise OSError("no database")

    def execute(self, tup: Tuple) -> None: ...


def reliable(workers: int, total: int = 400) -> Topology:
    builder = TopologyBuilder("numbers", config={"topology.workers": workers})
    builder.set_spout("numbers", ReliableNumbers(total))
    builder.set_bolt("pass", Pass(), parallelism=2).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink(), parallelism=2).fields_grouping("pass", ["n"])
    return builder.create_topology()


def seen(running: LocalRunning) -> set[object]:
    return {row[0] for row in running.executed("sink")}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_wait_drained_lets_virtual_time_pass(workers: int) -> None:
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(reliable(workers))
        statistics = running.wait_drained(timeout_s=10)
        assert statistics.acked == 400
        assert statistics.drained
        assert statistics.workers_running == workers
        assert seen(running) == set(range(400))
        assert 0.4 <= cluster.now < 1.0


def test_an_always_ready_spout_costs_a_millisecond_a_call() -> None:
    builder = TopologyBuilder("endless")
    builder.set_spout("endless", Endless(), parallelism=2)
    builder.set_bolt("sink", Sink()).shuffle_grouping("endless")
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(0.5)
        assert [spout.n for spout in running.instances("endless")] == pytest.approx([500, 500], abs=1)
        cluster.advance(0.5)
        assert [spout.n for spout in running.instances("endless")] == pytest.approx([1000, 1000], abs=1)
        assert cluster.now == 1.0


def test_ticks_come_on_time() -> None:
    builder = TopologyBuilder("ticks")
    builder.set_spout("numbers", Numbers(3))
    config = {"topology.tick.tuple.freq.secs": 10}
    builder.set_bolt("ticking", Ticking(), config=config).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(9.9)
        assert running.emitted("ticking") == []
        cluster.advance(21.2)
        assert running.emitted("ticking") == [(3,), (3,), (3,)]


def test_a_tuple_nobody_acks_times_out_between_t_and_a_tenth_more() -> None:
    builder = TopologyBuilder("held", config={"topology.message.timeout.secs": 20})
    builder.set_spout("numbers", Numbers(1))
    builder.set_bolt("pairs", Pairs(), config={"topology.tick.tuple.freq.secs": 1e6}).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(19.9)
        assert running.failed("numbers") == []
        cluster.advance(2.2)
        assert running.failed("numbers") == [0]
        assert running.statistics().timed_out == 1


def test_async_sleep_takes_virtual_time_only() -> None:
    builder = TopologyBuilder("sleepy")
    builder.set_spout("numbers", Numbers(1000))
    builder.set_bolt("sleepy", Sleepy()).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("sleepy")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        running.wait_drained(timeout_s=10)
        assert len(seen(running)) == 1000
        assert 1.5 < cluster.now < 1.9  # 64 at a time, 100 ms each


@pytest.mark.parametrize("victim", ["numbers", "pass", "sink"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_nothing_is_lost_with_a_worker(victim: str, workers: int) -> None:
    with LocalCluster(virtual_clock=True, record=True, seed=workers) as cluster:
        running = cluster.submit(reliable(workers))
        cluster.advance(0.2)
        before = running.statistics()
        assert 0 < before.acked < 400
        killed = cluster.kill_worker(victim)
        assert killed in [placement.slot for placement in running.summary().assignment.placements]  # type: ignore[union-attr]
        assert running.statistics().workers_running == workers - 1
        statistics = running.wait_drained(timeout_s=60)
        assert seen(running) == set(range(400))
        assert statistics.restarts == 1
        assert statistics.workers_running == workers
        assert cluster.now < 5


@pytest.mark.parametrize("victim", ["__acker", "numbers", "pass"])
def test_nothing_is_lost_with_an_acker_of_its_own(victim: str) -> None:
    with LocalCluster(virtual_clock=True, record=True, seed=3) as cluster:
        running = cluster.submit(reliable(4), config={"topology.acker.executors": 2})
        cluster.advance(0.2)
        assert running.statistics().acked > 0
        cluster.kill_worker(victim)
        statistics = running.wait_drained(timeout_s=90)
        assert seen(running) == set(range(400))
        assert statistics.restarts == 1
        assert cluster.now < 5


def test_what_was_under_way_is_replayed_once_more_at_most() -> None:
    """A bolt is killed with rows inside it; the spout is elsewhere and lives on."""
    builder = TopologyBuilder("held", config={"topology.workers": 3})
    builder.set_spout("numbers", ReliableNumbers(100))
    builder.set_bolt("sleepy", Sleepy()).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("sleepy")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(0.15)
        pending = running.statistics().pending
        assert pending > 40
        cluster.kill_worker("sleepy")
        statistics = running.wait_drained(timeout_s=60)
        assert seen(running) == set(range(100))
        assert len(running.emitted("numbers")) <= 100 + pending
        assert statistics.dead_letters == 0


def test_the_work_of_a_lost_host_moves() -> None:
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(reliable(2, total=3000))
        cluster.advance(1)
        cluster.kill_host("local-1")
        cluster.advance(20)
        before = len(running.executed("sink"))
        running.wait_drained(timeout_s=60)
        assert seen(running) == set(range(3000))
        slots = {placement.slot.supervisor for placement in running.summary().assignment.placements}  # type: ignore[union-attr]
        assert slots == {"local-2"}
        assert before < 3000


def test_a_planned_move_replays_nothing() -> None:
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(reliable(3, total=2000))
        cluster.advance(0.5)
        running.rebalance(workers=1, parallelism={"sink": 1})
        assert running.statistics().workers_running == 1
        statistics = running.wait_drained(timeout_s=30)
        assert (statistics.replayed, statistics.failed, statistics.acked) == (0, 0, 2000)
        assert len(running.executed("sink")) == 2000


def test_pause_and_go_on() -> None:
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(reliable(2, total=1000))
        cluster.advance(0.1)
        running.deactivate()
        cluster.advance(1)
        paused = len(running.emitted("numbers"))
        assert 0 < paused < 1000
        cluster.advance(10)
        assert len(running.emitted("numbers")) == paused
        running.activate()
        assert running.wait_drained(timeout_s=10).acked == 1000


def test_a_killed_topology_is_gone_and_its_name_is_free() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(reliable(2))
        with pytest.raises(TopologyExists):
            cluster.submit(reliable(2))
        assert cluster.topology("numbers").statistics().name == "numbers"
        cluster.advance(0.1)
        running.kill()
        with pytest.raises(TopologyNotFound):
            running.statistics()
        assert cluster.submit(reliable(1)).wait_drained(timeout_s=10).acked == 400


def test_errors_are_recorded_and_the_worker_lives() -> None:
    builder = TopologyBuilder("poison")
    builder.set_spout("numbers", Numbers(10))
    builder.set_bolt("poison", Poison(frozenset({3, 7}))).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        running.wait_drained(timeout_s=5)
        first, second = running.errors("poison")
        assert first.error == "ValueError: cannot take 3"
        assert first.tuple.startswith("Tuple(n=3; from numbers/default")
        assert "in execute" in second.traceback
        assert running.failed("numbers") == [3, 7]
        assert running.failed("poison") == [(3,), (7,)]
        assert running.statistics().restarts == 0


def test_the_first_error_is_raised_if_wished() -> None:
    builder = TopologyBuilder("poison")
    builder.set_spout("numbers", Numbers(10))
    builder.set_bolt("poison", Poison(frozenset({3, 7}))).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True, raise_errors=True) as cluster:
        running = cluster.submit(builder.create_topology())
        with pytest.raises(ValueError, match="cannot take 3") as caught:
            running.wait_drained(timeout_s=5)
        assert "in component 'poison', task 2, tuple Tuple(n=3;" in caught.value.__notes__[0]
        assert caught.traceback[-1].name == "execute"


def test_an_error_nobody_waited_for_is_raised_at_the_end() -> None:
    builder = TopologyBuilder("poison")
    builder.set_spout("numbers", Numbers(1))
    builder.set_bolt("poison", Poison(frozenset({0}))).shuffle_grouping("numbers")
    cluster = LocalCluster(virtual_clock=True, raise_errors=True)
    cluster.submit(builder.create_topology())
    cluster.run(1)
    with pytest.raises(ValueError, match="cannot take 0"):
        cluster.close()


def test_a_worker_that_cannot_prepare_is_started_again_and_again() -> None:
    Stuck.tries.clear()
    builder = TopologyBuilder("stuck")
    builder.set_spout("numbers", Numbers(5))
    builder.set_bolt("stuck", Stuck(3)).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(builder.create_topology())
        with pytest.raises(NotReached, match="OSError: no database"):
            running.wait_running(timeout_s=2)
        statistics = running.wait_drained(timeout_s=30)
        assert statistics.acked == 5
        assert statistics.restarts == 3
        assert [error.component for error in running.errors()] == ["stuck"] * 3


def test_too_few_slots_say_what_is_missing() -> None:
    with LocalCluster(virtual_clock=True, supervisors=1, slots=2) as cluster:
        running = cluster.submit(reliable(3))
        cluster.advance(1)
        assert running.statistics().status == "WAITING"
        assert running.statistics().slots_missing == 1


def test_what_makes_no_sense_is_refused() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(reliable(1), config={"topology.workers": 2}, name="other")
        assert running.name == "other"
        with pytest.raises(InvalidConfig):
            cluster.submit(reliable(1), config={"topology.worker": 2})
        with pytest.raises(UsageError, match="nothing was recorded"):
            running.emitted("pass")
        with pytest.raises(UsageError, match=r"no component 'sinkk'\. Did you mean 'sink'"):
            running.instances("sinkk")
        with pytest.raises(UsageError, match="no worker runs 'sinkk'"):
            cluster.kill_worker("sinkk")
        with pytest.raises(UsageError, match="runs forward only"):
            cluster.advance(-1)
    with pytest.raises(UsageError, match="closed"):
        cluster.submit(reliable(1))
    with pytest.raises(UsageError, match="processes=True has no virtual_clock"):
        LocalCluster(processes=True, virtual_clock=True)


def test_several_topologies_share_the_cluster() -> None:
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        first = cluster.submit(reliable(2), name="first")
        second = cluster.submit(reliable(2), name="second", sources={"numbers": [[1], [2]]})
        assert second.wait_drained(timeout_s=5).acked == 2
        assert first.wait_drained(timeout_s=5).acked == 400
        assert seen(second) == {1, 2}


class Opened(Endless):
    """Counts how often it was opened."""

    opens: list[int] = []

    def open(self, context: TopologyContext) -> None:
        super().open(context)
        self.opens.append(context.task_id)


def test_nothing_is_started_anew_after_the_end_however_long_it_took() -> None:
    Opened.opens.clear()
    builder = TopologyBuilder("once")
    builder.set_spout("numbers", Opened())
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True) as cluster:
        cluster.submit(builder.create_topology())
        cluster.advance(1)
        cluster.do(lambda engine: engine.finish())
        cluster.advance(5)  # the beats of all supervisors are due long since
    assert len(Opened.opens) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"supervisors": 0}, "supervisors is 0. Give a whole number from 1 up"),
        ({"supervisors": 1.5}, "supervisors is 1.5. Give a whole number from 1 up"),
        ({"slots": 0}, "slots is 0. Give a whole number from 1 up"),
        ({"slots": -1}, "slots is -1. Give a whole number from 1 up"),
        ({"slots": True}, "slots is True. Give a whole number from 1 up"),
        ({"seed": "x", "virtual_clock": True}, "seed is 'x'. Give a whole number, or None"),
        ({"seed": 3}, "seed= needs virtual_clock=True"),
        ({"slots": 0, "processes": True}, "slots is 0. Give a whole number from 1 up"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        LocalCluster(**given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
