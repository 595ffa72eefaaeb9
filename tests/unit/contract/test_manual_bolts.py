"""Anchoring and acking by hand."""

from __future__ import annotations

import pytest

from kit.contract import Sink, Words, one_bolt
from rainband import (
    Bolt,
    FailTuple,
    LocalCluster,
    ManualBolt,
    TopologyBuilder,
    Tuple,
    complete_topology,
)


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


def test_a_tuple_that_was_acked_no_longer_resets_a_timeout() -> None:
    class Parts(ManualBolt):
        """Acks the first half and keeps the second."""

        def __init__(self) -> None:
            self.held: list[Tuple] = []

        def execute(self, tup: Tuple) -> None:
            self.held.append(tup)
            if len(self.held) == 1:
                self.ack(tup)

        def tick(self) -> None:
            self.reset_timeout(self.held[0])

    class Halves(Bolt):
        outputs = ("half",)

        def execute(self, tup: Tuple) -> None:
            self.emit(["first"])
            self.emit(["second"])

    with LocalCluster(virtual_clock=True, record=True) as cluster:
        builder = TopologyBuilder("halves", config={"topology.tick.tuple.freq.secs": 6})
        builder.set_spout("words", Words("a"))
        builder.set_bolt("halves", Halves()).shuffle_grouping("words")
        builder.set_bolt("parts", Parts()).shuffle_grouping("halves")
        running = cluster.submit(builder.create_topology(), config={"topology.message.timeout.secs": 10})
        cluster.advance(12)
        assert list(running.failed("words")) == ["a"]


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
