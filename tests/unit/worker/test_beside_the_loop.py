"""Async and blocking components: what they emit leaves at once, and the loop waits for none of their calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from kit.bench import Bench, placing
from kit.parts import Numbers, Pass, ReliableNumbers, Sink
from rainband.clock import Clock
from rainband.records import Slot, Status
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, ManualBolt, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.tuples import Tuple
from rainband.worker.watch import Standstills
from rainband.worker.worker import Worker


class Fitful(Spout):
    """Ten rows a second, one each tenth; after `total` of them its source is silent for ever."""

    outputs = ("n",)

    def __init__(self, total: int) -> None:
        self.total = total

    def open(self, context: TopologyContext) -> None:
        self.number = 0

    async def next_tuple(self) -> None:
        await asyncio.sleep(0.1 if self.number < self.total else 1e9)
        self.number += 1
        self.emit([self.number], message_id=self.number)


class AsyncNumbers(ReliableNumbers):
    """The same rows from coroutines."""

    async def next_tuple(self) -> None:  # type: ignore[override]
        ReliableNumbers.next_tuple(self)


class BlockingNumbers(ReliableNumbers):
    """The same rows from a thread."""

    blocking = True


class Waits(Spout):
    """Waits in next_tuple until the test lets it go."""

    outputs = ("n",)
    blocking = True

    def open(self, context: TopologyContext) -> None:
        self.told: list[str] = []

    def next_tuple(self) -> None:
        IN_CALL.set()
        GO.wait()
        self.emit([1], message_id=None)

    def activate(self) -> None:
        self.told.append("activate")

    def deactivate(self) -> None:
        self.told.append("deactivate")
        TOLD.set()


IN_CALL, GO, TOLD = threading.Event(), threading.Event(), threading.Event()


class Talkative(Bolt):
    """Emits a hundred tuples with every tick."""

    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        """Nothing."""

    def tick(self) -> None:
        for number in range(100):
            self.emit([number])


class SlowTick(Talkative):
    """A tick that takes a second; counts how many are under way."""

    under_way = most = 0

    async def tick(self) -> None:  # type: ignore[override]
        SlowTick.under_way += 1
        SlowTick.most = max(SlowTick.most, SlowTick.under_way)
        await asyncio.sleep(1.0)
        SlowTick.under_way -= 1


class Holds(ManualBolt):
    """Acks a tuple five seconds after it came, and starts its timeout anew until then."""

    outputs = ("n",)

    def prepare(self, context: TopologyContext) -> None:
        self.held: list[tuple[float, Tuple]] = []

    def execute(self, tup: Tuple) -> None:
        self.held.append((CLOCK[0].now(), tup))

    def tick(self) -> None:
        held, self.held = self.held, []
        for since, tup in held:
            if CLOCK[0].now() - since >= 5.0:
                self.ack(tup)
            else:
                self.reset_timeout(tup)
                self.held.append((since, tup))


CLOCK: list[Clock] = []


class Forgets(Bolt):
    """Waits for ever for the tuple 7."""

    outputs = ("n",)

    async def execute(self, tup: Tuple) -> None:
        if tup["n"] == 7:
            await self.answer()

    async def answer(self) -> None:
        await asyncio.get_running_loop().create_future()


def test_rows_of_a_slow_source_arrive_one_by_one() -> None:
    builder = TopologyBuilder("slow")
    builder.set_spout("fitful", Fitful(10))
    builder.set_bolt("sink", Sink()).shuffle_grouping("fitful")
    bench = Bench(builder.create_topology(), 1)
    for number in range(1, 11):
        for _ in range(102):
            bench.round()
        assert bench.total("sink", "executed") in (number - 1, number)
    bench.run(lambda: bench.total("fitful", "acked") == 10, 200)


@pytest.mark.parametrize("spout", [ReliableNumbers, AsyncNumbers, BlockingNumbers])
def test_rows_wait_for_a_worker_that_is_away_and_are_no_dead_letters(spout: type[ReliableNumbers]) -> None:
    config: dict[str, object] = {
        "topology.message.timeout.secs": 1,
        "topology.executor.receive.buffer.size": 10,
        "topology.max.spout.pending": 50,
    }
    builder = TopologyBuilder("away", config=config)
    builder.set_spout("numbers", spout(400))
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    bench = Bench.placed(builder, {"sink": 1})
    for _ in range(20):
        bench.round()
    bench.kill(bench.slots[1])
    for _ in range(8000):
        bench.round()
    bench.start(bench.slots[1])
    bench.run_drained()
    assert bench.total("numbers", "dead_letters") == 0
    assert bench.total("numbers", "acked") == 400
    assert bench.total("numbers", "replayed") <= 100


class Threaded(Bench):
    """Calls of blocking components run on threads."""

    def start(self, slot: Slot) -> Worker:
        self.alive[slot] = Worker(
            self.topology.plan, self.assignment, slot, incarnation=1001,
            network=self.hub.network(self.assignment.address(slot)), load=self.topology.load,
            custom=self.topology.custom_grouping, seed=1, clock=self.clock, positions=None, virtual=False,
        )  # fmt: skip
        return self.alive[slot]


def until_called(bench: Bench) -> None:
    for _ in range(10_000):
        bench.round()
        if IN_CALL.wait(0.001):
            return
    raise AssertionError("next_tuple was not called")


def test_a_pause_does_not_wait_for_a_source() -> None:
    builder = TopologyBuilder("waits")
    builder.set_spout("waits", Waits())
    builder.set_bolt("sink", Sink()).shuffle_grouping("waits")
    bench = Threaded(builder.create_topology(), 1)
    try:
        until_called(bench)
        bench.apply(bench.place, Status.INACTIVE)
        assert not TOLD.is_set()
    finally:
        GO.set()
    assert TOLD.wait(10)
    (spout,) = bench.instances("waits")
    assert spout.told[-1] == "deactivate"  # type: ignore[attr-defined]
    bench.alive[bench.slots[0]].sides.close()


def test_a_tick_waits_while_its_bolt_is_held_back() -> None:
    config: dict[str, object] = {"topology.executor.receive.buffer.size": 10, "topology.tick.tuple.freq.secs": 0.1}
    builder = TopologyBuilder("ticks", config=config)
    builder.set_spout("numbers", ReliableNumbers(0))
    builder.set_bolt("talkative", Talkative()).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("talkative")
    bench = Bench.placed(builder, {"sink": 1})
    for _ in range(50):
        bench.round()
    bench.kill(bench.slots[1])
    for _ in range(2000):
        bench.round()
    (worker,) = bench.alive.values()
    assert max(len(target.overflow) for target in worker.wiring.targets.values()) <= 100
    bench.start(bench.slots[1])
    bench.run(lambda: bench.total("sink", "executed") >= 500, 5000)


class Ended(Talkative):
    """Knows when it is over."""

    ended = late = 0

    def tick(self) -> None:
        Ended.late += Ended.ended
        super().tick()

    def cleanup(self) -> None:
        Ended.ended = 1


def test_a_tick_that_waits_is_not_made_up_for_once_its_task_has_left() -> None:
    config: dict[str, object] = {"topology.executor.receive.buffer.size": 10, "topology.tick.tuple.freq.secs": 0.1}
    builder = TopologyBuilder("ticks", config=config)
    builder.set_spout("numbers", Numbers(1_000_000, tracked=False))
    builder.set_bolt("talkative", Ended()).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("talkative")
    bench = Bench.placed(builder, {"sink": 1}, 3)
    for _ in range(50):
        bench.round()
    bench.kill(bench.slots[1])
    for _ in range(500):
        bench.round()
    bench.apply(placing(bench.topology, {"sink": 1, "talkative": 2}))
    bench.start(bench.slots[1])
    for _ in range(500):
        bench.round()
    assert Ended.ended
    assert not Ended.late


class Lingers(Bolt):
    """Each call takes ten seconds, the last one too."""

    outputs = ("n",)

    async def execute(self, tup: Tuple) -> None:
        await asyncio.sleep(10.0)

    async def cleanup(self) -> None:
        await asyncio.sleep(10.0)


def test_a_task_that_moved_is_told_as_leaving_until_its_calls_are_back() -> None:
    builder = TopologyBuilder("lingers")
    builder.set_spout("numbers", ReliableNumbers(1))
    builder.set_bolt("lingers", Lingers()).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    bench = Bench.placed(builder, {"lingers": 1, "sink": 1})
    for _ in range(100):
        bench.round()
    bench.apply(placing(bench.topology, {"lingers": -1, "sink": 1}))
    worker = bench.alive[bench.slots[1]]
    for _ in range(9_900):
        assert worker.beat(bench.clock.now()).leaving == 1
        bench.round()
    bench.run(lambda: worker.beat(bench.clock.now()).leaving == 0, 500)


def test_one_tick_of_a_bolt_is_under_way_at_a_time() -> None:
    builder = TopologyBuilder("ticks", config={"topology.tick.tuple.freq.secs": 0.1})
    builder.set_spout("numbers", ReliableNumbers(0))
    builder.set_bolt("slow", SlowTick()).shuffle_grouping("numbers")
    bench = Bench(builder.create_topology(), 1)
    for _ in range(3000):
        bench.round()
    assert SlowTick.most == 1


@pytest.mark.parametrize("ackers", [None, 1])
@pytest.mark.parametrize("place", [(0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 2)])
def test_a_timeout_is_started_anew_wherever_the_acker_is(ackers: int | None, place: tuple[int, int, int]) -> None:
    config: dict[str, object] = {"topology.acker.executors": ackers, "topology.message.timeout.secs": 1}
    builder = TopologyBuilder("holds", config=config)
    builder.set_spout("numbers", ReliableNumbers(5))
    builder.set_bolt("pass", Pass()).shuffle_grouping("numbers")
    ticks = {"topology.tick.tuple.freq.secs": 0.2}
    builder.set_bolt("holds", Holds(), config=ticks).shuffle_grouping("pass")
    bench = Bench.placed(builder, dict(zip(("numbers", "holds", "__acker"), place, strict=True)), 3)
    CLOCK[:] = [bench.clock]
    bench.run_drained(8000)
    assert bench.total("numbers", "acked") == 5
    assert bench.total("numbers", "timed_out") == 0


class Grumpy(Spout):
    """Raises at each fortieth call."""

    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.number = 0

    def next_tuple(self) -> None:
        self.number += 1
        if self.number % 40 == 0:
            raise ValueError("now and then")
        self.emit([self.number], message_id=self.number)


class AsyncGrumpy(Grumpy):
    """The same from a coroutine."""

    async def next_tuple(self) -> None:  # type: ignore[override]
        Grumpy.next_tuple(self)


@pytest.mark.parametrize("spout", [Grumpy, AsyncGrumpy])
def test_a_spout_that_raises_now_and_then_pauses_for_a_second_each_time(spout: type[Spout]) -> None:
    builder = TopologyBuilder("grumpy")
    builder.set_spout("grumpy", spout())
    builder.set_bolt("sink", Sink()).shuffle_grouping("grumpy")
    bench = Bench(builder.create_topology(), 1)
    for _ in range(10_500):
        bench.round()
    assert bench.total("grumpy", "emitted") == 11 * 39


class Ends(AsyncNumbers):
    """Waits for ever when it is called after its end."""

    async def next_tuple(self) -> None:  # type: ignore[override]
        if self.at == 5:
            await asyncio.sleep(1e9)
        ReliableNumbers.next_tuple(self)
        if self.at == 5:
            self.finish()


def test_nothing_is_called_after_finish() -> None:
    builder = TopologyBuilder("ends")
    builder.set_spout("ends", Ends(100))
    builder.set_bolt("sink", Sink()).shuffle_grouping("ends")
    bench = Bench(builder.create_topology(), 1)
    bench.run_drained(1000)
    assert bench.total("sink", "executed") == 5


def test_a_task_that_waits_for_its_source_moves() -> None:
    for event in (IN_CALL, GO, TOLD):
        event.clear()
    builder = TopologyBuilder("moves")
    builder.set_spout("waits", Waits())
    builder.set_bolt("sink", Sink(), parallelism=2).shuffle_grouping("waits")
    topology = builder.create_topology()
    names = [topology.plan.component_of[executor.first] for executor in topology.plan.executors()]
    bench = Threaded(topology, 2, place=[0 if name == "waits" else at % 2 for at, name in enumerate(names)])
    old = bench.alive[bench.slots[0]]
    try:
        until_called(bench)
        bench.apply([1 if name == "waits" else at for name, at in zip(names, bench.place, strict=True)])
        assert old.sides.in_flight == 1  # its close, which waits for the call
    finally:
        GO.set()
    while old.sides.in_flight:
        bench.round()
    assert bench.total("sink", "executed") <= 1 + bench.total("waits", "emitted")
    for worker in bench.alive.values():
        worker.sides.close()


class Batches(Bolt):
    """Notes the size of each batch."""

    def prepare(self, context: TopologyContext) -> None:
        self.sizes: list[int] = []

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.sizes.append(len(tups))


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(("size", "credit"), [(50, 4096), (513, 4096), (1000, 4096), (100, 64)])
def test_a_batch_is_as_full_as_credit_lets_it_be(size: int, credit: int, at: int) -> None:
    config: dict[str, object] = {
        "topology.executor.receive.buffer.size": credit,
        "topology.batch.size": size,
        "topology.batch.timeout.ms": 200,
    }
    builder = TopologyBuilder("batches", config=config)
    builder.set_spout("numbers", Numbers(10_000_000, tracked=False))
    builder.set_bolt("batches", Batches()).shuffle_grouping("numbers")
    bench = Bench.placed(builder, {"batches": at})
    for _ in range(500):
        bench.round()
    (bolt,) = bench.instances("batches")
    sizes = bolt.sizes  # type: ignore[attr-defined]
    assert set(sizes) == {min(size, credit)}
    assert len(sizes) >= 40


class Connects(Spout):
    """Takes half a second to become active."""

    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.connected = False

    async def activate(self) -> None:
        await asyncio.sleep(0.5)
        self.connected = True

    async def next_tuple(self) -> None:
        self.emit([self.connected], message_id=1)
        self.finish()


def test_next_tuple_waits_for_activate() -> None:
    builder = TopologyBuilder("connects")
    builder.set_spout("connects", Connects())
    builder.set_bolt("sink", Sink()).shuffle_grouping("connects")
    bench = Bench(builder.create_topology(), 1)
    bench.round()
    bench.round()
    (worker,) = bench.alive.values()
    assert worker.step(bench.clock.now()) > bench.clock.now()  # it sleeps meanwhile
    bench.run_drained(2000)
    assert [sink.seen for sink in bench.instances("sink")] == [[True]]  # type: ignore[attr-defined]


def test_a_bolt_whose_calls_do_not_come_back_is_named_once_with_where_it_waits() -> None:
    builder = TopologyBuilder("forgetful")
    builder.set_spout("numbers", ReliableNumbers(8))
    builder.set_bolt("forgets", Forgets()).shuffle_grouping("numbers")
    bench = Bench(builder.create_topology(), 1)
    worker = next(iter(bench.alive.values()))
    standstills = Standstills(30.0)
    bench.run(lambda: bench.total("numbers", "acked") == 7)
    made = next(made for made in worker.wiring.tasks.values() if made.component == "forgets")
    now = bench.clock.now()
    assert standstills.look([made], now + 20.0) == []
    assert standstills.look([made], now + 31.0) == [(made, "a call under way has not come back for 31 s")]
    assert standstills.look([made], now + 60.0) == []
    stack = worker.sides.lane_of[made.task].stack("forgets")
    assert "in execute" in stack
    assert "in answer" in stack
