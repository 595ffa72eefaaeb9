"""One handle wherever a topology runs, the virtual clock's rules, and the test kit's results."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rainband import (
    Bolt,
    FailTuple,
    InvalidTopology,
    LocalCluster,
    NotReached,
    RainbandError,
    ReliableSpout,
    Spout,
    Topology,
    TopologyBuilder,
    TopologyContext,
    TopologyExists,
    TopologyNotFound,
    Tuple,
    complete_topology,
    run_bolt,
)


class Lines(Spout):
    outputs = ("line",)

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def open(self, context: TopologyContext) -> None:
        mine = self.paths[context.task_index :: len(context.tasks())]
        self.lines: Iterator[tuple[str, str]] = (
            (f"{p}:{n}", line) for p in mine for n, line in enumerate(p.read_text(errors="replace").splitlines(), 1)
        )

    def next_tuple(self) -> None:
        row = next(self.lines, None)
        if row is None:
            self.finish()
        else:
            self.emit([row[1]], message_id=row[0])


class Split(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        for word in tup["line"].split():
            self.emit([word])


class Count(Bolt):
    outputs = ("word", "count")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def execute(self, tup: Tuple) -> None:
        self.counts[tup["word"]] = self.counts.get(tup["word"], 0) + 1

    def tick(self) -> None:
        for word, count in sorted(self.counts.items()):
            self.emit([word, count])


def word_count(paths: list[Path]) -> Topology:
    builder = TopologyBuilder("word-count", config={"topology.workers": 2})
    builder.set_spout("lines", Lines(paths))
    builder.set_bolt("split", Split(), parallelism=2).shuffle_grouping("lines")
    counts = builder.set_bolt("count", Count(), parallelism=2, tasks=8, config={"topology.tick.tuple.freq.secs": 10})
    counts.fields_grouping("split", ["word"])
    return builder.create_topology()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("a b\n" * 200)
    return path


def test_a_cluster_in_this_process(text: Path) -> None:
    with LocalCluster() as cluster:
        running = cluster.submit(word_count([text]), config={"topology.workers": 2})
        running.wait_until(lambda s: s.acked >= 100, timeout_s=5)
        running.wait_drained(timeout_s=30)
        statistics = running.statistics()
        assert statistics.acked == 200
        assert statistics.workers_running == 2
        assert len(running.errors("count")) == 0
        running.rebalance(workers=1, parallelism={"count": 4})
        running.wait_until(lambda s: s.workers_running == 1, timeout_s=5)
        running.deactivate()
        running.activate()
        running.kill(wait_s=0)


def test_a_deterministic_cluster() -> None:
    with LocalCluster(virtual_clock=True, seed=7, record=True) as cluster:
        running = cluster.submit(word_count([]), sources={"lines": [["a b"]]})
        cluster.advance(31)
        assert sorted(running.emitted("count")) == [("a", 1)] * 3 + [("b", 1)] * 3, "ticks at 10, 20 and 30 s"
        cluster.kill_worker("count")
        cluster.advance(5)
        assert running.statistics().restarts == 1


def test_the_same_seed_is_the_same_run() -> None:
    def run(seed: int) -> list[tuple[Any, ...]]:
        rows = [[f"w{n}"] for n in range(50)]
        with LocalCluster(virtual_clock=True, seed=seed, record=True) as cluster:
            running = cluster.submit(word_count([]), sources={"lines": rows})
            running.wait_drained(timeout_s=60)
            return [tuple(event) for event in running.events()]

    assert run(7) == run(7)
    assert any(run(seed) != run(7) for seed in range(7))


def test_complete_topology() -> None:
    result = complete_topology(word_count([]), sources={"lines": [["a b"], ["a"]]})
    assert result.emitted("split") == [("a",), ("b",), ("a",)]
    assert sorted(result.executed("count")) == [("a",), ("a",), ("b",)]
    assert len(result.acked("lines")) == 2
    assert len(result.failed("lines")) == 0
    assert len(result.errors("split")) == 0
    counts: dict[str, int] = {}
    for instance in result.instances("count"):
        counts.update(instance.counts)
    assert counts == {"a": 2, "b": 1}


@pytest.mark.parametrize("seed", range(5))
def test_what_was_emitted_is_listed_in_the_order_of_the_rows(seed: int) -> None:
    rows = [[f"{n}a {n}b"] for n in range(20)]
    result = complete_topology(word_count([]), sources={"lines": rows}, seed=seed)
    assert result.emitted("split") == [(f"{n}{letter}",) for n in range(20) for letter in "ab"]


def test_run_bolt_uses_your_very_instance() -> None:
    assert run_bolt(Split(), [["a b"]], fields=["line"]) == [("a",), ("b",)]
    count = Count()
    run_bolt(count, [["a"], ["a"]], fields=["word"])
    assert count.counts == {"a": 2}


class Breaks(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        if tup["line"] == "bad":
            self.deeper()
        self.emit([tup["line"]])

    def deeper(self) -> None:
        raise ZeroDivisionError("on purpose")


def breaking() -> Topology:
    builder = TopologyBuilder("breaking")
    builder.set_spout("lines", Lines([]))
    builder.set_bolt("breaks", Breaks()).shuffle_grouping("lines")
    return builder.create_topology()


def test_raise_errors_gives_the_error_its_own_type_traceback_and_a_note() -> None:
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        complete_topology(breaking(), sources={"lines": [["good"], ["bad"]]}, raise_errors=True)
    assert "deeper" in "".join(traceback.format_tb(caught.value.__traceback__))
    (note,) = caught.value.__notes__
    for word in ("breaks", "task", "bad"):
        assert word in note


@pytest.mark.parametrize("virtual", [True, False])
def test_raise_errors_in_a_local_cluster(virtual: bool) -> None:
    def run() -> None:
        with LocalCluster(virtual_clock=virtual, raise_errors=True) as cluster:
            running = cluster.submit(breaking(), sources={"lines": [["bad"]]})
            running.wait_drained(timeout_s=3)

    with pytest.raises(ZeroDivisionError):
        run()


def test_without_raise_errors_it_goes_on_as_in_production() -> None:
    result = complete_topology(breaking(), sources={"lines": [["bad"], ["good"]]}, raise_errors=False)
    assert result.emitted("breaks") == [("good",)]
    assert (len(result.acked("lines")), len(result.failed("lines"))) == (1, 1)
    (error,) = result.errors("breaks")
    assert "ZeroDivisionError" in error.traceback
    assert (error.component, "bad" in error.tuple) == ("breaks", True)
    assert "on purpose" in str(error)


class AlwaysReady(Spout):
    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.n = 0

    def next_tuple(self) -> None:
        self.n += 1
        self.emit([self.n], message_id=self.n)


def test_an_always_ready_spout_costs_a_millisecond_a_call() -> None:
    builder = TopologyBuilder("ready")
    builder.set_spout("numbers", AlwaysReady())
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(1.0)
        assert len(running.emitted("numbers")) in (1000, 1001)


class Changes(Bolt):
    outputs = ("words",)

    def execute(self, tup: Tuple) -> None:
        words = tup["line"].split()
        self.emit([words])
        words.append("changed afterwards")


class Takes(Bolt):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup["words"])


def changing(bolt: Bolt) -> Topology:
    builder = TopologyBuilder("changing")
    builder.set_spout("lines", Lines([]))
    builder.set_bolt("changes", bolt).shuffle_grouping("lines")
    builder.set_bolt("takes", Takes()).shuffle_grouping("changes")
    return builder.create_topology()


def test_changing_a_value_after_its_emit_is_an_error() -> None:
    with pytest.raises(RainbandError, match="words"):
        complete_topology(changing(Changes()), sources={"lines": [["a b"]]})


class Travels(Bolt):
    outputs = ("words",)

    def execute(self, tup: Tuple) -> None:
        self.emit([(1, [2, {3}], {"four": b"4"}, True, None, 2**70)])


def test_values_come_out_of_the_codec_as_they_went_in() -> None:
    result = complete_topology(changing(Travels()), sources={"lines": [["a b"]]})
    ((value,),) = result.executed("takes")
    assert value == (1, [2, {3}], {"four": b"4"}, True, None, 2**70)
    assert value[3] is True


def test_what_is_waited_for_and_does_not_come_is_said() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(word_count([]))
        with pytest.raises(NotReached):
            running.wait_until(lambda s: s.acked >= 1, timeout_s=5)


def test_real_time_waits_end_in_time() -> None:
    builder = TopologyBuilder("ready")
    builder.set_spout("numbers", AlwaysReady())
    with LocalCluster() as cluster:
        running = cluster.submit(builder.create_topology())
        started = time.monotonic()
        with pytest.raises(NotReached):
            running.wait_drained(timeout_s=0.3)
        assert time.monotonic() - started < 2


def test_names_are_unique_and_unknown_ones_refused() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(word_count([]))
        with pytest.raises(TopologyExists):
            cluster.submit(word_count([]))
        running.kill(wait_s=0)
        cluster.advance(1)
        with pytest.raises(TopologyNotFound):
            running.statistics()
        cluster.submit(word_count([]))


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"line": [["a"]]}, "lines"),
        ({"split": [["a"]]}, "split"),
        ({"lines": [["a", "b"]]}, "line"),
        ({"lines": ["a"]}, r"\['a'\]"),
        ({"lines": "a"}, "lines"),
    ],
)
def test_bad_sources_are_refused(sources: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        complete_topology(word_count([]), sources=sources)


def test_a_builder_is_no_topology_yet() -> None:
    builder: Any = TopologyBuilder("builder")
    with pytest.raises(InvalidTopology, match="create_topology"):
        complete_topology(builder)
    with LocalCluster(virtual_clock=True) as cluster, pytest.raises(InvalidTopology, match="create_topology"):
        cluster.submit(builder)


def test_a_component_that_does_not_exist_is_named() -> None:
    result = complete_topology(word_count([]), sources={"lines": [["a"]]})
    for ask in (result.emitted, result.executed, result.acked, result.failed, result.errors, result.instances):
        with pytest.raises((RainbandError, KeyError), match="split"):
            ask("splt")


class Replays(ReliableSpout):
    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.left = [1, 2, 3]

    def next_tuple(self) -> None:
        if self.left:
            n = self.left.pop()
            self.emit([n], message_id=n)
        else:
            self.finish()


class FailsFirst(Bolt):
    def __init__(self) -> None:
        self.seen: set[int] = set()

    def execute(self, tup: Tuple) -> None:
        if tup["n"] not in self.seen:
            self.seen.add(tup["n"])
            raise FailTuple("first")


def test_complete_means_after_all_replays() -> None:
    builder = TopologyBuilder("replays")
    builder.set_spout("numbers", Replays())
    builder.set_bolt("fails", FailsFirst()).shuffle_grouping("numbers")
    result = complete_topology(builder.create_topology())
    assert sorted(result.acked("numbers")) == [1, 2, 3]
    assert len(result.emitted("numbers")) == 6


def test_rebalance_keeps_the_tasks_and_refuses_more() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(word_count([]), sources={"lines": [["a b"]] * 50})
        running.wait_drained(timeout_s=30)
        with pytest.raises(RainbandError, match="8"):
            running.rebalance(parallelism={"count": 9})
        running.rebalance(workers=1)
        cluster.advance(5)
        assert len(running.instances("count")) == 8
        assert running.statistics().workers_running == 1


class FailsToPrepare(Bolt):
    def prepare(self, context: TopologyContext) -> None:
        raise OSError("no such device")

    def execute(self, tup: Tuple) -> None: ...


def test_a_raise_in_prepare_restarts_the_worker_with_growing_pauses() -> None:
    builder = TopologyBuilder("crashing")
    builder.set_spout("lines", Lines([]))
    builder.set_bolt("fails", FailsToPrepare()).shuffle_grouping("lines")
    topology = builder.create_topology()
    with LocalCluster(virtual_clock=True, raise_errors=False) as cluster:
        running = cluster.submit(topology)
        cluster.advance(10)
        assert 2 <= running.statistics().restarts <= 6
        assert "no such device" in str(running.errors("fails")[0])
    with pytest.raises(OSError, match="no such device"):
        complete_topology(topology)
