"""The small print: order, values, what a raise does, and other single sentences."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

import rainband
from rainband import (
    Bolt,
    Config,
    DirectStream,
    EmitRefused,
    FailTuple,
    InvalidConfig,
    LocalCluster,
    RainbandError,
    ReliableSpout,
    Spout,
    Topology,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    complete_topology,
    run_bolt,
)


class Numbers(Spout):
    outputs = ("n",)

    def __init__(self, count: int) -> None:
        self.count = count
        self.at = 0

    def next_tuple(self) -> None:
        if self.at == self.count:
            self.finish()
        else:
            self.at += 1
            self.emit([self.at], message_id=self.at)


class Seen(Bolt):
    def __init__(self) -> None:
        self.seen: list[tuple[int, Any]] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append((tup.task, tup[0]))


class Pass(Bolt):
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["n"]])


def two(spout: Spout, bolt: Bolt, **config: Any) -> Topology:
    builder = TopologyBuilder("two", config={f"topology.{key.replace('_', '.')}": config[key] for key in config})
    builder.set_spout("spout", spout)
    builder.set_bolt("bolt", bolt).shuffle_grouping("spout")
    return builder.create_topology()


@pytest.mark.parametrize("workers", [1, 3])
def test_between_two_tasks_tuples_keep_their_order(workers: int) -> None:
    builder = TopologyBuilder("order", config={"topology.workers": workers})
    builder.set_spout("numbers", Numbers(300))
    builder.set_bolt("pass", Pass(), parallelism=3).shuffle_grouping("numbers")
    builder.set_bolt("seen", Seen(), parallelism=2).fields_grouping("pass", ["n"])
    result = complete_topology(builder.create_topology())
    seen = [pair for instance in result.instances("seen") for pair in instance.seen]
    assert sorted(n for _, n in seen) == list(range(1, 301))
    for instance in result.instances("seen"):
        for source in {task for task, _ in instance.seen}:
            numbers = [n for task, n in instance.seen if task == source]
            assert numbers == sorted(numbers)


def test_equal_fields_of_different_names_meet_in_one_task() -> None:
    class Named(Pass):
        outputs = ("number",)

    class Where(Bolt):
        def __init__(self) -> None:
            self.seen: set[tuple[str, int]] = set()

        def execute(self, tup: Tuple) -> None:
            self.seen.add((tup.component, tup[0]))

    builder = TopologyBuilder("meet")
    builder.set_spout("numbers", Numbers(20))
    builder.set_bolt("named", Named()).shuffle_grouping("numbers")
    where = builder.set_bolt("where", Where(), parallelism=4)
    where.fields_grouping("numbers", ["n"]).fields_grouping("named", ["number"])
    result = complete_topology(builder.create_topology())
    for instance in result.instances("where"):
        assert {n for name, n in instance.seen if name == "numbers"} == {
            n for name, n in instance.seen if name == "named"
        }


def test_key_groups_are_a_power_of_two_and_at_least_64_a_task() -> None:
    builder = TopologyBuilder("groups")
    builder.set_spout("numbers", Numbers(1))
    builder.set_bolt("seen", Seen(), tasks=3).fields_grouping("numbers", ["n"])
    groups = builder.create_topology().plan.components["seen"].key_groups
    assert groups >= 64 * 3
    assert groups & (groups - 1) == 0


@dataclass(frozen=True)
class Point:
    x: int
    y: tuple[int, ...]


VALUES: list[Any] = [
    None,
    True,
    -(2**200),
    1.5,
    "ü",
    b"b",
    [1, (2,)],
    {"a": {1}},
    frozenset({1}),
    datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC),
    date(2024, 2, 29),
    Decimal("1.10"),
    UUID(int=5),
    Point(1, (2, 3)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_these_types_travel_and_come_out_as_they_went_in(value: Any) -> None:
    class Give(Bolt):
        outputs = ("value",)

        def __init__(self) -> None:
            self.value = value

        def execute(self, tup: Tuple) -> None:
            self.emit([self.value])

    builder = TopologyBuilder("travels", config={"topology.workers": 2})
    builder.set_spout("numbers", Numbers(2))
    builder.set_bolt("give", Give()).shuffle_grouping("numbers")
    builder.set_bolt("seen", Seen(), parallelism=2).all_grouping("give")
    for instance in complete_topology(builder.create_topology()).instances("seen"):
        for _, received in instance.seen:
            assert (type(received), received) == (type(value), value)


class Stumbles(Spout):
    """Raises in ack once, in fail once."""

    outputs = ("n",)

    def __init__(self) -> None:
        self.at = 0
        self.raised: set[str] = set()

    def next_tuple(self) -> None:
        self.at += 1
        self.emit([self.at], message_id=self.at)

    def ack(self, message_id: object) -> None:
        self.stumble("ack")

    def fail(self, message_id: object) -> None:
        self.stumble("fail")

    def stumble(self, name: str) -> None:
        if name not in self.raised:
            self.raised.add(name)
            raise RuntimeError(f"stumbled in {name}")


class FailsThird(Bolt):
    def execute(self, tup: Tuple) -> None:
        if tup["n"] == 3:
            raise FailTuple("third")


def test_a_raise_in_ack_or_fail_is_recorded_and_pauses_the_spout() -> None:
    with LocalCluster(virtual_clock=True, raise_errors=False) as cluster:
        running = cluster.submit(two(Stumbles(), FailsThird()))
        cluster.advance(0.5)
        (spout,) = running.instances("spout")
        assert spout.raised == {"ack"}
        assert spout.at == 1, "paused for a second"
        cluster.advance(10)
        assert spout.raised == {"ack", "fail"}
        assert [error.error for error in running.errors("spout")] == [
            "RuntimeError: stumbled in ack",
            "RuntimeError: stumbled in fail",
        ]
        assert running.statistics().restarts == 0


class EmitsOnAck(Spout):
    """A callback is a callback: ack and fail may emit as well."""

    outputs = {"default": ("n",), "done": ("n",)}

    def __init__(self) -> None:
        self.left = [1, 2]

    def next_tuple(self) -> None:
        if self.left:
            n = self.left.pop()
            self.emit([n], message_id=n)
        else:
            self.finish()

    def ack(self, message_id: object) -> None:
        self.emit([message_id], message_id=None, stream="done")


def test_ack_may_emit() -> None:
    result = complete_topology(two(EmitsOnAck(), Seen()))
    assert sorted(result.emitted("spout", "done")) == [(1,), (2,)]


class DirectAgain(ReliableSpout):
    """Replays go to the task that was named."""

    outputs = {"to": DirectStream("n")}
    retry_delay_s = 0.1

    async def open(self, context: TopologyContext) -> None:
        self.targets = context.tasks("seen")
        self.at = 0

    async def next_tuple(self) -> None:
        self.at += 1
        if self.at > 6:
            self.finish()
        else:
            self.emit_direct(self.targets[self.at % 2], [self.at], message_id=self.at, stream="to")


class PlainDirectAgain(DirectAgain):
    def open(self, context: TopologyContext) -> None:  # type: ignore[override]
        self.targets = context.tasks("seen")
        self.at = 0

    def next_tuple(self) -> None:  # type: ignore[override]
        self.at += 1
        if self.at > 6:
            self.finish()
        else:
            self.emit_direct(self.targets[self.at % 2], [self.at], message_id=self.at, stream="to")


class FailsOnce(Seen):
    def execute(self, tup: Tuple) -> None:
        super().execute(tup)
        if self.seen.count((tup.task, tup[0])) == 1:
            raise FailTuple("first")


@pytest.mark.parametrize("spout", [DirectAgain(), PlainDirectAgain()], ids=lambda spout: type(spout).__name__)
def test_a_direct_emit_is_replayed_to_its_task(spout: Spout) -> None:
    builder = TopologyBuilder("direct")
    builder.set_spout("spout", spout)
    builder.set_bolt("seen", FailsOnce(), parallelism=2).direct_grouping("spout", stream="to")
    result = complete_topology(builder.create_topology())
    even, odd = (sorted(n for _, n in instance.seen) for instance in result.instances("seen"))
    assert (even, odd) == ([2, 2, 4, 4, 6, 6], [1, 1, 3, 3, 5, 5])


def test_the_config_is_a_typed_mapping() -> None:
    config = Config({"topology.workers": 3})
    assert config["topology.workers"] == 3
    assert config["topology.message.timeout.secs"] == 30
    assert "topology.max.spout.pending" in set(config)
    assert not [key for key in config if "thrift" in key or "storm" in key]
    with pytest.raises(InvalidConfig, match="Did you mean"):
        Config({"topology.max.spout.pendig": 1})
    with pytest.raises(KeyError):
        config["topology.max.spout.pendig"]
    with pytest.raises(TypeError):
        config["topology.workers"] = 4  # type: ignore[index]


def test_what_was_not_recorded_is_not_listed_as_nothing() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(two(Numbers(1), Seen()))
        cluster.advance(1)
        with pytest.raises(RainbandError, match="record=True"):
            running.emitted("spout")


def test_virtual_time_passes_only_when_told_to() -> None:
    with LocalCluster() as cluster, pytest.raises(RainbandError, match="virtual_clock"):
        cluster.advance(1)


class Threads(Bolt):
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        caught: list[BaseException] = []
        thread = threading.Thread(target=self.emit_elsewhere, args=(caught,))
        thread.start()
        thread.join()
        assert isinstance(caught[0], EmitRefused)
        self.emit([tup[0]])

    def emit_elsewhere(self, caught: list[BaseException]) -> None:
        try:
            self.emit([0])
        except EmitRefused as error:
            caught.append(error)


def test_a_thread_of_ones_own_may_not_emit_in_real_time_either() -> None:
    with LocalCluster(record=True, raise_errors=True) as cluster:
        running = cluster.submit(two(Numbers(3), Threads()))
        running.wait_drained(timeout_s=10)
        assert sorted(running.emitted("bolt")) == [(1,), (2,), (3,)]


class Knocks(Bolt):
    outputs = ("word",)

    def prepare(self, context: TopologyContext) -> None:
        self.word = context.secret("word")

    def execute(self, tup: Tuple) -> None:
        self.emit([self.word])


def test_secrets_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_bolt(Knocks(), [[1]], secrets={"word": "sesame"}) == [("sesame",)]
    topology = two(Numbers(1), Knocks())
    assert complete_topology(topology, secrets={"word": "sesame"}).emitted("bolt") == [("sesame",)]
    monkeypatch.setenv("RAINBAND_SECRET_WORD", "open")
    assert complete_topology(topology).emitted("bolt") == [("open",)]
    with LocalCluster(secrets={"word": "sesame"}, record=True) as cluster:
        running = cluster.submit(topology)
        running.wait_drained(timeout_s=10)
        assert running.emitted("bolt") == [("sesame",)]


def test_a_secret_that_is_not_there_is_named() -> None:
    class Asks(Bolt):
        def prepare(self, context: TopologyContext) -> None:
            context.secret("password")

        def execute(self, tup: Tuple) -> None: ...

    with pytest.raises((RainbandError, KeyError), match="password"):
        run_bolt(Asks(), [[1]])


def test_rows_of_emit_many_may_be_a_generator() -> None:
    class Letters(Bolt):
        outputs = ("letter",)

        def execute(self, tup: Tuple) -> None:
            self.emit_many([letter] for letter in tup[0])

    assert run_bolt(Letters(), [["abc"]]) == [("a",), ("b",), ("c",)]


def test_a_bare_string_among_the_rows_of_emit_many_is_refused() -> None:
    class Bare(Bolt):
        outputs = ("letter",)

        def execute(self, tup: Tuple) -> None:
            self.emit_many(["a", "b"])

    with pytest.raises(EmitRefused, match=r"write \['a'\]"):
        run_bolt(Bare(), [[1]])


@pytest.mark.parametrize("rows", ["ab", [["a"], "b"]])
def test_a_bare_string_as_rows_of_run_bolt_is_refused(rows: Sequence[Sequence[object]]) -> None:
    with pytest.raises(ValueError, match=r"\["):
        run_bolt(Pass(), rows, fields=["n"])


def test_every_public_name_is_there() -> None:
    for name in rainband.__all__:
        assert getattr(rainband, name) is not None


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
