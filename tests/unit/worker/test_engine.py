"""The engine over links in memory: nothing lost, nothing twice, whatever the shape, the placement and the credit."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kit.bench import Bench, placing
from kit.parts import Numbers, Pairs, Pass, Poison, ReliableNumbers, Sink, Twice
from rainband.records import Status
from rainband.topology.builder import TopologyBuilder
from rainband.topology.graph import Topology

GROUPINGS = ("shuffle", "fields", "partial_key", "all", "global", "none", "local_or_shuffle")


def subscribe(declarer: object, kind: str, source: str) -> None:
    method = getattr(declarer, f"{kind}_grouping")
    method(source, ["n"]) if kind in ("fields", "partial_key") else method(source)


def line(total: int, kind: str, config: dict[str, object], reliable: bool = False) -> Topology:
    builder = TopologyBuilder("line", config=config)
    builder.set_spout("numbers", ReliableNumbers(total) if reliable else Numbers(total), parallelism=2)
    subscribe(builder.set_bolt("pass", Pass(), parallelism=3), kind, "numbers")
    builder.set_bolt("sink", Sink(), parallelism=2).fields_grouping("pass", ["n"])
    return builder.create_topology()


def seen(bench: Bench, component: str = "sink") -> Counter[object]:
    return Counter(number for sink in bench.instances(component) for number in sink.seen)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", GROUPINGS)
@pytest.mark.parametrize("credit", [1, 4096])
@pytest.mark.parametrize("ackers", [None, 0, 2])
def test_every_number_arrives_once_by_each_grouping(kind: str, credit: int, ackers: int | None) -> None:
    config: dict[str, object] = {"topology.executor.receive.buffer.size": credit, "topology.acker.executors": ackers}
    bench = Bench(line(100, kind, config), 3)
    bench.run_drained()
    copies = 3 if kind == "all" else 1
    assert seen(bench) == dict.fromkeys(range(100), copies)
    assert bench.total("numbers", "acked") == 100
    assert bench.total("numbers", "failed") == 0


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Topology, int, list[int]]:
    """A random DAG of up to six bolts over one or two spouts, random groupings and parallelism, randomly placed."""
    builder = TopologyBuilder(
        "random", config={"topology.executor.receive.buffer.size": draw(st.sampled_from([1, 2, 64]))}
    )
    sources = [f"spout{number}" for number in range(draw(st.integers(1, 2)))]
    for name in sources:
        builder.set_spout(name, Numbers(draw(st.integers(1, 40))), parallelism=draw(st.integers(1, 2)))
    for number in range(draw(st.integers(1, 6))):
        part = draw(st.sampled_from([Pass, Twice, Pairs]))
        config: dict[str, object] = {"topology.tick.tuple.freq.secs": 0.05} if part is Pairs else {}
        declarer = builder.set_bolt(f"bolt{number}", part(), parallelism=draw(st.integers(1, 3)), config=config)
        for source in draw(st.lists(st.sampled_from(sources), min_size=1, max_size=2, unique=True)):
            subscribe(declarer, draw(st.sampled_from(GROUPINGS)), source)
        sources.append(f"bolt{number}")
    declarer = builder.set_bolt("sink", Sink(), parallelism=draw(st.integers(1, 2)))
    for source in sources:
        declarer.shuffle_grouping(source)
    topology = builder.create_topology()
    workers = draw(st.integers(1, 4))
    place = [draw(st.integers(0, workers - 1)) for _ in topology.plan.executors()]
    return topology, workers, place


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=shapes(), seed=st.integers(0, 2**32))
def test_random_graphs_on_random_placements_complete(shape: tuple[Topology, int, list[int]], seed: int) -> None:
    topology, workers, place = shape
    bench = Bench(topology, workers, seed=seed, place=place)
    bench.run_drained(40_000)
    for name, component in topology.plan.components.items():
        if component.kind == "spout":
            assert bench.total(name, "acked") == bench.total(name, "tracked") > 0
            assert bench.total(name, "failed") == 0
    emitted = sum(stream.transferred for beat in bench.beats for stream in beat.streams)
    executed = sum(task.executed for beat in bench.beats for task in beat.tasks if task.component[:5] != "spout")
    assert executed == emitted


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.2), credit=st.sampled_from([1, 16, 4096]))
def test_a_lossy_network_loses_and_repeats_nothing(seed: int, loss: float, credit: int) -> None:
    config: dict[str, object] = {
        "topology.executor.receive.buffer.size": credit,
        "topology.enable.message.timeouts": False,
    }
    bench = Bench(line(60, "shuffle", config), 3, seed=seed)
    random = bench.random
    bench.hub.fate = lambda source, target, frame: (
        [] if random.random() < loss else [random.random() * 0.01] * (2 if random.random() < loss else 1)
    )
    bench.run_drained(200_000)
    assert seen(bench) == dict.fromkeys(range(60), 1)
    assert bench.total("numbers", "failed") == 0


def test_untracked_tuples_survive_a_lossy_network_too() -> None:
    builder = TopologyBuilder("untracked")
    builder.set_spout("numbers", Numbers(200, tracked=False))
    builder.set_bolt("sink", Sink(), parallelism=2).shuffle_grouping("numbers")
    bench = Bench(builder.create_topology(), 3)
    bench.hub.fate = lambda source, target, frame: [] if bench.random.random() < 0.3 else [0.001]
    bench.run_drained(100_000)
    assert seen(bench) == dict.fromkeys(range(200), 1)


def test_a_killed_bolt_worker_costs_one_replay_of_what_was_pending_and_nothing_else() -> None:
    config: dict[str, object] = {"topology.max.spout.pending": 20}
    bench = Bench(line(400, "shuffle", config, reliable=True), 3, place=[0, 0, 1, 2, 1, 0, 2])
    bench.run(lambda: bench.total("numbers", "acked") > 100)
    victim = bench.slots[2]
    done = seen(bench)
    before = bench.total("numbers", "replayed")
    bench.kill(victim)
    bench.start(victim)
    bench.run_drained(60_000)
    assert set(seen(bench)) | set(done) == set(range(400))
    assert 0 < bench.total("numbers", "replayed") - before <= 2 * 20
    assert max((seen(bench) + done).values()) <= 3


def test_poison_ends_as_a_dead_letter_and_the_others_flow() -> None:
    builder = TopologyBuilder("poison")
    builder.set_spout("numbers", ReliableNumbers(50))
    builder.set_bolt("poison", Poison(frozenset({7}))).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink()).shuffle_grouping("poison")
    builder.set_bolt("dead", DeadSink()).shuffle_grouping("numbers", stream="dead_letters")
    bench = Bench(builder.create_topology(), 1)
    bench.run_drained(60_000)
    assert seen(bench) == {number: 1 for number in range(50) if number != 7}
    [letter] = bench.instances("dead")[0].seen  # type: ignore[attr-defined]
    assert letter[0] == 7
    assert letter[1:4] == ("default", (7,), 5)
    assert bench.total("poison", "failed") == 6


class DeadSink(Sink):
    def execute(self, tup: object) -> None:
        self.seen.append(tup.values)  # type: ignore[attr-defined]


def test_a_planned_move_replays_nothing() -> None:
    bench = Bench(line(400, "shuffle", {}), 3, place=[0, 0, 1, 1, 1, 0, 0])
    bench.run(lambda: bench.total("numbers", "acked") > 50)
    place = [1, 0, 1, 2, 1, 0, 2]
    bench.start_slot(2, place)
    bench.run(lambda: bench.total("numbers", "pending") == 0)
    bench.apply(place)
    bench.run_drained()
    assert bench.total("numbers", "failed") == 0


@pytest.mark.parametrize("ackers", [None, 2])
@pytest.mark.parametrize("stays_away", [(2, 3), (5, 6), (0, 1), (4,), (2, 3, 4, 5, 6)])
def test_tasks_without_a_place_are_waited_for(ackers: int | None, stays_away: tuple[int, ...]) -> None:
    """So an exclusive topology moves: out of one worker, nowhere for a while, into another."""
    topology = line(400, "shuffle", {"topology.acker.executors": ackers, "topology.message.timeout.secs": 5})
    executors = len(topology.plan.executors())
    bench = Bench(topology, 2, place=[number % 2 for number in range(executors)])
    bench.run(lambda: bench.total("numbers", "acked") > 50)
    gone = [number for number in stays_away if number < executors]
    bench.apply([-1 if number in gone else at for number, at in enumerate(bench.place)])
    for _ in range(300):
        bench.round()
    bench.apply([1 - at if number in gone else at for number, at in enumerate(bench.place)])
    bench.run_drained(40_000)


@pytest.mark.parametrize("between", [0, -1])
@pytest.mark.parametrize(("name", "late"), [("numbers", 2), ("numbers", 1), ("__acker", 1), ("__acker", 0)])
def test_a_worker_that_hears_late_of_a_move_forgets_nobody(name: str, late: int, between: int) -> None:
    """Spout, bolt and acker each in a worker of its own; what moves goes to a fourth. There are no timeouts."""
    config: dict[str, object] = {"topology.acker.executors": 1, "topology.enable.message.timeouts": False}
    builder = TopologyBuilder("late", config=config)
    builder.set_spout("numbers", ReliableNumbers(500))
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    builder.set_bolt("other", Sink()).shuffle_grouping("numbers")
    where = {"numbers": 0, "sink": 1, "__acker": 2, "other": 3}
    bench = Bench.placed(builder, where, 4)
    bench.run(lambda: bench.total("numbers", "acked") > 50)
    tardy = bench.alive[bench.slots[late]]
    if between < 0:
        bench.apply(placing(bench.topology, {**where, name: -1}))
    bench.assignment = bench.assign(placing(bench.topology, {**where, name: 3}))
    for worker in bench.alive.values():
        if worker is not tardy:
            worker.apply(bench.assignment, bench.clock.now())
    for _ in range(1000):
        bench.round()
    tardy.apply(bench.assignment, bench.clock.now())
    bench.run(lambda: bench.total("numbers", "acked") >= 500 and bench.total("numbers", "pending") == 0, 5000)


def test_a_paused_topology_emits_nothing() -> None:
    bench = Bench(line(10_000, "shuffle", {}), 2)
    bench.run(lambda: bench.total("numbers", "acked") > 10)
    bench.apply(bench.place, Status.INACTIVE)
    bench.run(lambda: bench.total("numbers", "pending") == 0)
    emitted = bench.total("numbers", "emitted")
    for _ in range(50):
        bench.round()
    assert bench.total("numbers", "emitted") == emitted


def test_a_worker_keeps_nothing_of_tasks_that_left() -> None:
    bench = Bench(line(1_000_000, "shuffle", {}), 2)
    there, back = bench.place, [1 - at for at in bench.place]
    for number in range(6):
        bench.apply(back if number % 2 == 0 else there)
        for _ in range(20):
            bench.round()
    for worker in bench.alive.values():
        tasks = [made.component for made in worker.wiring.tasks.values()]
        for edges in worker.wiring.edges.values():
            for edge, _ in edges:
                assert len(edge.choosers) <= tasks.count(edge.source)
