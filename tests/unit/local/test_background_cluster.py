"""LocalCluster in real time, on its background thread: the same engine, asked from another thread."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from kit.parts import Numbers, Pass, Poison, ReliableNumbers, Sink
from rainband.errors import NotReached, UsageError
from rainband.local.cluster import LocalCluster
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt
from rainband.topology.graph import Topology
from rainband.topology.tuples import Tuple


class Elsewhere(Bolt):
    """Blocks on a thread of its own."""

    outputs = ("n",)
    blocking = True

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["n"]])


class Awaiting(Bolt):
    """Awaits on the asyncio loop."""

    outputs = ("n",)

    async def execute(self, tup: Tuple) -> None:
        await asyncio.sleep(0)
        self.emit([tup["n"]])


def chain(workers: int, *bolts: Bolt, total: int = 300) -> Topology:
    builder = TopologyBuilder("chain", config={"topology.workers": workers})
    builder.set_spout("numbers", ReliableNumbers(total))
    source = "numbers"
    for number, bolt in enumerate(bolts):
        builder.set_bolt(f"bolt{number}", bolt).shuffle_grouping(source)
        source = f"bolt{number}"
    builder.set_bolt("sink", Sink()).shuffle_grouping(source)
    return builder.create_topology()


@pytest.mark.parametrize("workers", [1, 2])
def test_runs_by_itself_until_drained(workers: int) -> None:
    with LocalCluster(record=True) as cluster:
        running = cluster.submit(chain(workers, Pass()))
        running.wait_until(lambda statistics: statistics.acked >= 100, timeout_s=10)
        statistics = running.wait_drained(timeout_s=10)
        assert statistics.acked == 300
        assert sorted(row[0] for row in running.executed("sink")) == list(range(300))


def test_async_and_blocking_bolts_have_threads_of_their_own() -> None:
    with LocalCluster(record=True) as cluster:
        running = cluster.submit(chain(1, Elsewhere(), Awaiting()))
        running.wait_drained(timeout_s=10)
        assert {row[0] for row in running.executed("sink")} == set(range(300))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rainband")]


def test_a_killed_worker_is_replaced() -> None:
    with LocalCluster(record=True) as cluster:
        running = cluster.submit(chain(2, Pass(), total=30_000))
        running.wait_until(lambda statistics: statistics.acked >= 100, timeout_s=10)
        cluster.kill_worker("bolt0")
        running.wait_drained(timeout_s=30)
        assert {row[0] for row in running.executed("sink")} == set(range(30_000))


def test_moves_pauses_and_kills() -> None:
    with LocalCluster(record=True) as cluster:
        running = cluster.submit(chain(2, Pass(), total=1000), active=False)
        running.wait_running(timeout_s=10)
        assert running.emitted("numbers") == []
        running.activate()
        running.rebalance(workers=1)
        statistics = running.wait_drained(timeout_s=10)
        assert (statistics.acked, statistics.failed) == (1000, 0)
        assert "rainband-local" in next(iter(running.stacks().values()))
        running.kill()


def test_errors_of_user_code_reach_the_caller_if_wished() -> None:
    builder = TopologyBuilder("poison")
    builder.set_spout("numbers", Numbers(10))
    builder.set_bolt("poison", Poison(frozenset({3}))).shuffle_grouping("numbers")
    topology = builder.create_topology()
    with LocalCluster(raise_errors=True) as cluster:
        running = cluster.submit(topology)
        with pytest.raises(ValueError, match="cannot take 3"):
            running.wait_drained(timeout_s=10)
    with LocalCluster() as cluster:
        running = cluster.submit(topology)
        running.wait_drained(timeout_s=10)
        assert [error.error for error in running.errors("poison")] == ["ValueError: cannot take 3"]


def test_what_is_not_reached_in_time_is_said() -> None:
    with LocalCluster() as cluster:
        running = cluster.submit(chain(1, Pass(), total=5))
        with pytest.raises(NotReached, match=r"did not happen within 0\.05 s .*acked 5"):
            running.wait_until(lambda statistics: statistics.acked == 6, timeout_s=0.05)
        with pytest.raises(UsageError, match="runs in real time"):
            cluster.advance(1)


def test_many_threads_may_ask() -> None:
    with LocalCluster() as cluster:
        running = cluster.submit(chain(1, Pass(), total=2000))
        seen: list[int] = []

        def ask() -> None:
            for _ in range(20):
                seen.append(running.statistics().acked)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 80
        assert running.wait_drained(timeout_s=10).acked == 2000


class Slow(Bolt):
    """Takes longer than a worker's other tasks should have to wait."""

    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        threading.Event().wait(0.12)
        self.emit([tup["n"]])


def test_a_component_with_slow_calls_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rainband"), LocalCluster() as cluster:
        builder = TopologyBuilder("chain")
        builder.set_spout("numbers", ReliableNumbers(4))
        builder.set_bolt("slow", Slow(), parallelism=2).shuffle_grouping("numbers")
        running = cluster.submit(builder.create_topology())
        running.wait_drained(timeout_s=10)
        running.statistics()
    lines = [line for line in caplog.messages if "a call took" in line]
    assert len(lines) == 1
    assert "component 'slow'" in lines[0]
    assert "blocking = True" in lines[0]
