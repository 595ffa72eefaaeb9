"""Any callback may be `async def`; `blocking = True` gives each executor a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from rainband import (
    Bolt,
    EmitRefused,
    FailTuple,
    LocalCluster,
    ManualBolt,
    ReliableSpout,
    Spout,
    Topology,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    complete_topology,
    run_bolt,
)


class Count(Spout):
    outputs = ("n",)

    def __init__(self, count: int) -> None:
        self.left = list(range(1, count + 1))

    def next_tuple(self) -> None:
        if self.left:
            n = self.left.pop(0)
            self.emit([n], message_id=n)
        else:
            self.finish()


class AsyncSpout(Spout):
    """Every callback is a coroutine."""

    outputs = ("n",)

    async def open(self, context: TopologyContext) -> None:
        await asyncio.sleep(0.1)
        self.left = [1, 2, 3]
        self.calls: list[Any] = ["open"]

    async def next_tuple(self) -> None:
        await asyncio.sleep(0.5)
        if self.left:
            n = self.left.pop(0)
            self.emit([n], message_id=n)
        else:
            self.finish()

    async def ack(self, message_id: Any) -> None:
        await asyncio.sleep(0.01)
        self.calls.append(("ack", message_id))

    async def fail(self, message_id: Any) -> None:
        self.calls.append(("fail", message_id))

    async def activate(self) -> None:
        self.calls.append("activate")

    async def deactivate(self) -> None:
        self.calls.append("deactivate")

    async def close(self) -> None:
        self.calls.append("close")


class AsyncBolt(Bolt):
    outputs = ("n",)
    max_in_flight = 2

    async def prepare(self, context: TopologyContext) -> None:
        await asyncio.sleep(0.1)
        self.now = self.most = self.ticks = 0
        self.cleaned = False

    async def execute(self, tup: Tuple) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.1)
        self.now -= 1
        if tup["n"] == 2:
            raise FailTuple("two")
        self.emit([tup["n"] * 10])

    async def tick(self) -> None:
        await asyncio.sleep(0)
        self.ticks += 1

    async def cleanup(self) -> None:
        self.cleaned = True


def topology(spout: Spout, bolt: Bolt, *, parallelism: int = 1, tick_s: float = 60.0) -> Topology:
    builder = TopologyBuilder("sides")
    builder.set_spout("spout", spout)
    config = {"topology.tick.tuple.freq.secs": tick_s} if hasattr(bolt, "tick") else None
    builder.set_bolt("bolt", bolt, parallelism=parallelism, config=config).shuffle_grouping("spout")
    return builder.create_topology()


def test_every_callback_may_be_async() -> None:
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(topology(AsyncSpout(), AsyncBolt(), tick_s=1))
        running.wait_drained(timeout_s=30)
        (spout,) = running.instances("spout")
        (bolt,) = running.instances("bolt")
        running.deactivate()
        running.activate()
        cluster.advance(1)
        assert running.emitted("bolt") == [(10,), (30,)]
        assert sorted(running.acked("spout")) == [1, 3]
        assert list(running.failed("spout")) == [2]
        assert bolt.ticks >= 1
        running.kill(wait_s=0)
        cluster.advance(1)
    assert bolt.cleaned
    assert {("ack", 1), ("ack", 3), ("fail", 2), "open", "deactivate", "activate", "close"} <= set(spout.calls)


def test_max_in_flight_bounds_the_calls_under_way() -> None:
    result = complete_topology(topology(Count(10), AsyncBolt()))
    (bolt,) = result.instances("bolt")
    assert bolt.most == 2
    assert AsyncBolt.max_in_flight == 2
    assert Bolt.max_in_flight == 64


class Sleeper(Bolt):
    outputs = ("n",)

    async def execute(self, tup: Tuple) -> None:
        await asyncio.sleep(1.0 / tup["n"])
        self.emit([tup["n"]])


def test_what_is_emitted_leaves_in_the_order_of_completion_and_is_anchored() -> None:
    assert run_bolt(Sleeper(), [[1], [2], [4]], fields=["n"]) == [(4,), (2,), (1,)]

    class Refuse(Bolt):
        def execute(self, tup: Tuple) -> None:
            if tup["n"] == 2:
                raise FailTuple("two")

    builder = TopologyBuilder("anchored")
    builder.set_spout("spout", Count(3))
    builder.set_bolt("sleeper", Sleeper()).shuffle_grouping("spout")
    builder.set_bolt("refuse", Refuse()).shuffle_grouping("sleeper")
    result = complete_topology(builder.create_topology())
    assert (sorted(result.acked("spout")), result.failed("spout")) == ([1, 3], [2])


def test_a_test_may_itself_be_a_coroutine() -> None:
    async def test() -> list[tuple[Any, ...]]:
        await asyncio.sleep(0)
        emitted = run_bolt(Sleeper(), [[1], [2]], fields=["n"])
        await asyncio.sleep(0)
        return emitted

    assert asyncio.run(test()) == [(2,), (1,)]


def test_asyncio_sleep_is_virtual_under_the_virtual_clock() -> None:
    started = time.monotonic()
    result = complete_topology(topology(Count(5), Sleeper()))
    assert result.seconds >= 1.0
    assert time.monotonic() - started < 1.0


class AsyncReliable(ReliableSpout):
    outputs = ("n",)
    retry_delay_s = 0.5

    async def open(self, context: TopologyContext) -> None:
        self.left = [1, 2, 3]

    async def next_tuple(self) -> None:
        if self.left:
            n = self.left.pop(0)
            self.emit([n], message_id=n)
        else:
            self.finish()


class AsyncSeek(ReliableSpout):
    """One of its callbacks is async: `seek`."""

    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.at = 0
        self.sought: list[int] = []

    def next_tuple(self) -> None:
        self.at += 1
        self.emit([self.at], message_id=self.at)

    def position(self) -> int:
        return self.at

    async def seek(self, position: int) -> None:
        await asyncio.sleep(0.1)
        self.at = position
        self.sought.append(position)


def test_seek_may_be_async() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(topology(AsyncSeek(), Sleeper()))
        cluster.advance(5)
        cluster.kill_worker("spout")
        cluster.advance(5)
        (spout,) = running.instances("spout")
        assert len(spout.sought) == 1


class OnceFailing(Bolt):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup[0])
        if self.seen.count(tup[0]) == 1:
            raise FailTuple("first time")


def test_a_reliable_spout_may_be_async() -> None:
    result = complete_topology(topology(AsyncReliable(), OnceFailing()))
    assert sorted(result.instances("bolt")[0].seen) == [1, 1, 2, 2, 3, 3]
    assert sorted(result.acked("spout")) == [1, 2, 3]


class AsyncJoin(ManualBolt):
    outputs = ("a", "b")

    def __init__(self) -> None:
        self.held: list[Tuple] = []

    async def execute(self, tup: Tuple) -> None:
        self.held.append(tup)
        if len(self.held) == 2:
            pair, self.held = self.held, []
            await asyncio.sleep(0.1)
            self.emit([pair[0]["n"], pair[1]["n"]], anchors=pair)
            for each in pair:
                self.ack(each)


def test_a_manual_bolt_may_be_async() -> None:
    result = complete_topology(topology(Count(4), AsyncJoin()))
    assert result.emitted("bolt") == [(1, 2), (3, 4)]
    assert sorted(result.acked("spout")) == [1, 2, 3, 4]


class AsyncBatch(Bolt):
    outputs = ("n",)

    async def execute_batch(self, tups: Sequence[Tuple]) -> None:
        await asyncio.sleep(0.1)
        self.emit_many([[tup["n"]] for tup in tups])


def test_execute_batch_may_be_async() -> None:
    result = complete_topology(topology(Count(4), AsyncBatch()))
    assert sorted(result.emitted("bolt")) == [(1,), (2,), (3,), (4,)]
    assert sorted(result.acked("spout")) == [1, 2, 3, 4]


class AsyncForgets(Spout):
    outputs = ("n",)

    async def next_tuple(self) -> None:
        self.emit([1])  # type: ignore[call-arg]


def test_an_async_spout_must_say_its_message_id_too() -> None:
    with pytest.raises(EmitRefused, match="message_id"):
        complete_topology(topology(AsyncForgets(), AsyncBolt()))


class Late(Bolt):
    outputs = ("n",)

    async def execute(self, tup: Tuple) -> None:
        self.later = asyncio.get_running_loop().create_task(self.late(), name="late")

    async def late(self) -> None:
        await asyncio.sleep(0.1)
        try:
            self.emit([1])
        except EmitRefused as error:
            Seen.texts.append(str(error))


class Seen:
    texts: list[str] = []


def test_an_emit_after_an_async_call_returned_is_refused() -> None:
    Seen.texts.clear()
    with LocalCluster(virtual_clock=True) as cluster:
        cluster.submit(topology(Count(1), Late()))
        cluster.advance(2)
    assert len(Seen.texts) == 1


class Blocking(Bolt):
    """Notes the thread of each callback."""

    blocking = True
    outputs = ("n",)

    def prepare(self, context: TopologyContext) -> None:
        self.threads = {("prepare", threading.get_ident())}

    def execute(self, tup: Tuple) -> None:
        self.threads.add(("execute", threading.get_ident()))
        threading.Event().wait(0.005)
        self.emit([tup["n"]])

    def tick(self) -> None:
        self.threads.add(("tick", threading.get_ident()))

    def cleanup(self) -> None:
        self.threads.add(("cleanup", threading.get_ident()))


class BlockingSpout(Spout):
    blocking = True
    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.left = list(range(20))
        self.acks: list[Any] = []
        self.threads = {("open", threading.get_ident())}

    def next_tuple(self) -> None:
        self.threads.add(("next_tuple", threading.get_ident()))
        if self.left:
            n = self.left.pop()
            self.emit([n], message_id=n)
        else:
            self.finish()

    def ack(self, message_id: Any) -> None:
        self.threads.add(("ack", threading.get_ident()))
        self.acks.append(message_id)


def test_blocking_gives_each_executor_one_thread_for_all_its_callbacks() -> None:
    with LocalCluster() as cluster:
        running = cluster.submit(topology(BlockingSpout(), Blocking(), parallelism=2, tick_s=0.02))
        running.wait_drained(timeout_s=10)
        bolts = running.instances("bolt")
        (spout,) = running.instances("spout")
        running.wait_until(lambda _: len(spout.acks) == 20, timeout_s=10)
        assert sorted(spout.acks) == list(range(20))
        running.kill(wait_s=0)
    used = [{ident for _, ident in each.threads} for each in (*bolts, spout)]
    assert all(len(idents) == 1 for idents in used), "one thread each"
    assert len(set.union(*used)) == 3, "and none shared"
    assert threading.get_ident() not in set.union(*used)
    assert {name for name, _ in bolts[0].threads} == {"prepare", "execute", "tick", "cleanup"}
    assert {name for name, _ in spout.threads} == {"open", "next_tuple", "ack"}


def test_under_the_virtual_clock_a_blocking_bolt_runs_inline() -> None:
    result = complete_topology(topology(Count(4), Blocking(), tick_s=1))
    assert sorted(result.emitted("bolt")) == [(1,), (2,), (3,), (4,)]
    (bolt,) = result.instances("bolt")
    assert {ident for _, ident in bolt.threads} == {threading.get_ident()}


class BlockingReliable(ReliableSpout):
    """Notes the thread of each callback."""

    blocking = True
    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.at = 0
        self.threads: set[tuple[str, int]] = set()
        self.positions: list[int] = []

    def note(self, name: str) -> None:
        self.threads.add((name, threading.get_ident()))

    def next_tuple(self) -> None:
        self.note("next_tuple")
        if self.at == 20:
            self.finish()
            return
        self.at += 1
        self.emit([self.at], message_id=self.at)

    def position(self) -> int:
        self.note("position")
        self.positions.append(self.at)
        return self.at

    def seek(self, position: int) -> None:
        self.note("seek")
        self.at = position

    def close(self) -> None:
        self.note("close")


class AsyncPositions(BlockingReliable):
    blocking = False

    async def next_tuple(self) -> None:  # type: ignore[override]
        BlockingReliable.next_tuple(self)


@pytest.mark.parametrize("kind", [BlockingReliable, AsyncPositions])
def test_position_is_asked_where_all_other_callbacks_run(kind: type[BlockingReliable]) -> None:
    with LocalCluster() as cluster:
        running = cluster.submit(topology(kind(), Given()))
        running.wait_drained(timeout_s=10)
        (spout,) = running.instances("spout")
        running.kill(wait_s=0)
    assert len({ident for _, ident in spout.threads}) == 1
    assert {name for name, _ in spout.threads} == {"next_tuple", "position", "close"}
    assert spout.positions[-1] == 20, "where it stood in the end"


@pytest.mark.parametrize("kind", [BlockingReliable, AsyncPositions])
def test_it_goes_on_behind_what_was_acked(kind: type[BlockingReliable]) -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(topology(kind(), Given()))
        running.wait_drained(timeout_s=10)
        cluster.kill_worker("spout")
        cluster.advance(5)
        (spout,) = running.instances("spout")
        assert (spout.at, "seek" in {name for name, _ in spout.threads}) == (20, True)
        assert spout.positions[0] == 20


class Given(Bolt):
    def execute(self, tup: Tuple) -> None: ...


class NoPosition(BlockingReliable):
    def position(self) -> Any:
        return object()


def test_a_position_that_does_not_travel_names_the_spout() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(topology(NoPosition(), Given()))
        cluster.advance(1)
        assert "position() of 'spout': a value of type object" in running.errors("spout")[0].error


class Cancelled(Bolt):
    """Notes the end of its calls, and whether they outlive cleanup."""

    notes: list[str] = []
    first = threading.Event()

    async def execute(self, tup: Tuple) -> None:
        self.first.set()
        try:
            await asyncio.sleep(3600)
        finally:
            self.notes.append("cancelled")

    async def cleanup(self) -> None:
        self.notes.append("cleanup")


def test_calls_under_way_end_before_cleanup() -> None:
    for virtual in (True, False):
        Cancelled.notes.clear()
        Cancelled.first.clear()
        with LocalCluster(virtual_clock=virtual) as cluster:
            running = cluster.submit(topology(Count(2), Cancelled()))
            if virtual:
                cluster.advance(1)
            assert Cancelled.first.wait(10)
            running.kill(wait_s=0)
            if virtual:
                cluster.advance(1)
        assert Cancelled.notes[-1] == "cleanup"
        assert Cancelled.notes.count("cancelled") == len(Cancelled.notes) - 1 >= 1


class AsyncAck(Count):
    """Its last ack is under way when it is closed."""

    notes: list[Any] = []

    async def ack(self, message_id: Any) -> None:
        await asyncio.sleep(0)
        self.notes.append(message_id)

    async def close(self) -> None:
        await asyncio.sleep(0.01)
        self.notes.append("close")


def test_acks_are_still_told() -> None:
    AsyncAck.notes.clear()
    complete_topology(topology(AsyncAck(1), Given()))
    assert AsyncAck.notes == [1, "close"]
