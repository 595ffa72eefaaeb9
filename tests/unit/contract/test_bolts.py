"""What a bolt's author may rely on: automatic acking and failing, the tuple, ticks, batches, classes of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from kit.contract import Sink, Words, one_bolt
from rainband import (
    Bolt,
    FailTuple,
    InvalidTopology,
    LocalCluster,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    UnknownField,
    complete_topology,
    run_bolt,
)


def test_a_tuple_is_acked_on_return_and_failed_by_a_raise() -> None:
    class Picky(Bolt):
        def execute(self, tup: Tuple) -> None:
            if tup["word"] == "bad":
                raise ValueError("no bad words")

    result = complete_topology(one_bolt(Picky(), "good", "bad"), raise_errors=False)
    assert list(result.acked("words")) == ["good"]
    assert list(result.failed("words")) == ["bad"]
    (error,) = result.errors("bolt")
    assert "no bad words" in str(error)


def test_emits_are_anchored_so_a_failure_further_down_fails_the_root() -> None:
    class Pass(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit([tup["word"]])

    class Refuse(Bolt):
        def execute(self, tup: Tuple) -> None:
            if tup["word"] == "b":
                raise FailTuple("b")

    builder = TopologyBuilder("deep")
    builder.set_spout("words", Words("a", "b"))
    builder.set_bolt("pass", Pass()).shuffle_grouping("words")
    builder.set_bolt("refuse", Refuse()).shuffle_grouping("pass")
    result = complete_topology(builder.create_topology())
    assert (list(result.acked("words")), list(result.failed("words"))) == (["a"], ["b"])


def test_emit_returns_task_ids_and_copies_a_list() -> None:
    class Reuse(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            row = [tup["word"]]
            tasks = self.emit(row)
            assert isinstance(tasks, tuple)
            assert len(tasks) == 1
            assert isinstance(tasks[0], int)
            row[0] = "changed after emit"

    result = complete_topology(one_bolt(Reuse(), "a", "b", sink=True), raise_errors=True)
    assert sorted(result.executed("sink")) == [("a",), ("b",)]


def test_the_tuple() -> None:
    class Look(Bolt):
        def execute(self, tup: Tuple) -> None:
            assert tup["word"] == tup[0] == "a"
            (word,) = tup
            assert word == "a"
            assert tup.values == ("a",)
            assert tup.fields == ("word",)
            assert tup.component == "words"
            assert tup.stream == "default"
            assert isinstance(tup.task, int)
            with pytest.raises(KeyError):
                tup["wrd"]
            with pytest.raises(UnknownField, match="word") as caught:
                tup["wrd"]
            assert "did you mean" in str(caught.value).lower()
            with pytest.raises(IndexError):
                tup[1]

    result = complete_topology(one_bolt(Look(), "a"), raise_errors=True)
    assert list(result.acked("words")) == ["a"]


def test_a_plain_bolt_has_no_ack_fail_or_anchors_to_get_wrong() -> None:
    assert not hasattr(Bolt, "ack")
    assert not hasattr(Bolt, "fail")
    assert not hasattr(Bolt, "reset_timeout")


def test_ticks_come_at_the_interval_and_their_emits_are_unanchored() -> None:
    class Counts(Bolt):
        outputs = ("ticks",)

        def prepare(self, context: TopologyContext) -> None:
            self.ticks = 0

        def execute(self, tup: Tuple) -> None:
            pass

        def tick(self) -> None:
            self.ticks += 1
            self.emit([self.ticks])

    with LocalCluster(virtual_clock=True, record=True) as cluster:
        topology = one_bolt(Counts(), config={"topology.tick.tuple.freq.secs": 10})
        running = cluster.submit(topology)
        cluster.advance(35)
        assert list(running.emitted("bolt")) == [(1,), (2,), (3,)]


def test_tick_without_interval_and_interval_without_tick_are_refused() -> None:
    class Ticks(Bolt):
        def execute(self, tup: Tuple) -> None:
            pass

        def tick(self) -> None:
            pass

    with pytest.raises(InvalidTopology, match=r"topology\.tick\.tuple\.freq\.secs"):
        one_bolt(Ticks())
    with pytest.raises(InvalidTopology, match="tick"):
        one_bolt(Sink(), config={"topology.tick.tuple.freq.secs": 10})


def test_the_interval_may_come_from_the_topology() -> None:
    class Ticks(Bolt):
        def execute(self, tup: Tuple) -> None:
            pass

        def tick(self) -> None:
            pass

    builder = TopologyBuilder("ticking", config={"topology.tick.tuple.freq.secs": 1})
    builder.set_spout("words", Words("a"))
    builder.set_bolt("ticks", Ticks()).shuffle_grouping("words")
    builder.set_bolt("sink", Sink()).shuffle_grouping("words")
    builder.create_topology()


def test_execute_batch_may_replace_execute_and_emit_many_a_loop_of_emits() -> None:
    class Upper(Bolt):
        outputs = ("word",)

        def execute_batch(self, tups: Sequence[Tuple]) -> None:
            assert len(tups) >= 1
            self.emit_many([[tup["word"].upper()] for tup in tups])

    class UpperNamed(Bolt):
        outputs = {"out": ("word",)}

        def execute_batch(self, tups: Sequence[Tuple]) -> None:
            self.emit_many([(tup["word"].upper(),) for tup in tups], stream="out")

    result = complete_topology(one_bolt(Upper(), "a", "b", "c", sink=True), raise_errors=True)
    assert sorted(result.executed("sink")) == [("A",), ("B",), ("C",)]
    assert sorted(result.acked("words")) == ["a", "b", "c"]
    builder = TopologyBuilder("named")
    builder.set_spout("words", Words("a"))
    builder.set_bolt("bolt", UpperNamed()).shuffle_grouping("words")
    builder.set_bolt("sink", Sink()).shuffle_grouping("bolt", stream="out")
    assert complete_topology(builder.create_topology()).executed("sink") == [("A",)]


def test_a_raise_in_execute_batch_fails_the_batch() -> None:
    class Refuse(Bolt):
        def execute_batch(self, tups: Sequence[Tuple]) -> None:
            raise FailTuple("all")

    result = complete_topology(one_bolt(Refuse(), "a", "b"))
    assert sorted(result.failed("words")) == ["a", "b"]


def test_emit_many_in_execute_is_anchored() -> None:
    class Letters(Bolt):
        outputs = ("letter",)

        def execute(self, tup: Tuple) -> None:
            self.emit_many([[letter] for letter in tup["word"]])

    class Refuse(Bolt):
        def execute(self, tup: Tuple) -> None:
            if tup[0] == "x":
                raise FailTuple("x")

    builder = TopologyBuilder("letters")
    builder.set_spout("words", Words("ab", "xy"))
    builder.set_bolt("letters", Letters()).shuffle_grouping("words")
    builder.set_bolt("refuse", Refuse()).shuffle_grouping("letters")
    result = complete_topology(builder.create_topology())
    assert (list(result.acked("words")), list(result.failed("words"))) == (["ab"], ["xy"])


@dataclass
class Suffix(Bolt):
    suffix: str = "!"
    seen: list[str] = field(default_factory=list)
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup["word"])
        self.emit([tup["word"] + self.suffix])


class Slotted(Bolt):
    __slots__ = ("suffix",)
    outputs = ("word",)

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["word"] + self.suffix])


@dataclass(frozen=True, slots=True)
class Frozen(Bolt):
    suffix: str

    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["word"] + self.suffix])


@pytest.mark.parametrize("bolt", [Suffix("?"), Slotted("?"), Frozen("?")], ids=lambda bolt: type(bolt).__name__)
def test_dataclasses_and_slots_work(bolt: Bolt) -> None:
    result = complete_topology(one_bolt(bolt, "a", "b", sink=True), raise_errors=True)
    assert sorted(result.executed("sink")) == [("a?",), ("b?",)]
    assert sorted(run_bolt(bolt, [["x"]], fields=["word"])) == [("x?",)]


def test_outputs_may_be_set_per_instance() -> None:
    class Flexible(Bolt):
        def __init__(self, *fields: str) -> None:
            self.outputs = fields
            self.width = len(fields)

        def execute(self, tup: Tuple) -> None:
            self.emit([tup["word"]] * self.width)

    builder = TopologyBuilder("flexible")
    builder.set_spout("words", Words("a"))
    builder.set_bolt("one", Flexible("x")).shuffle_grouping("words")
    builder.set_bolt("two", Flexible("x", "y")).shuffle_grouping("words")
    result = complete_topology(builder.create_topology())
    assert (result.emitted("one"), result.emitted("two")) == ([("a",)], [("a", "a")])
