"""Laws of building, for random topologies and for random nonsense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rainband.errors import InvalidConfig, InvalidTopology
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, ReliableSpout, Spout
from rainband.topology.graph import Topology
from rainband.topology.plan import Plan
from rainband.topology.tuples import Tuple

KINDS = ("shuffle", "all", "global", "none", "local_or_shuffle", "fields", "partial_key")


class Source(Spout):
    outputs = {"default": ("a", "b"), "side": ("c",)}

    def next_tuple(self) -> None: ...


class Replayed(ReliableSpout):
    outputs = {"default": ("a", "b"), "side": ("c",)}

    def next_tuple(self) -> None: ...


class Stage(Bolt):
    outputs = {"default": ("a", "b"), "side": ("c",)}

    def execute(self, tup: Tuple) -> None: ...


class Declared:
    """One component of a random topology: number `n`, and edges (source number, stream, kind)."""

    def __init__(self, n: int, edges: list[tuple[int, str, str]], parallelism: int, tasks: int | None) -> None:
        self.n = n
        self.edges = edges
        self.parallelism = parallelism
        self.tasks = tasks

    def declare(self, builder: TopologyBuilder) -> None:
        if self.n < 2:
            spout = Source() if self.n == 0 else Replayed()
            builder.set_spout(f"c{self.n}", spout, self.parallelism, tasks=self.tasks)
            return
        bolt = builder.set_bolt(f"c{self.n}", Stage(), self.parallelism, tasks=self.tasks)
        for source, stream, kind in self.edges:
            fields = [["a" if stream == "default" else "c"]] if kind in ("fields", "partial_key") else []
            getattr(bolt, f"{kind}_grouping")(f"c{source}", *fields, stream=stream)


@st.composite
def topologies(draw: st.DrawFn) -> list[Declared]:
    size = draw(st.integers(2, 7))
    declared = []
    for n in range(size):
        pairs = st.tuples(st.integers(0, size - 1), st.sampled_from(("default", "side")))
        sources = draw(st.lists(pairs, min_size=1, max_size=3, unique=True))
        edges = [(source, stream, draw(st.sampled_from(KINDS))) for source, stream in sources]
        parallelism = draw(st.integers(1, 5))
        tasks = draw(st.none() | st.integers(parallelism, 12))
        declared.append(Declared(n, edges, parallelism, tasks))
    return declared


def build(declared: list[Declared]) -> Topology:
    builder = TopologyBuilder("t", config={"topology.acker.executors": 2})
    for one in declared:
        one.declare(builder)
    return builder.create_topology()


@given(topologies())
def test_a_plan_numbers_all_tasks_once_and_splits_them_into_the_executors(declared: list[Declared]) -> None:
    plan = build(declared).plan
    tasks = sorted(task for ids in plan.tasks.values() for task in ids)
    assert tasks == list(range(1, len(tasks) + 1))
    assert sum(e.last - e.first + 1 for e in plan.executors()) == len(plan.component_of)
    for one in declared:
        component = plan.components[f"c{one.n}"]
        assert component.executors == one.parallelism
        assert component.tasks == (one.tasks or one.parallelism)
        assert component.key_groups >= 64 * component.tasks
        assert component.key_groups & (component.key_groups - 1) == 0
    assert Plan.decode(plan.encode()) == plan


@given(topologies())
def test_an_edge_is_cyclic_exactly_when_tuples_can_come_back(declared: list[Declared]) -> None:
    plan = build(declared).plan
    for name, component in plan.components.items():
        for source in component.inputs:
            assert source.cyclic == (source.component == name or source.component in plan.downstream(name))
            if not source.cyclic:
                assert plan.components[source.component].level > component.level


@given(topologies(), st.randoms())
def test_equal_topologies_have_one_digest_in_any_order(declared: list[Declared], random: Any) -> None:
    first = build(declared)
    shuffled = list(declared)
    random.shuffle(shuffled)
    assert build(shuffled).digest() == first.digest() == first.with_config({}).digest()


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text()),
    st.dictionaries(st.text(), st.integers()), st.sampled_from([int, Stage, len, Source(), object(), "lines", "side"]),
)  # fmt: skip


def refusals(call: Callable[[], object]) -> tuple[str, ...]:
    """What a call was refused for, nothing when it was not."""
    try:
        call()
    except InvalidTopology as error:
        return error.problems
    except InvalidConfig as error:
        return (str(error),)
    return ()


@settings(max_examples=200)
@given(st.data())
def test_nonsense_is_refused_in_one_line_or_accepted(data: st.DataObject) -> None:
    def junk() -> Any:
        return data.draw(JUNK)

    def maybe(good: Any) -> Any:
        return junk() if data.draw(st.booleans()) else good

    def declare() -> None:
        builder = TopologyBuilder(maybe("t"), config=maybe({}))
        builder.set_spout(maybe("lines"), maybe(Source()), maybe(1), tasks=maybe(None), config=maybe(None))
        bolt = builder.set_bolt(maybe("bolt"), maybe(Stage()), maybe(1), tasks=maybe(None), config=maybe(None))
        bolt.shuffle_grouping(maybe("lines"), stream=maybe("default"))
        bolt.fields_grouping(maybe("lines"), maybe(["c"]), stream=maybe("side"))
        bolt.custom_grouping(maybe("lines"), junk())
        builder.create_topology()

    assert all(problem and "\n" not in problem for problem in refusals(declare))


@given(JUNK)
def test_nonsense_as_outputs(outputs: Any) -> None:
    stage = Stage()
    stage.outputs = outputs
    problems = refusals(lambda: TopologyBuilder("t").set_bolt("x", stage))
    assert all("outputs" in problem for problem in problems)
