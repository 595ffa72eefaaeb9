"""complete_topology: what a user writes in a test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.parts import Numbers, Pairs, Pass, Poison, ReliableNumbers, Sink
from rainband import (
    Bolt,
    FailTuple,
    InvalidTopology,
    ManualBolt,
    NotReached,
    Spout,
    Topology,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    UsageError,
    complete_topology,
)


class Lines(Spout):
    """Never read in these tests."""

    outputs = {"default": ("line",), "bad": ("line", "why")}

    def next_tuple(self) -> None:
        raise AssertionError("a source was given")


class Split(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        line = tup["line"]
        assert isinstance(line, str)
        for word in line.split():
            self.emit([word])


class Count(Bolt):
    outputs = ("word", "count")

    def prepare(self, context: TopologyContext) -> None:
        self.counts: dict[object, int] = {}
        self.closed = False

    def execute(self, tup: Tuple) -> None:
        word = tup["word"]
        self.counts[word] = self.counts.get(word, 0) + 1
        self.emit([word, self.counts[word]])

    def cleanup(self) -> None:
        self.closed = True


class Grumbles(Bolt):
    """Fails every tuple, quietly."""

    def execute(self, tup: Tuple) -> None:
        raise FailTuple("not today")


class Holds(ManualBolt):
    """Forgets to ack."""

    def execute(self, tup: Tuple) -> None: ...


class Silent(Spout):
    """Has nothing to say and never finishes."""

    outputs = ("n",)

    def next_tuple(self) -> None: ...


class Waits(Silent):
    """Waits all the time for something to say that never comes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def next_tuple(self) -> None:  # type: ignore[override]
        await asyncio.sleep(self.seconds)


class Takes(Waits):
    """Waits before each of three."""

    def open(self, context: TopologyContext) -> None:
        self.n = 0

    async def next_tuple(self) -> None:  # type: ignore[override]
        await asyncio.sleep(self.seconds)
        self.n += 1
        self.emit([self.n], message_id=self.n)
        if self.n == 3:
            self.finish()


class Babbles(Spout):
    """Always has something to say."""

    outputs = ("n",)

    def next_tuple(self) -> None:
        self.emit([1], message_id=None)


class Untidy(Count):
    def cleanup(self) -> None:
        raise OSError("disk full")


def word_count(workers: int = 1) -> Topology:
    builder = TopologyBuilder("word-count", config={"topology.workers": workers})
    builder.set_spout("lines", Lines())
    builder.set_bolt("split", Split(), parallelism=2).shuffle_grouping("lines")
    builder.set_bolt("count", Count(), parallelism=2).fields_grouping("split", ["word"])
    return builder.create_topology()


def one(spout: Spout, bolt: Bolt, **config: object) -> Topology:
    builder = TopologyBuilder("one", config=config)
    builder.set_spout("spout", spout)
    builder.set_bolt("bolt", bolt).shuffle_grouping("spout")
    return builder.create_topology()


def test_what_every_component_did() -> None:
    result = complete_topology(word_count(), sources={"lines": [["a b"], ["a"]]})
    assert result.emitted("lines") == [("a b",), ("a",)]
    assert result.emitted("split") == [("a",), ("b",), ("a",)]
    assert sorted(result.executed("count"), key=repr) == [("a",), ("a",), ("b",)]
    assert result.acked("lines") == [0, 1]
    assert result.failed("lines") == []
    assert result.acked("split") == [("a b",), ("a",)]
    assert result.errors("split") == ()
    assert result.drained
    assert result.statistics.acked == 2
    assert result.seconds < 0.1


def test_the_instances_can_be_looked_at() -> None:
    result = complete_topology(word_count(), sources={"lines": [["a b"], ["a"]]})
    counts: dict[object, int] = {}
    for bolt in result.instances("count"):
        assert isinstance(bolt, Count)
        assert bolt.closed
        counts |= bolt.counts
    assert counts == {"a": 2, "b": 1}
    assert len(result.instances("split")) == 2


@pytest.mark.parametrize("workers", [2, 4, 40])
def test_on_several_workers(workers: int) -> None:
    rows = [[f"{n % 7} {n % 11}"] for n in range(50)]
    result = complete_topology(word_count(), sources={"lines": rows}, config={"topology.workers": workers})
    assert sorted(result.acked("lines")) == list(range(50))
    assert len(result.executed("count")) == 100
    assert max(count for _, count in result.emitted("count")) == 13


def test_rows_for_another_stream() -> None:
    builder = TopologyBuilder("streams")
    builder.set_spout("lines", Lines())
    builder.set_bolt("sink", Count()).fields_grouping("lines", ["line"], stream="bad")
    topology = builder.create_topology()
    with pytest.raises(KeyError, match="no field 'word' in stream 'bad'"):
        complete_topology(topology, sources={"lines": {"bad": [["x", "empty"]]}})


def test_a_source_must_fit() -> None:
    with pytest.raises(InvalidTopology, match=r"no spout 'line'\. Did you mean 'lines'"):
        complete_topology(word_count(), sources={"line": []})
    with pytest.raises(InvalidTopology, match=r"row 0 is 'a b': write \['a b'\]"):
        complete_topology(word_count(), sources={"lines": ["a b"]})


def test_the_first_error_is_raised_with_its_own_type() -> None:
    with pytest.raises(ValueError, match="cannot take 3") as caught:
        complete_topology(one(Numbers(5), Poison(frozenset({3}))))
    assert type(caught.value) is ValueError
    assert caught.value.__notes__ == ["in component 'bolt', task 1, tuple Tuple(n=3; from spout/default task 2)"]


def test_or_recorded_as_in_production() -> None:
    result = complete_topology(one(Numbers(50), Poison(frozenset(range(20)))), raise_errors=False)
    assert result.failed("spout") == list(range(20))
    assert len(result.errors("bolt")) == 20
    assert result.errors("bolt")[0].error == "ValueError: cannot take 0"
    assert result.errors("spout") == ()
    assert len(result.errors()) == 20


def test_an_error_in_cleanup_counts_too() -> None:
    builder = TopologyBuilder("untidy")
    builder.set_spout("lines", Lines())
    builder.set_bolt("split", Split()).shuffle_grouping("lines")
    builder.set_bolt("count", Untidy()).shuffle_grouping("split")
    topology = builder.create_topology()
    with pytest.raises(OSError, match="disk full"):
        complete_topology(topology, sources={"lines": [["a"]]})
    result = complete_topology(topology, sources={"lines": [["a"]]}, raise_errors=False)
    assert [error.error for error in result.errors("count")] == ["OSError: disk full"]


def test_a_reliable_spout_replays_then_gives_up() -> None:
    result = complete_topology(one(ReliableNumbers(2), Grumbles()))
    assert sorted(result.emitted("spout")) == [(0,)] * 6 + [(1,)] * 6
    letters = result.emitted("spout", "dead_letters")
    assert sorted(letter[:4] for letter in letters) == [(0, "default", (0,), 5), (1, "default", (1,), 5)]
    assert sorted(result.instances("spout")[0].dead) == [0, 1]
    assert result.statistics.dead_letters == 2
    assert result.errors() == ()


def test_a_tuple_that_is_never_acked_times_out() -> None:
    result = complete_topology(one(Numbers(3), Holds()))
    assert result.failed("spout") == [0, 1, 2]
    assert result.statistics.timed_out == 3
    assert 30 <= result.seconds <= 33
    assert result.acked("bolt") == []


def test_manual_acks_are_seen() -> None:
    builder = TopologyBuilder("pairs")
    builder.set_spout("spout", Numbers(4))
    builder.set_bolt("pairs", Pairs(), config={"topology.tick.tuple.freq.secs": 1000}).shuffle_grouping("spout")
    builder.set_bolt("sink", Sink()).shuffle_grouping("pairs")
    result = complete_topology(builder.create_topology())
    assert result.acked("pairs") == [(0,), (1,), (2,), (3,)]
    assert result.acked("spout") == [0, 1, 2, 3]
    assert result.emitted("pairs") == [(0,), (1,), (2,), (3,)]


def test_a_spout_that_only_waits_is_left_alone() -> None:
    result = complete_topology(one(Silent(), Pass()))
    assert not result.drained
    assert result.emitted("spout") == []


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1e6])
def test_an_async_spout_that_only_waits_is_left_alone_too(seconds: float) -> None:
    result = complete_topology(one(Waits(seconds), Pass()), timeout_s=60)
    assert not result.drained
    assert result.emitted("spout") == []


def test_an_async_spout_may_take_its_time() -> None:
    result = complete_topology(one(Takes(20.0), Pass()))
    assert result.drained
    assert result.emitted("spout") == [(1,), (2,), (3,)]


def test_a_spout_that_never_finishes_is_named() -> None:
    with pytest.raises(NotReached, match=r"after 2 virtual seconds: spout 'spout' task 2 has not called finish\(\)"):
        complete_topology(one(Babbles(), Pass()), timeout_s=2)


def test_an_unknown_component_is_named() -> None:
    result = complete_topology(word_count(), sources={"lines": []})
    for look in (result.emitted, result.executed, result.acked, result.failed, result.errors, result.instances):
        with pytest.raises(UsageError, match=r"no component 'counts'\. Did you mean 'count'"):
            look("counts")


def test_an_unknown_stream_and_the_executions_of_a_spout_are_refused() -> None:
    result = complete_topology(word_count(), sources={"lines": []})
    assert result.emitted("lines", "bad") == []
    assert complete_topology(one(Numbers(1), Sink())).emitted("bolt") == [], "a sink has no stream at all"
    with pytest.raises(UsageError, match=r"'lines' declares no stream 'bat'\. Did you mean 'bad'\?"):
        result.emitted("lines", "bat")
    with pytest.raises(UsageError, match=r"'split' declares no stream 'x'\. There is \['default'\]"):
        result.emitted("split", "x")
    with pytest.raises(UsageError, match="'lines' is a spout and executes nothing"):
        result.executed("lines")


@pytest.mark.parametrize("timeout_s", [-1, 0, "5", float("nan")])
def test_a_timeout_that_cannot_be_is_refused(timeout_s: Any) -> None:
    with pytest.raises(UsageError, match=r"timeout_s is .*\. Give a number of seconds above 0"):
        complete_topology(word_count(), sources={"lines": []}, timeout_s=timeout_s)


def test_the_topology_is_not_used_up() -> None:
    topology = word_count()
    first = complete_topology(topology, sources={"lines": [["a"]]})
    second = complete_topology(topology, sources={"lines": [["a"]]})
    assert first.emitted("count") == second.emitted("count") == [("a", 1)]
