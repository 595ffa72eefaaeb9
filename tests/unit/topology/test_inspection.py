"""What is refused of a component as soon as it is set, and what is not."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from rainband.errors import EmitRefused, InvalidTopology
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, DirectStream, ManualBolt, ReliableSpout, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.inspection import guarantee_of
from rainband.topology.plan import StreamPlan
from rainband.topology.tuples import Source, Tuple

TICK = "topology.tick.tuple.freq.secs"
# mypy: disable-error-code="override, assignment, return-value, no-any-return, arg-type"


class Good(Bolt):
    def execute(self, tup: Tuple) -> None: ...


class GoodSpout(Spout):
    def next_tuple(self) -> None: ...


def with_attribute(component: Any, **attributes: Any) -> Any:
    vars(component).update(attributes)
    return component


class Yields(Bolt):
    def execute(self, tup: Tuple) -> Iterator[int]:
        yield 1


class YieldsLater(Bolt):
    async def execute(self, tup: Tuple) -> AsyncIterator[int]:
        yield 1


class Returns(Bolt):
    def execute(self, tup: Any) -> list[str]:
        if tup:
            return None
        return tup["line"].split()


class ReturnsName(Bolt):
    def execute(self, tup: Any) -> list[str]:
        words = tup["line"].split()
        return words


class ReturnsField(Bolt):
    def execute(self, tup: Any) -> Any:
        return tup["line"]


class ReturnsTuple(Bolt):
    def execute(self, tup: Any) -> Any:
        return tup


class ReturnsLater(Bolt):
    async def execute(self, tup: Any) -> list[str]:
        return [tup["line"]]


class SpoutReturns(Spout):
    def next_tuple(self) -> tuple[str]:
        return ("a",)


class SpoutYields(Spout):
    def next_tuple(self) -> Iterator[str]:
        yield "a"


class OpensNever(Spout):
    def open(self, context: TopologyContext) -> Iterator[int]:
        yield 1

    def next_tuple(self) -> None: ...


class NoExecute(Bolt):
    def exectue(self, tup: Tuple) -> None: ...


class NoNext(Spout): ...


class NoArgument(Bolt):
    def execute(self) -> None: ...


class TwoArguments(Bolt):
    def execute(self, tup: Tuple, more: int) -> None: ...


class PreparesWithConfig(Good):
    def prepare(self, config: object, context: object) -> None: ...


class OwnEmit(Good):
    def emit(self, values: object) -> None: ...


class OwnAck(ManualBolt):
    ack = 0

    def execute(self, tup: Tuple) -> None: ...


class OwnFinish(GoodSpout):
    finish = False


class TickNumber(Good):
    tick = 5


class Ticks(Good):
    def tick(self) -> None: ...


class BlockingAndAsync(Bolt):
    blocking = True

    async def execute(self, tup: Tuple) -> None: ...


class PositionOnly(ReliableSpout):
    def next_tuple(self) -> None: ...

    def position(self) -> int:
        return 0


class OwnDeadLetters(ReliableSpout):
    outputs = {"dead_letters": ("a",)}

    def next_tuple(self) -> None: ...


REFUSED: list[tuple[str, Any, str]] = [
    ("a class", Good, "Good is a class, not an instance: write Good(...)"),
    ("a bolt as spout", GoodSpout(), "GoodSpout is a spout: use set_spout"),
    ("a function", len, "is no bolt: pass an instance of a subclass of Bolt or ManualBolt"),
    ("None", None, "None is no bolt"),
    ("no execute", NoExecute(), "NoExecute has no execute: define execute(self, tup)"),
    ("execute that yields", Yields(), "execute() yields: call self.emit([...]) for each"),
    ("async execute that yields", YieldsLater(), "execute() yields"),
    ("execute that returns", Returns(), "execute() returns a value, which nobody would get"),
    ("execute that returns a name", ReturnsName(), "execute() returns a value"),
    ("execute that returns a field", ReturnsField(), "execute() returns a value"),
    ("execute that returns its tuple", ReturnsTuple(), "execute() returns a value"),
    ("async execute that returns", ReturnsLater(), "execute() returns a value"),
    ("execute without argument", NoArgument(), "define execute(self, tup)"),
    ("execute with two arguments", TwoArguments(), "define execute(self, tup)"),
    ("prepare of another system", PreparesWithConfig(), "define prepare(self, context)"),
    ("emit in the class", OwnEmit(), "its attribute 'emit' hides the emit() of the runtime"),
    ("emit on the instance", with_attribute(Good(), emit=1), "its attribute 'emit' hides the emit() of the runtime"),
    ("ack in the class", OwnAck(), "its attribute 'ack' hides the ack() of the runtime"),
    ("execute on the instance", with_attribute(Good(), execute=None), "its attribute 'execute' hides the callback"),
    ("tick as a number", TickNumber(), "its attribute 'tick' hides the callback tick()"),
    ("tick without interval", Ticks(), f"it has tick() but no interval: set config={{'{TICK}': 10}}"),
    ("blocking and async", BlockingAndAsync(), "execute() is async but the class says blocking = True"),
    ("blocking as a word", with_attribute(Good(), blocking="yes"), "blocking is 'yes': write True or False"),
    ("max_in_flight 0", with_attribute(Good(), max_in_flight=0), "max_in_flight is 0"),
    ("lock", with_attribute(Good(), lock=threading.Lock()), "its attribute 'lock' (_thread.lock) does not pickle"),
    ("deep lock", with_attribute(Good(), a={"b": [threading.Lock()]}), "its attribute 'a['b'][0]' (_thread.lock)"),
    ("generator", with_attribute(Good(), rows=(n for n in "ab")), "'rows' (generator) does not pickle"),
    ("str outputs", with_attribute(Good(), outputs="word"), "outputs is the str 'word', not a sequence of names"),
    ("bytes outputs", with_attribute(Good(), outputs=b"word"), "outputs is the bytes b'word'"),
    ("str in outputs", with_attribute(Good(), outputs={"a": "word"}), "outputs['a'] is the str 'word'"),
    ("set outputs", with_attribute(Good(), outputs={"word"}), "outputs is a set: write a tuple"),
    ("None outputs", with_attribute(Good(), outputs=None), "outputs is a NoneType: write a tuple"),
    ("field twice", with_attribute(Good(), outputs=("a", "a")), "outputs has the field 'a' more than once"),
    ("field no str", with_attribute(Good(), outputs=("a", 1)), "outputs has the field 1"),
    ("field reserved", with_attribute(Good(), outputs=("__a",)), "outputs has the field '__a'"),
    ("field empty", with_attribute(Good(), outputs=("",)), "outputs has the field ''"),
    ("stream reserved", with_attribute(Good(), outputs={"__acks": ("a",)}), "outputs has the stream '__acks'"),
    ("stream no str", with_attribute(Good(), outputs={1: ("a",)}), "outputs has the stream 1"),
    ("nested direct", with_attribute(Good(), outputs=DirectStream(*[("a", "b")])), "outputs has the field ('a', 'b')"),
]

REFUSED_SPOUTS: list[tuple[str, Any, str]] = [
    ("a class", GoodSpout, "GoodSpout is a class"),
    ("a spout as bolt", Good(), "Good is a bolt: use set_bolt"),
    ("no next_tuple", NoNext(), "NoNext has no next_tuple"),
    ("next_tuple that returns", SpoutReturns(), "next_tuple() returns a value"),
    ("next_tuple that yields", SpoutYields(), "next_tuple() yields"),
    ("open that yields", OpensNever(), "open() yields: it would never run"),
    ("finish in the class", OwnFinish(), "its attribute 'finish' hides the finish() of the runtime"),
    ("ack on the instance", with_attribute(GoodSpout(), ack=3), "its attribute 'ack' hides the callback ack()"),
    ("position without seek", PositionOnly(), "PositionOnly has position() but no seek()"),
    ("own dead letters", OwnDeadLetters(), "'dead_letters', which a ReliableSpout has already"),
]


@pytest.mark.parametrize(("component", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_bolt_is_refused_with_the_fix(component: Any, message: str) -> None:
    builder = TopologyBuilder("t")
    with pytest.raises(InvalidTopology) as caught:
        builder.set_bolt("x", component)
    assert len(caught.value.problems) == 1, caught.value.problems
    assert caught.value.problems[0].startswith("bolt 'x': ")
    assert message in caught.value.problems[0]
    assert "test_inspection.py:" in caught.value.problems[0]
    with pytest.raises(InvalidTopology, match="no spout"):
        builder.create_topology()


@pytest.mark.parametrize(
    ("component", "message"), [row[1:] for row in REFUSED_SPOUTS], ids=[row[0] for row in REFUSED_SPOUTS]
)
def test_a_spout_is_refused_with_the_fix(component: Any, message: str) -> None:
    with pytest.raises(InvalidTopology) as caught:
        TopologyBuilder("t").set_spout("x", component)
    assert len(caught.value.problems) == 1, caught.value.problems
    assert message in caught.value.problems[0]


@pytest.mark.parametrize(
    ("name", "value"), [("max_retries", -1), ("max_retries", 1.5), ("retry_delay_s", -1), ("retry_delay_max_s", "1")]
)
def test_settings_of_a_reliable_spout(name: str, value: object) -> None:
    class Retries(ReliableSpout):
        def next_tuple(self) -> None: ...

    with pytest.raises(InvalidTopology, match=f"{name} is"):
        TopologyBuilder("t").set_spout("x", with_attribute(Retries(), **{name: value}))


def test_an_interval_without_a_tick_is_refused() -> None:
    with pytest.raises(InvalidTopology, match=r"define tick\(self\)"):
        TopologyBuilder("t").set_bolt("x", Good(), config={TICK: 1})
    with pytest.raises(InvalidTopology, match="only bolts tick"):
        TopologyBuilder("t").set_spout("x", GoodSpout(), config={TICK: 1})


def test_all_problems_of_a_component_are_reported_at_once() -> None:
    component = with_attribute(Returns(), outputs="word", lock=threading.Lock(), emit=1)
    with pytest.raises(InvalidTopology) as caught:
        TopologyBuilder("t").set_bolt("x", component)
    assert len(caught.value.problems) == 4


class Delegates(Bolt):
    """Every return here may well be None."""

    outputs = ("a",)

    def execute(self, tup: Tuple) -> Any:
        if not tup:
            return
        if tup[0] == 1:
            return None
        if tup[0] == 2:
            return self.emit([1])

        def numbers() -> Iterator[int]:
            yield 1

        return self.helper(list(numbers())) if tup else print()

    def helper(self, values: object) -> None: ...

    def other(self) -> int:
        return 1


class Later(Bolt):
    async def prepare(self, context: TopologyContext) -> None: ...

    async def execute(self, tup: Tuple) -> None:
        return await self.helper()

    async def helper(self) -> None: ...


def counted(function: Any) -> Any:
    def wrapper(*arguments: Any) -> Any:
        result = function(*arguments)
        return result

    return wrapper


def kept(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(self: Any, tup: Tuple) -> Any:
        self.last = function(self, tup)
        return self.last

    return wrapper


class Counted(Bolt):
    @counted
    def execute(self, tup: Tuple) -> None: ...


class Kept(Bolt):
    @kept
    def execute(self, tup: Tuple) -> None: ...


class Unknown(Bolt):
    """What these names hold may well be None."""

    last: object = None

    def execute(self, tup: Tuple) -> Any:
        nothing = None
        if tup[0] == 1:
            return nothing
        if tup[0] == 2:
            words = tup[0].split()
            words = None
            return words
        if tup[0] == 3:
            more = [tup[0]]
            return more.append(1)
        for each in [None]:
            return each
        return self.last


class Batches(Bolt):
    def execute_batch(self, tups: object) -> None: ...


@dataclass
class Data(Bolt):
    limit: int
    seen: list[int] = field(default_factory=list)
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None: ...


class PerInstance(Good):
    def __init__(self, *names: str) -> None:
        self.outputs = names
        self.key = lambda value: value


class Child(Delegates):
    def fail(self, tup: Tuple) -> None:
        """No name of the runtime in a plain bolt."""

    def ack(self, tup: Tuple) -> None: ...


class Static(Bolt):
    @staticmethod
    def execute(tup: Tuple) -> None: ...


UNKNOWN = [Delegates(), Counted(), Kept(), Unknown()]
ACCEPTED = [Good(), *UNKNOWN, Later(), Batches(), Data(3), PerInstance("a", "b"), Child(), Static()]


@pytest.mark.parametrize("component", ACCEPTED, ids=lambda component: type(component).__name__)
def test_what_may_be_right_is_accepted(component: Bolt) -> None:
    builder = TopologyBuilder("t")
    builder.set_spout("s", GoodSpout())
    builder.set_bolt("x", component)


def test_classes_made_in_a_function_are_accepted_and_copied_as_they_are() -> None:
    seen: list[object] = []

    class Sink(Bolt):
        def execute(self, tup: Tuple) -> None:
            seen.append(tup)

    builder = TopologyBuilder("t", config={TICK: 1})
    builder.set_spout("s", with_attribute(GoodSpout(), outputs=("a",)))
    builder.set_bolt("sink", Sink()).shuffle_grouping("s")
    copy = builder.create_topology().load("sink")
    assert type(copy) is Sink
    tup = Tuple((1,), Source("s", "default", 1, ("a",)))
    copy.execute(tup)
    assert seen == [tup]


def test_outputs_set_in_init_reach_the_plan() -> None:
    builder = TopologyBuilder("t")
    builder.set_spout("s", with_attribute(GoodSpout(), outputs=["a"]))
    builder.set_bolt("x", PerInstance("b", "c")).shuffle_grouping("s")
    assert builder.create_topology().plan.components["x"].streams == {"default": StreamPlan(("b", "c"))}


@pytest.mark.parametrize(
    ("component", "call"),
    [
        (GoodSpout(), lambda c: c.emit(["a"], message_id=1)),
        (GoodSpout(), lambda c: c.finish()),
        (Good(), lambda c: c.emit(["a"])),
        (Good(), lambda c: c.emit_direct(1, ["a"])),
        (Good(), lambda c: c.emit_many([["a"]])),
        (Static(), lambda c: c.emit(["a"], stream="x")),
    ],
)
def test_nothing_is_emitted_before_the_runtime_is_there(component: Any, call: Any) -> None:
    with pytest.raises(EmitRefused, match="not running"):
        call(component)


def test_what_a_spout_promises() -> None:
    class Untracked(Spout):
        def next_tuple(self) -> None:
            self.emit([1], message_id=None)

    class Mixed(Untracked):
        def next_tuple(self) -> None:
            self.emit([1], message_id=7)

        def helper(self) -> None:
            self.emit([1], message_id=None)

    class Own(Mixed):
        def fail(self, message_id: Any) -> None: ...

    assert guarantee_of(Untracked()) == "untracked"
    assert guarantee_of(Mixed()) == "reports only"
    assert guarantee_of(Own()) == "own fail()"
    assert guarantee_of(PositionOnly()) == "replays"
    assert guarantee_of(GoodSpout()) == "reports only"
