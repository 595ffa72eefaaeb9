"""Declaring topologies: what comes out of a good one, and what each mistake is told, all of them at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rainband.errors import InvalidConfig, InvalidTopology, RainbandError
from rainband.groupings.specs import CustomGrouping
from rainband.topology.builder import BoltDeclarer, TopologyBuilder
from rainband.topology.components import Bolt, DirectStream, ManualBolt, ReliableSpout, Spout
from rainband.topology.plan import ACKER, InputPlan, Plan, StreamPlan
from rainband.topology.tuples import Tuple

TICK = "topology.tick.tuple.freq.secs"


class Lines(Spout):
    outputs = {"default": ("line", "number"), "bad": ("line", "why"), "to": DirectStream("order")}

    def next_tuple(self) -> None:
        self.emit(["a b", 1], message_id=1)


class Queue(ReliableSpout):
    outputs = ("line",)

    def next_tuple(self) -> None:
        self.emit(["a b"], message_id=1)


class Split(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        self.emit(["a"])


class Count(Bolt):
    def execute(self, tup: Tuple) -> None: ...


class Ticking(Bolt):
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None: ...

    def tick(self) -> None: ...


class Second(CustomGrouping):
    def __init__(self, share: int = 2) -> None:
        self.share = share

    def choose_tasks(self, values: tuple[Any, ...]) -> Sequence[int]:
        return []


def word_count(config: dict[str, object] | None = None) -> TopologyBuilder:
    builder = TopologyBuilder("word-count", config={"topology.workers": 2, **(config or {})})
    builder.set_spout("lines", Lines())
    builder.set_bolt("split", Split(), parallelism=2).shuffle_grouping("lines")
    builder.set_bolt("count", Count(), parallelism=2, tasks=8).fields_grouping("split", ["word"])
    return builder


def test_the_plan_says_all_that_was_declared() -> None:
    builder = word_count({"topology.acker.executors": 3})
    builder.set_bolt("ticking", Ticking(), config={TICK: 10}).all_grouping("lines", stream="bad")
    plan = builder.create_topology().plan
    assert plan.name == "word-count"
    assert plan.config == {"topology.acker.executors": 3, "topology.workers": 2}
    assert list(plan.components) == [ACKER, "count", "lines", "split", "ticking"]
    count, lines, split = (plan.components[name] for name in ("count", "lines", "split"))
    assert (count.executors, count.tasks, count.key_groups, count.level) == (2, 8, 512, 0)
    assert count.inputs == (InputPlan("split", "default", "fields", ("word",)),)
    assert (split.kind, split.executors, split.tasks, split.key_groups, split.level) == ("bolt", 2, 2, 128, 1)
    assert (lines.kind, lines.level, lines.guarantee) == ("spout", 2, "reports only")
    assert lines.streams == {
        "bad": StreamPlan(("line", "why")),
        "default": StreamPlan(("line", "number")),
        "to": StreamPlan(("order",), direct=True),
    }
    assert (plan.components[ACKER].kind, plan.components[ACKER].executors, plan.components[ACKER].tasks) == (
        "system",
        3,
        3,
    )
    assert plan.components["ticking"].config == {TICK: 10.0}
    assert count.type_name.endswith(":Count")
    assert plan.tasks["count"] == range(4, 12)
    assert Plan.decode(plan.encode()) == plan


def test_every_grouping_reaches_the_plan() -> None:
    builder = TopologyBuilder("all")
    builder.set_spout("a", Lines())
    builder.set_bolt("b", Split()).shuffle_grouping("a").all_grouping("a", stream="bad").direct_grouping(
        "a", stream="to"
    )
    builder.set_bolt("c", Split()).fields_grouping("a", ("number", "line")).global_grouping("b")
    builder.set_bolt("d", Split()).partial_key_grouping("a", ["line"]).none_grouping("b").local_or_shuffle_grouping("c")
    topology = builder.set_bolt("e", Split()).custom_grouping("a", Second(3)).local_or_shuffle_grouping("d")
    assert topology is not None
    made = builder.create_topology()
    kinds = {name: [source.kind for source in c.inputs] for name, c in made.plan.components.items()}
    assert kinds == {
        "a": [],
        "b": ["shuffle", "all", "direct"],
        "c": ["fields", "global"],
        "d": ["partial_key", "none", "local_or_shuffle"],
        "e": ["custom", "local_or_shuffle"],
    }
    assert made.plan.components["c"].inputs[0].fields == ("number", "line")
    digest = made.plan.components["e"].inputs[0].custom
    grouping = made.custom_grouping(digest)
    assert isinstance(grouping, Second)
    assert grouping.share == 3
    assert grouping is not made.custom_grouping(digest)
    assert digest in made.pickles


def test_a_reliable_spout_has_its_dead_letters() -> None:
    builder = TopologyBuilder("t")
    builder.set_spout("q", Queue())
    builder.set_bolt("dead", Count()).shuffle_grouping("q", stream="dead_letters")
    builder.set_bolt("live", Count()).shuffle_grouping("q")
    streams = builder.create_topology().plan.components["q"].streams
    assert streams["dead_letters"].fields == ("message_id", "stream", "values", "retries", "reason")
    assert streams["default"].fields == ("line",)


def test_parallelism_is_capped_by_config() -> None:
    plan = word_count({"topology.max.task.parallelism": 1}).create_topology().plan
    assert [(c.executors, c.tasks) for c in plan.components.values()] == [(1, 8), (1, 1), (1, 1)]


def test_a_component_is_snapshot_when_it_is_set() -> None:
    grouping, spout = Second(2), Lines()
    spout.paths = ["a"]  # type: ignore[attr-defined]
    builder = TopologyBuilder("t")
    builder.set_spout("lines", spout)
    builder.set_bolt("b", Count()).custom_grouping("lines", grouping)
    grouping.share = 9
    spout.paths.append("b")  # type: ignore[attr-defined]
    topology = builder.create_topology()
    first, second = topology.load("lines"), topology.load("lines")
    first.paths.append("c")
    assert second.paths == ["a"]
    assert isinstance(first, Lines)
    custom = topology.custom_grouping(topology.plan.components["b"].inputs[0].custom)
    assert isinstance(custom, Second)
    assert custom.share == 2


def test_the_order_of_declarations_does_not_change_the_digest() -> None:
    other = TopologyBuilder("word-count", config={"topology.workers": 2})
    other.set_bolt("count", Count(), 2, tasks=8).fields_grouping("split", ("word",))
    other.set_bolt("split", Split(), 2).shuffle_grouping("lines")
    other.set_spout("lines", Lines())
    assert other.create_topology().digest() == word_count().create_topology().digest()
    assert word_count({"topology.debug": True}).create_topology().digest() != word_count().create_topology().digest()


def test_cycles_are_marked_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    builder = word_count()
    builder.set_bolt("a", Split()).shuffle_grouping("split").shuffle_grouping("b")
    builder.set_bolt("b", Split()).shuffle_grouping("a")
    builder.set_bolt("self", Split()).all_grouping("self").all_grouping("b")
    with caplog.at_level(logging.WARNING, "rainband"):
        topology = builder.create_topology()
    cyclic = {(s.component, name) for name, c in topology.plan.components.items() for s in c.inputs if s.cyclic}
    assert cyclic == {("a", "b"), ("b", "a"), ("self", "self")}
    assert sum("lies on a cycle" in warning for warning in topology.warnings) == 3
    assert "lies on a cycle" in caplog.text
    assert {name: c.level for name, c in topology.plan.components.items()} == {
        "self": 0, "a": 1, "b": 1, "count": 0, "split": 2, "lines": 3,
    }  # fmt: skip


def test_executors_that_must_take_turns_are_warned_of() -> None:
    class Waiting(Split):
        blocking = True

    builder = TopologyBuilder("t")
    builder.set_spout("lines", Lines())
    builder.set_bolt("turns", Split(), 3).shuffle_grouping("lines")
    builder.set_bolt("threads", Waiting(), 3).shuffle_grouping("lines")
    builder.set_bolt("alone", Split()).shuffle_grouping("alone")
    warnings = builder.create_topology().warnings
    assert [w for w in warnings if "taking turns" in w] == [
        w for w in warnings if w.startswith("'turns' has 3 executors")
    ]
    assert "'alone' is reached by no spout" in warnings


def test_a_new_config_is_checked_and_laid_on_top() -> None:
    topology = word_count().create_topology()
    changed = topology.with_config({"topology.workers": 5, "topology.name": "other", "nimbus.port": 1, "app": {"a": 1}})
    assert (changed.name, changed.plan.config) == ("other", {"app": {"a": 1}, "topology.workers": 5})
    assert topology.plan.config == {"topology.workers": 2}
    with pytest.raises(InvalidConfig):
        topology.with_config({"topology.workers": 0})
    with pytest.raises(InvalidTopology, match="must match"):
        topology.with_config({"topology.name": "../x"})
    assert topology.with_config({}).digest() == topology.digest()
    without = topology.with_config({"topology.acker.executors": 0}).plan
    assert without.components["lines"].guarantee == "untracked"


def x(builder: TopologyBuilder) -> BoltDeclarer:
    return builder.set_bolt("x", Count())


Declare = Callable[[TopologyBuilder], object]

BAD: list[tuple[str, Declare, str]] = [
    ("no spout", lambda b: None, "the topology has no spout"),
    ("duplicate id", lambda b: [x(b).all_grouping("lines") for _ in "ab"], "'x' is used twice: by a bolt ("),
    ("reserved id", lambda b: b.set_spout("__acker", Lines()), "the component id '__acker' is reserved"),
    ("empty id", lambda b: b.set_spout("", Lines()), "the component id '' must match"),
    ("id with a slash", lambda b: b.set_spout("a/b", Lines()), "the component id 'a/b' must match"),
    ("id with a newline", lambda b: b.set_spout("a\n", Lines()), "the component id 'a\\n' must match"),
    ("id that looks alike", lambda b: b.set_spout("lineѕ", Lines()), "must match"),
    ("long id", lambda b: b.set_spout("x" * 65, Lines()), "must match"),
    ("id no string", lambda b: b.set_spout(7, Lines()), "the component id 7 must match"),  # type: ignore[arg-type]
    ("unknown source", lambda b: x(b).shuffle_grouping("line"), "no component 'line'. Did you mean 'lines'?"),
    ("unknown far source", lambda b: x(b).shuffle_grouping("zzz"), "no component 'zzz'. Known: 'lines'"),
    ("component as source", lambda b: x(b).shuffle_grouping(Lines()), "no component <"),  # type: ignore[arg-type]
    ("unknown stream", lambda b: x(b).shuffle_grouping("lines", stream="bed"), "no stream 'bed'. Did you mean 'bad'?"),
    (
        "stream of a sink",
        lambda b: (x(b).all_grouping("lines"), b.set_bolt("y", Count()).all_grouping("x")),
        "It emits nothing",
    ),
    (
        "unknown field",
        lambda b: x(b).fields_grouping("lines", ["lime"]),
        "no field 'lime' in stream 'default'. Did you mean 'line'?",
    ),
    ("unknown far field", lambda b: x(b).partial_key_grouping("lines", ["q"]), "Its fields: 'line', 'number'"),
    ("field of another stream", lambda b: x(b).fields_grouping("lines", ["why"]), "no field 'why'"),
    ("str as fields", lambda b: x(b).fields_grouping("lines", "line"), "write ['line']"),
    ("bytes as fields", lambda b: x(b).fields_grouping("lines", b"line"), "write [b'line']"),  # type: ignore[arg-type]
    ("no fields", lambda b: x(b).fields_grouping("lines", []), "needs at least one field"),
    ("set of fields", lambda b: x(b).fields_grouping("lines", {"line"}), "is not a list of field names"),  # type: ignore[arg-type]
    ("field twice", lambda b: x(b).fields_grouping("lines", ["line", "line"]), "more than once"),
    ("direct on plain stream", lambda b: x(b).direct_grouping("lines"), "stream 'default' is not direct"),
    (
        "plain on direct stream",
        lambda b: x(b).all_grouping("lines", stream="to"),
        "which only direct_grouping can read",
    ),
    ("subscribed twice", lambda b: x(b).all_grouping("lines").shuffle_grouping("lines"), "subscribed to twice"),
    ("custom class", lambda b: x(b).custom_grouping("lines", Second), "Second is a class"),  # type: ignore[arg-type]
    ("custom of no kind", lambda b: x(b).custom_grouping("lines", len), "CustomGrouping"),  # type: ignore[arg-type]
    ("custom unpicklable", lambda b: x(b).custom_grouping("lines", Second(threading.Lock())), "'share' (_thread.lock)"),  # type: ignore[arg-type]
    ("no input", lambda b: x(b), "bolt 'x' has no input"),
    (
        "parallelism 0",
        lambda b: b.set_spout("x", Lines(), 0),
        "parallelism must be a whole number from 1 to 10,000, not 0",
    ),
    ("parallelism -1", lambda b: b.set_spout("x", Lines(), -1), "not -1"),
    ("parallelism 1.5", lambda b: b.set_spout("x", Lines(), 1.5), "not 1.5"),  # type: ignore[arg-type]
    ("parallelism '4'", lambda b: b.set_spout("x", Lines(), "4"), "not '4'"),  # type: ignore[arg-type]
    ("parallelism True", lambda b: b.set_spout("x", Lines(), True), "not True"),
    ("parallelism 10**9", lambda b: b.set_spout("x", Lines(), 10**9), "not 1000000000"),
    ("tasks 0", lambda b: b.set_spout("x", Lines(), tasks=0), "tasks must be a whole number"),
    ("tasks '4'", lambda b: b.set_spout("x", Lines(), tasks="4"), "tasks must be a whole number"),  # type: ignore[arg-type]
    ("tasks below parallelism", lambda b: b.set_spout("x", Lines(), 4, tasks=2), "tasks=2 is less than parallelism=4"),
    (
        "too many tasks",
        lambda b: [b.set_bolt(f"x{n}", Count(), 10_000).all_grouping("lines") for n in range(11)],
        "more than 100,000",
    ),
]


@pytest.mark.parametrize(("declare", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_wrong_with_a_topology_is_said_in_one_line(declare: Declare, message: str) -> None:
    builder = TopologyBuilder("t")
    if message != "the topology has no spout":
        builder.set_spout("lines", Lines())
    declare(builder)
    with pytest.raises(InvalidTopology) as caught:
        builder.create_topology()
    assert len(caught.value.problems) == 1, caught.value.problems
    assert message in caught.value.problems[0]
    assert "\n" not in str(caught.value)
    assert "test_builder.py:" in caught.value.problems[0] or "topology has" in caught.value.problems[0]


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "/", "-x", "a b", "a\n", "a\0", "x" * 65, "x" * 300, ";$(x)", "ѡord", None, 7]
)
def test_a_bad_topology_name(name: Any) -> None:
    builder = TopologyBuilder(name)
    builder.set_spout("lines", Lines())
    with pytest.raises(InvalidTopology, match=r"the topology name .* must match"):
        builder.create_topology()


def test_all_problems_are_reported_at_once() -> None:
    builder = TopologyBuilder("../x")
    builder.set_spout("lines", Lines(), 0)
    builder.set_bolt("a", Split()).shuffle_grouping("liens").fields_grouping("lines", ["nope"])
    builder.set_bolt("a", Split()).shuffle_grouping("lines", stream="nope")
    with pytest.raises(InvalidTopology) as caught:
        builder.create_topology()
    assert len(caught.value.problems) == 6
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RainbandError)
    assert caught.value.exit_code == 2


def test_config_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidConfig, match=r"Did you mean 'topology\.workers'"):
        TopologyBuilder("t", config={"topology.wrokers": 2})
    with pytest.raises(InvalidConfig, match="daemons"):
        TopologyBuilder("t", config={"nimbus.port": 2})
    builder = TopologyBuilder("t")
    with pytest.raises(InvalidConfig, match=r"of the whole topology.*config of spout 'lines'"):
        builder.set_spout("lines", Lines(), config={"topology.workers": 2})
    with pytest.raises(InvalidConfig, match="must be a mapping"):
        builder.set_spout("lines", Lines(), config=[1])  # type: ignore[arg-type]


def test_a_topology_wide_interval_is_enough_for_a_tick() -> None:
    builder = TopologyBuilder("t", config={TICK: 5})
    builder.set_spout("lines", Lines())
    builder.set_bolt("ticking", Ticking())
    topology = builder.create_topology()
    with pytest.raises(InvalidTopology, match="no interval"):
        topology.with_config({TICK: None})


def test_a_manual_bolt_is_a_bolt() -> None:
    class Join(ManualBolt):
        def execute(self, tup: Tuple) -> None:
            self.ack(tup)

    builder = TopologyBuilder("t")
    builder.set_spout("lines", Lines())
    builder.set_bolt("join", Join()).shuffle_grouping("lines")
    assert isinstance(builder.create_topology().load("join"), Join)
