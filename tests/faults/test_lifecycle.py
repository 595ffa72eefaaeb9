"""A raise in every callback; messages that come twice, late, out of order or from the dead: in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from kit.bench import Bench
from kit.parts import Numbers, Pairs, Pass, ReliableNumbers, Sink
from rainband import Bolt, CustomGrouping, ReliableSpout, Spout, TopologyBuilder, TopologyContext, Tuple
from rainband.acker.ledger import Ledger, Verdict
from rainband.errors import InvalidTopology, RainbandError
from rainband.local import LocalCluster
from rainband.messaging import frames
from rainband.topology.graph import Topology
from rainband.worker.routes import EdgeIds

pytestmark = pytest.mark.faults

TOTAL = 60
BREAKS: Counter[str] = Counter()


def break_now(name: str) -> None:
    """Raise as long as BREAKS says so."""
    if BREAKS[name] > 0:
        BREAKS[name] -= 1
        raise RuntimeError(f"broken {name}")


class BreakingSpout(ReliableSpout):
    outputs = ("n",)
    retry_delay_s = 0.01

    def open(self, context: TopologyContext) -> None:
        break_now("spout open")
        self.at = 0

    def next_tuple(self) -> None:
        break_now("next_tuple")
        if self.at >= TOTAL:
            self.finish()
            return
        self.emit([self.at], message_id=self.at)
        self.at += 1

    def ack(self, message_id: object) -> None:
        break_now("ack")

    def activate(self) -> None:
        break_now("activate")

    def deactivate(self) -> None:
        break_now("deactivate")

    def close(self) -> None:
        break_now("close")

    def position(self) -> int:
        break_now("position")
        return self.at

    def seek(self, position: int) -> None:
        break_now("seek")
        self.at = position


class BreakingBolt(Bolt):
    outputs = ("n",)

    def prepare(self, context: TopologyContext) -> None:
        break_now("prepare")

    def execute(self, tup: Tuple) -> None:
        break_now("execute")
        self.emit([tup["n"]])

    def tick(self) -> None:
        break_now("tick")

    def cleanup(self) -> None:
        break_now("cleanup")


class BreakingGrouping(CustomGrouping):
    def prepare(self, context: TopologyContext, tasks: Sequence[int]) -> None:
        break_now("grouping prepare")
        self.tasks = tasks

    def choose_tasks(self, values: Sequence[object]) -> Sequence[int]:
        break_now("grouping choose")
        return self.tasks[:1]


def breaking() -> Topology:
    builder = TopologyBuilder("breaking", config={"topology.workers": 2})
    builder.set_spout("spout", BreakingSpout())
    config = {"topology.tick.tuple.freq.secs": 0.5}
    builder.set_bolt("bolt", BreakingBolt(), parallelism=2, config=config).shuffle_grouping("spout")
    builder.set_bolt("sink", Sink()).custom_grouping("bolt", BreakingGrouping())
    return builder.create_topology()


RESTART, RECORDED, SOMEWHERE = "restart", "recorded", "recorded somewhere"
# (what raises, how often, in which component, what comes of it)
OUTCOMES = [
    ("spout open", 1, "spout", RESTART),
    ("prepare", 1, "bolt", RESTART),
    ("grouping prepare", 1, "", RESTART),
    ("next_tuple", 2, "spout", RECORDED),
    ("ack", 1, "spout", RECORDED),
    ("position", 1, "spout", RECORDED),
    ("execute", 3, "bolt", RECORDED),
    ("tick", 1, "bolt", RECORDED),
    ("grouping choose", 2, "bolt", RECORDED),
    ("deactivate", 1, "spout", RECORDED),
    ("activate", 2, "spout", RECORDED),
    ("close", 1, "spout", SOMEWHERE),
    ("cleanup", 1, "bolt", SOMEWHERE),
]


@pytest.mark.parametrize(("name", "times", "component", "outcome"), OUTCOMES, ids=[row[0] for row in OUTCOMES])
def test_f37_a_raise_in_each_callback(name: str, times: int, component: str, outcome: str) -> None:
    BREAKS.clear()
    BREAKS[name] = times
    with LocalCluster(virtual_clock=True, record=True, seed=5) as cluster:
        running = cluster.submit(breaking())
        cluster.advance(0.02)
        running.deactivate()
        cluster.advance(1)
        running.activate()
        s = running.wait_drained(timeout_s=120)
        assert {values[0] for values in running.executed("sink")} == set(range(TOTAL))
        if outcome == SOMEWHERE:
            running.rebalance(workers=1)  # closes some tasks
            running.kill(wait_s=0)
        else:
            told = [error for error in running.errors(component or None) if f"broken {name}" in error.error]
            assert told, running.errors()
            assert told[0].traceback
        assert BREAKS[name] == 0
        assert (s.restarts > 0) is (outcome == RESTART)
        assert s.acked == TOTAL


def test_f37_a_raise_in_the_seek_of_a_spout() -> None:
    """As one in open: the worker starts anew, and the position is still there."""
    BREAKS.clear()
    with LocalCluster(virtual_clock=True, record=True, seed=5) as cluster:
        running = cluster.submit(breaking())
        cluster.advance(0.02)
        running.deactivate()
        cluster.advance(2)  # its position is stored
        BREAKS["seek"] = 1
        cluster.kill_worker("spout")
        running.activate()
        s = running.wait_drained(timeout_s=120)
        assert BREAKS["seek"] == 0
        told = [error for error in running.errors("spout") if "broken seek" in error.error]
        assert told
        assert told[0].traceback
        assert s.restarts == 2
        assert {values[0] for values in running.executed("sink")} == set(range(TOTAL))


def test_f37_a_raise_in_the_fail_of_a_spout() -> None:
    class Telling(Spout):
        outputs = ("n",)

        def open(self, context: TopologyContext) -> None:
            self.at = 0
            self.told: list[int] = []

        def next_tuple(self) -> None:
            if self.at == 10:
                self.finish()
                return
            self.emit([self.at], message_id=self.at)
            self.at += 1

        def fail(self, message_id: object) -> None:
            assert isinstance(message_id, int)
            self.told.append(message_id)
            break_now("fail")

    BREAKS.clear()
    BREAKS.update({"execute": 3, "fail": 2})
    builder = TopologyBuilder("telling")
    builder.set_spout("spout", Telling())
    bolt_config = {"topology.tick.tuple.freq.secs": 5}
    builder.set_bolt("bolt", BreakingBolt(), config=bolt_config).shuffle_grouping("spout")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        s = running.wait_drained(timeout_s=60)
        assert (s.acked, s.failed, s.restarts) == (7, 3, 0)
        [spout] = running.instances("spout")
        assert len(spout.told) == 3
        assert sum("broken fail" in error.error for error in running.errors("spout")) == 2


def test_f40_an_init_that_comes_twice_is_ignored() -> None:
    ledger = Ledger()
    assert ledger.init(5, 0b0110, 7) is None
    assert ledger.init(5, 0b0110, 7) is None  # XORed in again it would make 0: a false ack
    assert ledger.ack(5, 0b0010) is None
    assert ledger.ack(5, 0b0100) == Verdict(5, 7, True)


@pytest.mark.parametrize("order", ["ack init", "fail init", "init fail ack", "init ack fail"])
def test_f41_reports_before_the_init_and_after_the_end(order: str) -> None:
    ledger = Ledger()
    verdicts = [
        {"init": lambda: ledger.init(5, 9, 7), "ack": lambda: ledger.ack(5, 9), "fail": lambda: ledger.fail(5)}[step]()
        for step in order.split()
    ]
    told = [verdict for verdict in verdicts if verdict is not None]
    assert told == [Verdict(5, 7, order in ("ack init", "init ack fail"))]
    for _ in range(3):
        ledger.rotate()
    assert len(ledger) == 0  # what came late is forgotten within 3T


def test_f42_edge_ids_are_never_zero_and_never_twice() -> None:
    two = [EdgeIds(Random(seed).getrandbits(62)) for seed in (1, 2)]
    drawn = [ids.next() for ids in two for _ in range(20_000)]
    assert min(drawn) > 0
    assert max(drawn) < 2**63
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("ackers", [None, 1])
def test_f43_a_lost_frame_costs_time_and_nothing_else(ackers: int | None, number: int) -> None:
    """On each way between two workers, of each kind of frame, the one with this number is lost."""
    config: dict[str, object] = {"topology.max.spout.pending": 10}
    if ackers is not None:
        config["topology.acker.executors"] = ackers
    builder = TopologyBuilder("lossy", config=config)
    builder.set_spout("numbers", ReliableNumbers(150))
    builder.set_bolt("pass", Pass(), parallelism=2).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("pass")
    bench = Bench(builder.create_topology(), 3)
    counts: Counter[tuple[str, str, int]] = Counter()

    def fate(source: str, target: str, frame: bytes) -> Sequence[float]:
        key = (source, target, frames.parse(frame).kind)
        counts[key] += 1
        return [] if counts[key] == number else [0.0]

    bench.hub.fate = fate
    bench.run_drained(60_000)
    [sink] = bench.instances("sink")
    assert sorted(sink.seen) == list(range(150))  # type: ignore[attr-defined]
    assert bench.total("numbers", "failed") == 0
    assert any(kind == frames.BATCH and count > number for (_, _, kind), count in counts.items())


def test_f44_frames_of_the_dead_are_counted_and_dropped() -> None:
    builder = TopologyBuilder("late", config={"topology.max.spout.pending": 30})
    builder.set_spout("numbers", ReliableNumbers(300))
    builder.set_bolt("pass", Pass(), parallelism=2).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("pass")
    bench = Bench(builder.create_topology(), 3, place=[0, 1, 2, 0])
    kept: list[tuple[str, str, bytes]] = []

    def fate(source: str, target: str, frame: bytes) -> Sequence[float]:
        kept.append((source, target, frame))
        return [0.0]

    bench.hub.fate = fate
    bench.run(lambda: bench.total("numbers", "acked") > 100)
    victim = bench.slots[1]
    address = bench.assignment.address(victim)
    dead = bench.alive[victim].incarnation
    late = [(target, frame) for source, target, frame in kept if source == address]
    bench.kill(victim)
    for worker in bench.alive.values():
        worker.peer_gone(victim, dead, bench.clock.now())
    bench.start(victim)
    before = bench.total("sink", "executed")
    for target, frame in late:
        bench.hub.send(address, target, frame)
    bench.round()
    refused = sum(worker.links.counters()["frames_refused"] for worker in bench.alive.values())
    assert refused >= len(late) > 5
    assert bench.total("sink", "executed") - before <= 30
    bench.run_drained(60_000)
    [sink] = bench.instances("sink")
    assert set(sink.seen) == set(range(300))  # type: ignore[attr-defined]
    assert max(Counter(sink.seen).values()) <= 2  # type: ignore[attr-defined]


def test_f01_word_of_a_death_travels_ahead_of_the_replays() -> None:
    """Only the spout's worker is told that the sink's died. What it sends again must not be failed once more."""
    builder = TopologyBuilder("word", config={"topology.max.spout.pending": 30})
    builder.set_spout("numbers", ReliableNumbers(300))
    builder.set_bolt("pass", Pass()).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("pass")
    bench = Bench(builder.create_topology(), 3, place=[0, 1, 2])
    bench.run(lambda: bench.total("numbers", "acked") > 100)
    spout, middle, victim = (bench.slots[number] for number in (0, 1, 2))
    dead = bench.alive[victim].incarnation
    bench.kill(victim)
    bench.alive[spout].peer_gone(victim, dead, bench.clock.now())
    for _ in range(50):
        bench.round()
    assert bench.alive[middle].counters["peers_lost"] == 1
    bench.alive[middle].peer_gone(victim, dead, bench.clock.now())
    bench.start(victim)
    bench.run_drained(60_000)
    assert bench.alive[middle].counters["peers_lost"] == 1
    assert bench.total("numbers", "replayed") <= 30


def test_f45_a_replay_has_a_root_of_its_own() -> None:
    """The bolt holds the first try until the second one is there; then the first one's acks mean nothing."""
    builder = TopologyBuilder("again", config={"topology.message.timeout.secs": 2})
    builder.set_spout("numbers", ReliableNumbers(1))
    builder.set_bolt("pairs", Pairs(), config={"topology.tick.tuple.freq.secs": 1e6}).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("pairs")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        s = running.wait_drained(timeout_s=30)
        assert (s.timed_out, s.replayed, s.acked) == (1, 1, 1)
        assert len(running.emitted("numbers")) == len(running.executed("sink")) == 2


def greedy(parallelism: int) -> Topology:
    builder = TopologyBuilder("greedy")
    builder.set_spout("numbers", Numbers(1), parallelism=parallelism)
    return builder.create_topology()


def test_f46_parallelism_beyond_reason_is_refused() -> None:
    for parallelism in (0, -1, 10**9):
        with pytest.raises(RainbandError):
            greedy(parallelism)
    with pytest.raises(InvalidTopology):
        TopologyBuilder("empty").create_topology()
