"""A user's program that uses every public name. It runs as a script, and strict typing is content with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rainband import (
    Bolt,
    Client,
    ClusterUnavailable,
    Config,
    CustomGrouping,
    DirectStream,
    EmitRefused,
    FailTuple,
    InvalidConfig,
    InvalidTopology,
    LocalCluster,
    ManualBolt,
    NotAllowed,
    NotEnoughSlots,
    NotReached,
    RainbandError,
    Refused,
    ReliableSpout,
    Running,
    Spout,
    Topology,
    TopologyBuilder,
    TopologyContext,
    TopologyExists,
    TopologyNotFound,
    Tuple,
    UnknownField,
    UsageError,
    ValueRefused,
    VersionMismatch,
    complete_topology,
    run_bolt,
    stable_hash,
)

ERRORS: tuple[type[RainbandError], ...] = (
    ClusterUnavailable,
    EmitRefused,
    InvalidConfig,
    InvalidTopology,
    NotAllowed,
    NotEnoughSlots,
    NotReached,
    Refused,
    TopologyExists,
    TopologyNotFound,
    UnknownField,
    UsageError,
    ValueRefused,
    VersionMismatch,
)


class Lines(Spout):
    outputs = {"default": ("line",), "bad": ("line", "why"), "to": DirectStream("order", "n")}

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def open(self, context: TopologyContext) -> None:
        mine = self.paths[context.task_index :: len(context.tasks())]
        self.lines: Iterator[tuple[str, str]] = (
            (f"{p}:{n}", text) for p in mine for n, text in enumerate(p.read_text().splitlines(), 1)
        )
        self.targets: Sequence[int] = context.tasks("route")

    def next_tuple(self) -> None:
        row = next(self.lines, None)
        if row is None:
            self.finish()
        elif row[1]:
            tasks: Sequence[int] = self.emit([row[1]], message_id=row[0])
            assert tasks
            self.emit_direct(self.targets[0], ["o", 1], message_id=("to", row[0]), stream="to")
        else:
            self.emit([row[1], "empty"], message_id=None, stream="bad")

    def ack(self, message_id: object) -> None: ...

    def fail(self, message_id: object) -> None: ...

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    def close(self) -> None: ...


class Numbers(ReliableSpout):
    outputs = ("n",)
    max_retries = 3
    retry_delay_s = 0.5
    retry_delay_max_s = 60

    def open(self, context: TopologyContext) -> None:
        self.at = 0

    def next_tuple(self) -> None:
        self.at += 1
        if self.at > 10:
            self.finish()
        else:
            self.emit((self.at,), message_id=self.at)

    def position(self) -> int:
        return self.at

    def seek(self, position: int) -> None:
        self.at = position


class AsyncNumbers(Spout):
    outputs = ["n"]

    async def open(self, context: TopologyContext) -> None:
        await asyncio.sleep(0)

    async def next_tuple(self) -> None:
        self.emit([1], message_id=1)
        self.finish()

    async def ack(self, message_id: int) -> None: ...


@dataclass
class Split(Bolt):
    limit: int = 100
    seen: list[str] = field(default_factory=list)
    outputs = ("word",)

    def prepare(self, context: TopologyContext) -> None:
        self.component = context.component
        self.app: Any = context.config["app"]
        self.mine: Sequence[int] = context.worker_tasks
        self.id: int = context.task_id
        self.fields: Sequence[str] = context.fields("lines", "default")

    def execute(self, tup: Tuple) -> None:
        (line,) = tup
        for word in tup["line"].split()[: self.limit]:
            self.emit([word])
        if not tup[0]:
            raise FailTuple("an empty line")
        values: tuple[Any, ...] = tup.values
        names: tuple[str, ...] = tup.fields
        where: tuple[str, str, int] = (tup.component, tup.stream, tup.task)
        assert (len(values), names, where[1], line) == (1, ("line",), "default", values[0])

    def cleanup(self) -> None: ...


class Count(Bolt):
    outputs = ("word", "count")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        for tup in tups:
            self.counts[tup["word"]] = self.counts.get(tup["word"], 0) + 1

    def tick(self) -> None:
        self.emit_many(sorted(self.counts.items()))


class Fetch(Bolt):
    outputs = ("n",)
    max_in_flight = 8

    async def prepare(self, context: TopologyContext) -> None:
        await asyncio.sleep(0)

    async def execute(self, tup: Tuple) -> None:
        await asyncio.sleep(0.1)
        self.emit([tup["n"]])

    async def tick(self) -> None:
        await asyncio.sleep(0)


class Store(Bolt):
    blocking = True

    def __init__(self, *names: str) -> None:
        self.outputs = names

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["n"]])


class Join(ManualBolt):
    outputs = {"default": ("a", "b"), "late": ("a",), "to": DirectStream("a")}

    def __init__(self) -> None:
        self.held: list[Tuple] = []

    def prepare(self, context: TopologyContext) -> None:
        self.context = context

    def execute(self, tup: Tuple) -> None:
        self.held.append(tup)
        self.reset_timeout(tup)
        if len(self.held) == 2:
            first, second = self.held
            self.emit([first[0], second[0]], anchors=self.held)
            self.emit([first[0]], anchors=(), stream="late")
            self.ack(first)
            self.fail(second)
            self.held = []
            self.context.report_error(ValueError("the second one fails"))


class Letters(Bolt):
    def execute(self, tup: Tuple) -> None:
        message_id, stream, values, retries, reason = tup
        print("gave up", message_id, stream, values, "after", retries, "replays:", reason)


class Route(Bolt):
    def execute(self, tup: Tuple) -> None: ...


class ByLength(CustomGrouping):
    def prepare(self, context: Any, tasks: Sequence[int]) -> None:
        self.tasks = tasks

    def choose_tasks(self, values: Sequence[Any]) -> Sequence[int]:
        return [self.tasks[stable_hash(values[0]) % len(self.tasks)]]


def topology(*paths: str) -> Topology:
    config: Mapping[str, object] = {"topology.workers": 1, "app": {"depth": 3}}
    builder = TopologyBuilder("everything", config=config)
    builder.set_spout("lines", Lines([Path(path) for path in paths]))
    builder.set_spout("numbers", Numbers(), parallelism=1, config={"topology.max.spout.pending": 100})
    builder.set_spout("async", AsyncNumbers())
    builder.set_bolt("split", Split(), parallelism=2, tasks=4).shuffle_grouping("lines")
    counts = builder.set_bolt("count", Count(), parallelism=2, tasks=8, config={"topology.tick.tuple.freq.secs": 10})
    counts.fields_grouping("split", ["word"])
    builder.set_bolt("fetch", Fetch(), config={"topology.tick.tuple.freq.secs": 5}).partial_key_grouping(
        "numbers", ["n"]
    ).none_grouping("async")
    builder.set_bolt("store", Store("x")).global_grouping("fetch")
    builder.set_bolt("join", Join()).local_or_shuffle_grouping("fetch")
    builder.set_bolt("letters", Letters()).all_grouping("numbers", stream="dead_letters")
    builder.set_bolt("route", Route()).direct_grouping("lines", stream="to").custom_grouping("split", ByLength())
    return builder.create_topology()


def in_process(built: Topology) -> None:
    with LocalCluster() as cluster:
        running: Running = cluster.submit(built, config={"topology.workers": 2})
        running.wait_until(lambda s: s.acked >= 0, timeout_s=5)
        running.wait_drained(timeout_s=30)
        assert running.statistics().pending == 0
        for error in running.errors("count"):
            print(error.component, error.error, error.traceback)
        running.rebalance(workers=1, parallelism={"count": 4})
        running.deactivate()
        running.activate()
        running.kill(wait_s=0)
    with LocalCluster(virtual_clock=True, seed=7, record=True) as cluster:
        handle = cluster.submit(built, sources={"lines": [["a b"]]})
        cluster.advance(31)
        rows: list[tuple[Any, ...]] = handle.emitted("count")
        assert sorted(rows) == [("a", 1)] * 3 + [("b", 1)] * 3
        cluster.kill_worker("count")


def in_tests(built: Topology) -> None:
    result = complete_topology(built, sources={"lines": {"default": [["a b"], ["a"]]}}, raise_errors=False)
    assert result.emitted("split") == [("a",), ("b",), ("a",)]
    assert sorted(result.executed("count")) == [("a",), ("a",), ("b",)]
    assert (len(result.acked("lines")), len(result.failed("lines")), len(result.errors("split"))) == (2, 0, 0)
    assert len(result.instances("count")) == 8
    assert len(result.executed("letters")) > 0
    split = Split()
    assert run_bolt(split, [["a b"]], fields=["line"], component="lines") == [("a",), ("b",)]


def on_a_cluster(built: Topology) -> None:
    client = Client("127.0.0.1:6627")
    running: Running = client.submit(built)
    again: Running = client.topology("word-count")
    names = [summary.name for summary in client.topologies()]
    print(running, again, names, Config(), ERRORS)


if __name__ == "__main__":
    made = topology()
    in_tests(made)
    in_process(made)
