"""What a spout's author may rely on: message ids, outcomes, finish, and replay by the runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from rainband import (
    Bolt,
    DirectStream,
    EmitRefused,
    FailTuple,
    LocalCluster,
    ManualBolt,
    ReliableSpout,
    Spout,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    complete_topology,
)


class Numbers(Spout):
    """Emits 1..count tracked, and notes every call it gets."""

    outputs = ("n",)

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.calls: list[Any] = []

    def open(self, context: TopologyContext) -> None:
        self.calls.append("open")
        self.numbers: Iterator[int] = iter(range(1, self.count + 1))

    def next_tuple(self) -> None:
        n = next(self.numbers, None)
        if n is None:
            self.finish()
        else:
            self.emit([n], message_id=f"id-{n}")

    def ack(self, message_id: object) -> None:
        self.calls.append(("ack", message_id))

    def fail(self, message_id: object) -> None:
        self.calls.append(("fail", message_id))

    def activate(self) -> None:
        self.calls.append("activate")

    def deactivate(self) -> None:
        self.calls.append("deactivate")

    def close(self) -> None:
        self.calls.append("close")


class Sink(Bolt):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup[0])


class Odd(Bolt):
    """Fails even numbers quietly."""

    def execute(self, tup: Tuple) -> None:
        if tup["n"] % 2 == 0:
            raise FailTuple("even")


def test_ack_and_fail_reach_the_spout_with_its_own_message_id() -> None:
    builder = TopologyBuilder("outcomes")
    builder.set_spout("numbers", Numbers(4))
    builder.set_bolt("odd", Odd()).shuffle_grouping("numbers")
    result = complete_topology(builder.create_topology())
    (spout,) = result.instances("numbers")
    assert spout.calls[0] == "open"
    assert sorted(call for call in spout.calls if isinstance(call, tuple)) == [
        ("ack", "id-1"),
        ("ack", "id-3"),
        ("fail", "id-2"),
        ("fail", "id-4"),
    ]
    assert sorted(result.acked("numbers")) == ["id-1", "id-3"]
    assert sorted(result.failed("numbers")) == ["id-2", "id-4"]
    assert result.errors("odd") in ((), []), "FailTuple fails quietly"


def test_activate_deactivate_and_close_are_called() -> None:
    builder = TopologyBuilder("calls")
    builder.set_spout("numbers", Numbers(0))
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(1)
        running.deactivate()
        cluster.advance(1)
        running.activate()
        cluster.advance(1)
        (spout,) = running.instances("numbers")
        running.kill(wait_s=0)
        cluster.advance(1)
    assert [call for call in spout.calls if isinstance(call, str)] in (
        ["open", "activate", "deactivate", "activate", "close"],
        ["open", "deactivate", "activate", "close"],
        ["open", "activate", "deactivate", "activate", "deactivate", "close"],
    )


def test_forgetting_the_message_id_is_a_clear_error() -> None:
    class Forgetful(Spout):
        outputs = ("n",)

        def next_tuple(self) -> None:
            self.emit([1])  # type: ignore[call-arg]

    builder = TopologyBuilder("forgetful")
    builder.set_spout("numbers", Forgetful())
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    with pytest.raises(Exception, match="message_id") as caught:
        complete_topology(builder.create_topology(), raise_errors=True)
    assert "None" in str(caught.value), "the error says how to emit untracked on purpose"


def test_message_id_is_keyword_only() -> None:
    class Positional(Spout):
        outputs = ("n",)

        def next_tuple(self) -> None:
            self.emit([1], 7)  # type: ignore[call-arg]

    builder = TopologyBuilder("positional")
    builder.set_spout("numbers", Positional())
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    with pytest.raises(TypeError):
        complete_topology(builder.create_topology(), raise_errors=True)


def test_message_id_none_is_untracked_on_purpose() -> None:
    class Untracked(Numbers):
        def next_tuple(self) -> None:
            n = next(self.numbers, None)
            if n is None:
                self.finish()
            else:
                self.emit([n], message_id=None)

    builder = TopologyBuilder("untracked")
    builder.set_spout("numbers", Untracked(4))
    builder.set_bolt("odd", Odd()).shuffle_grouping("numbers")
    result = complete_topology(builder.create_topology())
    assert len(result.executed("odd")) == 4
    assert list(result.acked("numbers")) == list(result.failed("numbers")) == []
    (spout,) = result.instances("numbers")
    assert not [call for call in spout.calls if isinstance(call, tuple)]


def test_after_finish_failures_still_reach_the_spout_which_may_emit_again() -> None:
    class Again(Spout):
        """Replays by hand what failed, after it said finish()."""

        outputs = ("n",)

        def open(self, context: TopologyContext) -> None:
            self.waiting = [1, 2, 3]
            self.failures = 0

        def next_tuple(self) -> None:
            if self.waiting:
                n = self.waiting.pop(0)
                self.emit([n], message_id=n)
            else:
                self.finish()

        def fail(self, message_id: Any) -> None:
            self.failures += 1
            self.waiting.append(message_id)

    class FailsOnce(Bolt):
        def prepare(self, context: TopologyContext) -> None:
            self.known: set[int] = set()

        def execute(self, tup: Tuple) -> None:
            if tup["n"] not in self.known:
                self.known.add(tup["n"])
                raise FailTuple("first time")

    builder = TopologyBuilder("again")
    builder.set_spout("numbers", Again())
    builder.set_bolt("once", FailsOnce()).shuffle_grouping("numbers")
    result = complete_topology(builder.create_topology())
    (spout,) = result.instances("numbers")
    assert spout.failures == 3
    assert sorted(result.acked("numbers")) == [1, 2, 3]


def test_a_tuple_nobody_consumes_is_acked_at_once() -> None:
    builder = TopologyBuilder("alone")
    builder.set_spout("numbers", Numbers(2))
    result = complete_topology(builder.create_topology())
    assert sorted(result.acked("numbers")) == ["id-1", "id-2"]


class Reliable(ReliableSpout):
    outputs = ("n",)
    max_retries = 2
    retry_delay_s = 1.0
    retry_delay_max_s = 60

    def open(self, context: TopologyContext) -> None:
        self.numbers = iter([1, 2, 3])

    def next_tuple(self) -> None:
        n = next(self.numbers, None)
        if n is None:
            self.finish()
        else:
            self.emit([n], message_id=n)


class Refuses2(Bolt):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup["n"])
        if tup["n"] == 2:
            raise FailTuple("not two")


class Letters(Bolt):
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def execute(self, tup: Tuple) -> None:
        assert tup.fields == ("message_id", "stream", "values", "retries", "reason")
        self.seen.append(tuple(tup))


def test_a_reliable_spout_has_these_defaults() -> None:
    assert (ReliableSpout.max_retries, ReliableSpout.retry_delay_s, ReliableSpout.retry_delay_max_s) == (5, 1.0, 60)
    assert issubclass(ReliableSpout, Spout)


def test_a_reliable_spout_replays_and_sends_what_fails_for_good_to_dead_letters() -> None:
    builder = TopologyBuilder("letters")
    builder.set_spout("numbers", Reliable())
    builder.set_bolt("picky", Refuses2()).shuffle_grouping("numbers")
    builder.set_bolt("letters", Letters()).shuffle_grouping("numbers", stream="dead_letters")
    result = complete_topology(builder.create_topology())
    (picky,) = result.instances("picky")
    assert sorted(picky.seen) == [1, 2, 2, 2, 3], "once, and max_retries times more"
    (letters,) = result.instances("letters")
    (letter,) = letters.seen
    assert letter[:4] == (2, "default", (2,), 2)
    assert letter[4].startswith("failed after 2 replays: 'picky' task ")
    assert letter[4].endswith(": not two")


class Raises(Bolt):
    def execute(self, tup: Tuple) -> None:
        if tup["n"] == 2:
            raise ValueError("two is\n\udc80 too much")


class RaisesInBatches(Bolt):
    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        if any(tup["n"] == 2 for tup in tups):
            raise ValueError("two is ? too much")


class RaisesLater(Bolt):
    async def execute(self, tup: Tuple) -> None:
        await asyncio.sleep(0.01)
        if tup["n"] == 2:
            raise ValueError("two is ? too much")


class RaisesByHand(ManualBolt):
    def execute(self, tup: Tuple) -> None:
        if tup["n"] == 2:
            raise ValueError("two is ? too much")
        self.ack(tup)


class FailsByHand(ManualBolt):
    def execute(self, tup: Tuple) -> None:
        (self.fail if tup["n"] == 2 else self.ack)(tup)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class RaisesUnspeakably(Bolt):
    def execute(self, tup: Tuple) -> None:
        if tup["n"] == 2:
            raise Unspeakable


SAID = {
    Raises: "'picky' task {}: ValueError: two is ? too much",
    RaisesInBatches: "'picky' task {}: ValueError: two is ? too much",
    RaisesLater: "'picky' task {}: ValueError: two is ? too much",
    RaisesByHand: "'picky' task {}: ValueError: two is ? too much",
    FailsByHand: "failed by 'picky' task {}",
    RaisesUnspeakably: "'picky' task {}: Unspeakable",
}


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ackers", [None, 2])
def test_a_dead_letter_says_what_the_bolt_said(
    kind: type[Bolt | ManualBolt], workers: int, ackers: int | None
) -> None:
    class Pass(Bolt):
        outputs = ("n",)

        def execute(self, tup: Tuple) -> None:
            self.emit(tup.values)

    config = {"topology.workers": workers, "topology.acker.executors": ackers, "topology.batch.size": 1}
    builder = TopologyBuilder("letters", config=config)
    builder.set_spout("numbers", Reliable())
    builder.set_bolt("pass", Pass()).shuffle_grouping("numbers")
    builder.set_bolt("picky", kind()).shuffle_grouping("pass")
    builder.set_bolt("letters", Letters()).shuffle_grouping("numbers", stream="dead_letters")
    topology = builder.create_topology()
    result = complete_topology(topology, raise_errors=False)
    (letter,) = (letter for instance in result.instances("letters") for letter in instance.seen)
    (task,) = topology.plan.tasks["picky"]
    assert letter[4] == f"failed after 2 replays: {SAID[kind].format(task)}"


def test_the_delay_before_a_replay_doubles() -> None:
    builder = TopologyBuilder("delays")
    builder.set_spout("numbers", Reliable())
    builder.set_bolt("picky", Refuses2()).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(0.5)
        (picky,) = running.instances("picky")
        assert picky.seen.count(2) == 1
        cluster.advance(1)
        assert picky.seen.count(2) == 2
        cluster.advance(1)
        assert picky.seen.count(2) == 2
        cluster.advance(1.2)
        assert picky.seen.count(2) == 3
        cluster.advance(100)
        assert picky.seen.count(2) == 3
        statistics = running.statistics()
        assert (statistics.replayed, statistics.dead_letters) == (2, 1)


@pytest.mark.parametrize(("second", "problem"), [(1, "already"), (None, "None"), ([2], "unhashable")])
def test_ids_of_a_reliable_spout_are_unique_and_never_none(second: object, problem: str) -> None:
    class Careless(ReliableSpout):
        outputs = ("n",)

        def next_tuple(self) -> None:
            self.emit([1], message_id=1)
            self.emit([2], message_id=second)

    builder = TopologyBuilder("careless")
    builder.set_spout("numbers", Careless())
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    with pytest.raises(EmitRefused, match=problem):
        complete_topology(builder.create_topology(), raise_errors=True)


class Seeking(ReliableSpout):
    """Positions are indexes; survives the death of its worker."""

    outputs = ("n",)

    def open(self, context: TopologyContext) -> None:
        self.at = 0
        self.sought: object = None

    def position(self) -> object:
        return self.at

    def seek(self, position: Any) -> None:
        self.sought = position
        self.at = position

    def next_tuple(self) -> None:
        if self.at >= 50:
            self.finish()
        else:
            self.at += 1
            self.emit([self.at], message_id=self.at)


def test_position_and_seek_let_a_reliable_spout_survive_its_worker() -> None:
    builder = TopologyBuilder("seeking")
    builder.set_spout("numbers", Seeking())
    builder.set_bolt("sink", Sink()).shuffle_grouping("numbers")
    with LocalCluster(virtual_clock=True, record=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(0.03)
        (spout,) = running.instances("numbers")
        assert 0 < spout.at < 50
        cluster.kill_worker("numbers")
        cluster.advance(60)
        (spout,) = running.instances("numbers")
        assert spout.sought is not None
        emitted = [n for (n,) in running.emitted("numbers")]
        assert set(emitted) == set(range(1, 51))
        assert running.statistics().drained


class Routed(Spout):
    outputs = {"default": ("line",), "bad": ("line", "why"), "to": DirectStream("order", "n")}

    def open(self, context: TopologyContext) -> None:
        self.targets = context.tasks("sink")
        self.done = False

    def next_tuple(self) -> None:
        if self.done:
            self.finish()
            return
        self.done = True
        assert self.emit(["x"], message_id=1), "returns the task ids"
        self.emit(["y", "short"], message_id=2, stream="bad")
        self.emit_direct(self.targets[1], ["o", 1], message_id=3, stream="to")


class Where(Bolt):
    def prepare(self, context: TopologyContext) -> None:
        self.seen: list[tuple[str, tuple[Any, ...]]] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append((tup.stream, tup.values))


def test_named_and_direct_streams() -> None:
    builder = TopologyBuilder("routed")
    builder.set_spout("router", Routed())
    sink = builder.set_bolt("sink", Where(), parallelism=2)
    sink.direct_grouping("router", stream="to")
    builder.set_bolt("rest", Where()).global_grouping("router").global_grouping("router", stream="bad")
    result = complete_topology(builder.create_topology())
    first, second = result.instances("sink")
    assert (first.seen, second.seen) == ([], [("to", ("o", 1))])
    (rest,) = result.instances("rest")
    assert sorted(rest.seen) == [("bad", ("y", "short")), ("default", ("x",))]
    assert sorted(result.acked("router")) == [1, 2, 3]
