"""What a bolt's author may rely on: automatic acking, failing, acking by hand, ticks, batches, refused emits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from rainband import (
    Bolt,
    DirectStream,
    EmitRefused,
    FailTuple,
    InvalidTopology,
    LocalCluster,
    ManualBolt,
    Spout,
    Topology,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    UnknownField,
    complete_topology,
    run_bolt,
)


class Words(Spout):
    outputs = ("word",)

    def __init__(self, *words: Any) -> None:
        self.words = list(words)

    def next_tuple(self) -> None:
        if self.words:
            word = self.words.pop(0)
            self.emit([word], message_id=word)
        else:
            self.finish()


class Sink(Bolt):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup.values)


def one_bolt(bolt: Any, *words: Any, config: dict[str, Any] | None = None, sink: bool = False) -> Topology:
    builder = TopologyBuilder("one-bolt")
    builder.set_spout("words", Words(*(words or ("a", "b"))))
    builder.set_bolt("bolt", bolt, config=config).shuffle_grouping("words")
    if sink:
        builder.set_bolt("sink", Sink()).shuffle_grouping("bolt")
    return builder.create_topology()


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


class Pairs(ManualBolt):
    """Joins two tuples into one, anchored to both."""

    outputs = ("first", "second")

    def __init__(self) -> None:
        self.held: list[Tuple] = []

    def execute(self, tup: Tuple) -> None:
        self.held.append(tup)
        if len(self.held) == 2:
            self.emit([self.held[0]["word"], self.held[1]["word"]], anchors=self.held)
            for each in self.held:
                self.ack(each)
            self.held = []


def test_a_manual_bolt_anchors_to_several_tuples() -> None:
    result = complete_topology(one_bolt(Pairs(), "a", "b", "c", "d", sink=True))
    assert list(result.executed("sink")) == [("a", "b"), ("c", "d")]
    assert sorted(result.acked("words")) == ["a", "b", "c", "d"]


def test_a_failure_of_a_joined_tuple_fails_all_its_roots() -> None:
    class Refuse(Bolt):
        def execute(self, tup: Tuple) -> None:
            raise FailTuple("no")

    builder = TopologyBuilder("joined")
    builder.set_spout("words", Words("a", "b"))
    builder.set_bolt("bolt", Pairs()).shuffle_grouping("words")
    builder.set_bolt("refuse", Refuse()).shuffle_grouping("bolt")
    result = complete_topology(builder.create_topology())
    assert sorted(result.failed("words")) == ["a", "b"]


def test_what_a_manual_bolt_never_acks_times_out() -> None:
    class Keeps(ManualBolt):
        def execute(self, tup: Tuple) -> None:
            pass

    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(one_bolt(Keeps(), "a"), config={"topology.message.timeout.secs": 10})
        cluster.advance(9.9)
        assert list(running.failed("words")) == []
        cluster.advance(1.2)
        assert list(running.failed("words")) == ["a"], "within T and 1.1 T"


def test_reset_timeout_gives_the_tree_its_time_again() -> None:
    class Slow(ManualBolt):
        def __init__(self) -> None:
            self.held: list[Tuple] = []
            self.ticks = 0

        def execute(self, tup: Tuple) -> None:
            self.held.append(tup)

        def tick(self) -> None:
            self.ticks += 1
            if self.ticks < 5:
                for tup in self.held:
                    self.reset_timeout(tup)
            else:
                for tup in self.held:
                    self.ack(tup)
                self.held = []

    with LocalCluster(virtual_clock=True, record=True) as cluster:
        topology = one_bolt(Slow(), "a", config={"topology.tick.tuple.freq.secs": 6})
        running = cluster.submit(topology, config={"topology.message.timeout.secs": 10})
        cluster.advance(40)
        assert (list(running.acked("words")), list(running.failed("words"))) == (["a"], [])


def test_a_manual_bolt_fails_by_hand_and_by_a_raise_if_still_open() -> None:
    class Choosy(ManualBolt):
        def execute(self, tup: Tuple) -> None:
            if tup["word"] == "by-hand":
                self.fail(tup)
            elif tup["word"] == "by-raise":
                raise FailTuple("open still")
            else:
                self.ack(tup)
                raise FailTuple("acked already: the raise does not undo it")

    result = complete_topology(one_bolt(Choosy(), "by-hand", "by-raise", "acked"))
    assert sorted(result.failed("words")) == ["by-hand", "by-raise"]
    assert list(result.acked("words")) == ["acked"]


def test_a_second_ack_is_ignored_and_counted() -> None:
    class Twice(ManualBolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit([tup["word"]], anchors=[tup])
            self.ack(tup)
            self.ack(tup)
            self.fail(tup)

    builder = TopologyBuilder("twice")
    builder.set_spout("words", Words("a", "b"))
    builder.set_bolt("bolt", Twice()).shuffle_grouping("words")
    builder.set_bolt("sink", Sink()).shuffle_grouping("bolt")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        running.wait_drained(timeout_s=60)
        assert sorted(running.acked("words")) == ["a", "b"]
        assert list(running.failed("words")) == []
        tasks = [count for beat in running.statistics().workers for count in beat.tasks]
        assert sum(count.second_acks for count in tasks if count.component == "bolt") >= 2


def test_a_manual_bolt_must_say_its_anchors() -> None:
    class Forgets(ManualBolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit([tup["word"]])  # type: ignore[call-arg]

    with pytest.raises(Exception, match="anchors") as caught:
        complete_topology(one_bolt(Forgets()), raise_errors=True)
    assert "()" in str(caught.value)


def test_empty_anchors_are_unanchored_on_purpose() -> None:
    class Unanchored(ManualBolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit([tup["word"]], anchors=())
            self.ack(tup)

    class Refuse(Bolt):
        def execute(self, tup: Tuple) -> None:
            raise FailTuple("nobody hears")

    builder = TopologyBuilder("unanchored")
    builder.set_spout("words", Words("a"))
    builder.set_bolt("bolt", Unanchored()).shuffle_grouping("words")
    builder.set_bolt("refuse", Refuse()).shuffle_grouping("bolt")
    result = complete_topology(builder.create_topology())
    assert (list(result.acked("words")), list(result.failed("words"))) == (["a"], [])


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


class InInit(Bolt):
    outputs = ("word",)

    def __init__(self) -> None:
        self.emit(["too early"])

    def execute(self, tup: Tuple) -> None:
        pass


class InPrepare(Bolt):
    outputs = ("word",)

    def prepare(self, context: TopologyContext) -> None:
        self.emit(["too early"])

    def execute(self, tup: Tuple) -> None:
        pass


class InOpen(Spout):
    outputs = ("word",)

    def open(self, context: TopologyContext) -> None:
        self.emit(["too early"], message_id=1)

    def next_tuple(self) -> None:
        self.finish()


def test_an_emit_in_init_is_refused_with_the_fix() -> None:
    with pytest.raises(EmitRefused) as caught:
        InInit()
    assert "__init__" in str(caught.value) or "execute" in str(caught.value)


def test_an_emit_in_prepare_and_open_is_refused_with_the_fix() -> None:
    with pytest.raises(EmitRefused, match="prepare"):
        complete_topology(one_bolt(InPrepare()), raise_errors=True)
    builder = TopologyBuilder("early")
    builder.set_spout("words", InOpen())
    with pytest.raises(EmitRefused, match="open"):
        complete_topology(builder.create_topology(), raise_errors=True)


def test_an_emit_in_cleanup_is_refused() -> None:
    caught: list[BaseException] = []

    class InCleanup(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            pass

        def cleanup(self) -> None:
            try:
                self.emit(["too late"])
            except EmitRefused as error:
                reports.append(str(error))
                raise

    reports: list[str] = Reports.texts
    reports.clear()
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(one_bolt(InCleanup()))
        cluster.advance(1)
        running.kill(wait_s=0)
        cluster.advance(1)
    assert len(Reports.texts) == 1
    assert "cleanup" in Reports.texts[0]
    assert not caught


class Reports:
    """Where components of this file leave what they saw: they run in this process."""

    texts: list[str] = []


class FromAThread(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        thread = threading.Thread(target=self.work)
        thread.start()
        thread.join()

    def work(self) -> None:
        try:
            self.emit(["from elsewhere"])
        except EmitRefused as error:
            Reports.texts.append(str(error))


def test_an_emit_from_another_thread_is_refused() -> None:
    Reports.texts.clear()
    complete_topology(one_bolt(FromAThread(), "a"))
    assert len(Reports.texts) == 1
    assert "thread" in Reports.texts[0]


class Keep(Bolt):
    """Leaves its emit where a stranger may call it after the call returned."""

    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        pass


def test_an_emit_after_the_call_returned_is_refused() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(one_bolt(Keep(), "a"))
        cluster.advance(1)
        (bolt,) = running.instances("bolt")
        with pytest.raises(EmitRefused):
            bolt.emit(["late"])


@pytest.mark.parametrize("values", ["word", b"word"])
def test_a_bare_string_as_values_is_refused(values: Any) -> None:
    class Bare(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit(values)

    with pytest.raises(Exception, match=r"\[") as caught:
        complete_topology(one_bolt(Bare(), "a"), raise_errors=True)
    assert "write [" in str(caught.value)


def test_wrong_number_of_values_says_which_fields() -> None:
    class Two(Bolt):
        outputs = ("word", "n")

        def execute(self, tup: Tuple) -> None:
            self.emit(["a"])

    with pytest.raises(EmitRefused, match="n") as caught:
        complete_topology(one_bolt(Two(), "a"), raise_errors=True)
    assert "word" in str(caught.value)


def test_an_undeclared_stream_is_refused() -> None:
    class Undeclared(Bolt):
        outputs = {"good": ("word",)}

        def execute(self, tup: Tuple) -> None:
            self.emit(["a"], stream="god")

    with pytest.raises(EmitRefused, match="god") as caught:
        complete_topology(one_bolt(Undeclared(), "a"), raise_errors=True)
    assert "good" in str(caught.value)


def test_a_value_that_cannot_travel_is_refused_naming_everything() -> None:
    class Strange(Bolt):
        outputs = ("word", "thing")

        def execute(self, tup: Tuple) -> None:
            self.emit(["a", object()])

    with pytest.raises(Exception, match="thing") as caught:
        complete_topology(one_bolt(Strange(), "a"), raise_errors=True)
    text = str(caught.value)
    assert "bolt" in text
    assert "default" in text
    assert "object" in text


def test_emit_on_a_direct_stream_and_emit_direct_on_another_are_refused() -> None:
    class Wrong(Bolt):
        outputs = {"to": DirectStream("word"), "default": ("word",)}

        def execute(self, tup: Tuple) -> None:
            if tup["word"] == "a":
                self.emit(["a"], stream="to")
            else:
                self.emit_direct(1, ["a"])

    with pytest.raises(EmitRefused, match="emit_direct"):
        complete_topology(one_bolt(Wrong(), "a"), raise_errors=True)
    with pytest.raises(EmitRefused):
        complete_topology(one_bolt(Wrong(), "b"), raise_errors=True)


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


def test_a_raise_in_next_tuple_is_recorded_and_the_spout_pauses() -> None:
    class Stumbles(Spout):
        outputs = ("n",)

        def __init__(self) -> None:
            self.calls = 0

        def next_tuple(self) -> None:
            self.calls += 1
            if self.calls <= 2:
                raise RuntimeError("not yet")
            self.finish()

    builder = TopologyBuilder("stumbles")
    builder.set_spout("numbers", Stumbles())
    with LocalCluster(virtual_clock=True, raise_errors=False) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(0.9)
        (spout,) = running.instances("numbers")
        assert spout.calls == 1
        cluster.advance(1)
        assert spout.calls == 2
        cluster.advance(1)
        assert spout.calls == 2, "the pause doubles"
        cluster.advance(1.2)
        assert spout.calls >= 3
        assert len(running.errors("numbers")) >= 1
