"""A callback whose work is still to be done in what it returned is refused, and its tuple fails."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.contract import one_bolt
from rainband import (
    Bolt,
    InvalidTopology,
    LocalCluster,
    ManualBolt,
    ReliableSpout,
    Spout,
    TopologyBuilder,
    Tuple,
    UsageError,
    complete_topology,
    run_bolt,
)


class Works(Bolt):
    """What its callbacks hand back is still to be run."""

    outputs = ("word",)

    async def later(self, word: Any) -> None:
        self.emit([word])

    def each(self, word: Any) -> Iterator[Any]:
        yield self.emit([word])

    async def each_later(self, word: Any) -> Any:
        yield self.emit([word])


class Coroutine(Works):
    def execute(self, tup: Tuple) -> Any:
        return self.later(tup[0])


class Generator(Works):
    def execute(self, tup: Tuple) -> Any:
        return self.each(tup[0])


class AsyncGenerator(Works):
    def execute(self, tup: Tuple) -> Any:
        return self.each_later(tup[0])


class Batch(Works):
    def execute_batch(self, tups: Any) -> Any:
        return self.later(tups[0][0])


class Manual(ManualBolt):
    async def later(self, tup: Tuple) -> None:
        self.ack(tup)

    def execute(self, tup: Tuple) -> Any:
        return self.later(tup)


class ManualBatch(Manual):
    def execute_batch(self, tups: Any) -> Any:
        return self.later(tups[0])


class BlockingGenerator(Generator):
    blocking = True


class AsyncReturnsGenerator(Works):
    async def execute(self, tup: Tuple) -> Any:
        await asyncio.sleep(0)
        return self.each(tup[0])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Coroutine, r"^execute\(\) of 'bolt' returned a coroutine, which nobody awaits\. Write `async def execute`"),
        (Generator, r"^execute\(\) of 'bolt' returned a generator, which nobody runs"),
        (AsyncGenerator, r"^execute\(\) of 'bolt' returned an async generator, which nobody runs"),
        (Batch, r"^execute_batch\(\) of 'bolt' returned a coroutine"),
        (Manual, r"^execute\(\) of 'bolt' returned a coroutine"),
        (ManualBatch, r"^execute_batch\(\) of 'bolt' returned a coroutine"),
        (BlockingGenerator, r"^execute\(\) of 'bolt' returned a generator"),
        (AsyncReturnsGenerator, r"^execute\(\) of 'bolt' returned a generator"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_its_tuples_fail(kind: Callable[[], Bolt], said: str) -> None:
    result = complete_topology(one_bolt(kind(), "a", "b"), raise_errors=False)
    assert (sorted(result.failed("words")), result.acked("words")) == (["a", "b"], [])
    assert result.acked("bolt") == []
    assert sorted(result.failed("bolt")) == [("a",), ("b",)]
    assert result.errors("bolt")
    with pytest.raises(UsageError, match=said):
        run_bolt(kind(), [["a"], ["b"]])


class Ticks(Works):
    def execute(self, tup: Tuple) -> None: ...

    def tick(self) -> Any:
        return self.later("tick")


@pytest.mark.filterwarnings("error")
def test_tick_and_prepare_too() -> None:
    with pytest.raises(UsageError, match=r"tick\(\) of 'bolt' returned a coroutine"):
        run_bolt(Ticks(), [["a"]], ticks=1)

    class Prepares(Ticks):
        def prepare(self, context: Any) -> Any:
            return self.later("tick")

    with pytest.raises(UsageError, match=r"prepare\(\) of 'bolt' returned a coroutine"):
        run_bolt(Prepares(), [["a"]])


class Given(Bolt):
    """Other values are nobody's business."""

    def execute(self, tup: Tuple) -> Any:
        return self.value()

    def value(self) -> list[int]:
        return [1]


def test_any_other_value_is_ignored() -> None:
    assert run_bolt(Given(), [["a"]]).acked == [("a",)]


class Source(Spout):
    outputs = ("n",)
    returns = "next_tuple"

    def open(self, context: Any) -> None:
        self.left = [1]

    async def later(self) -> None: ...

    def next_tuple(self) -> Any:
        if self.returns == "next_tuple":
            return self.later()
        if self.left:
            n = self.left.pop()
            self.emit([n], message_id=n)
        else:
            self.finish()
        return None

    def ack(self, message_id: Any) -> Any:
        return self.later() if self.returns == "ack" else None

    def fail(self, message_id: Any) -> Any:
        return self.later() if self.returns == "fail" else None


class Reliable(ReliableSpout):
    outputs = ("n",)
    returns = "next_tuple"
    max_retries = 0
    open = Source.open
    later = Source.later
    next_tuple = Source.next_tuple
    ack = Source.ack
    fail = Source.fail


class Blocking(Source):
    blocking = True
    returns = "next_tuple"


class Refuse(Bolt):
    def execute(self, tup: Tuple) -> None:
        raise ValueError("no")


@pytest.mark.parametrize("kind", [Source, Reliable])
@pytest.mark.parametrize("returns", ["next_tuple", "ack", "fail"])
@pytest.mark.filterwarnings("error")
def test_a_spout_pauses_with_the_error(kind: Any, returns: str) -> None:
    spout = kind()
    spout.returns = returns
    said = errors_of(spout, Given() if returns == "ack" else Refuse())
    assert said == [f"{returns}() of 'spout' returned a coroutine, which nobody awaits"]


@pytest.mark.filterwarnings("error")
def test_a_blocking_spout_pauses_too() -> None:
    assert errors_of(Blocking(), Given()) == ["next_tuple() of 'spout' returned a coroutine, which nobody awaits"]


def errors_of(spout: Spout, bolt: Bolt) -> list[str]:
    """What the spout did wrong within half a second."""
    builder = TopologyBuilder("returned")
    builder.set_spout("spout", spout)
    builder.set_bolt("bolt", bolt).shuffle_grouping("spout")
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(0.5)
        return [record.error.removeprefix("UsageError: ").split(".")[0] for record in running.errors("spout")]


def timed(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


class Decorated(Works):
    @timed
    async def execute(self, tup: Tuple) -> None:
        await self.later(tup[0])


class DecoratedSpout(Spout):
    outputs = ("n",)

    @timed
    async def next_tuple(self) -> None: ...


def test_a_decorator_that_hides_async_is_refused_when_declared() -> None:
    builder = TopologyBuilder("decorated")
    with pytest.raises(InvalidTopology, match="write `async def execute`, and let decorators keep it async"):
        builder.set_bolt("bolt", Decorated())
    with pytest.raises(InvalidTopology, match="write `async def next_tuple`, and let decorators keep it async"):
        builder.set_spout("spout", DecoratedSpout())
    with pytest.raises(InvalidTopology, match="let decorators keep it async"):
        run_bolt(Decorated(), [["a"]])


def timed_async(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*arguments: Any) -> Any:
        return await function(*arguments)

    return wrapper


class DecoratedWell(Works):
    @timed_async
    async def execute(self, tup: Tuple) -> None:
        await self.later(tup[0])


def test_one_that_keeps_it_async_is_not() -> None:
    assert run_bolt(DecoratedWell(), [["a"]]) == [("a",)]
