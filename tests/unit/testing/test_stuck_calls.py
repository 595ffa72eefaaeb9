"""Calls of user code that never return: complete_topology names them within its timeout instead of standing still."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

import pytest

from kit.parts import Numbers, Pass, Sink
from rainband.clock import SystemClock
from rainband.errors import NotReached
from rainband.testing import complete_topology, run_bolt
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.graph import Topology
from rainband.topology.tuples import Tuple


class Spins(Bolt):
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        n = 0
        while True:
            n += 1


class Locks(Bolt):
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        threading.Event().wait()


class Emits(Bolt):
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        while True:
            self.emit([1])
            threading.Event().wait(0.01)


class Prepares(Bolt):
    outputs = ("n",)

    def prepare(self, context: TopologyContext) -> None:
        threading.Event().wait()

    def execute(self, tup: Tuple) -> None: ...


class Blocks(Locks):
    blocking = True


class Catches(Bolt):
    outputs = ("n",)

    def execute(self, tup: Tuple) -> None:
        while True:
            try:
                threading.Event().wait(1)
            except Exception:
                continue


class Reads(Spout):
    outputs = ("n",)

    def next_tuple(self) -> None:
        threading.Event().wait()


def topology(bolt: Bolt, spout: Spout | None = None) -> Topology:
    builder = TopologyBuilder("stands")
    builder.set_spout("spout", spout or Numbers(3))
    builder.set_bolt("bolt", bolt).shuffle_grouping("spout")
    builder.set_bolt("sink", Sink()).shuffle_grouping("bolt")
    return builder.create_topology()


@pytest.mark.parametrize("raise_errors", [True, False])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Spins, "'bolt' task 1 has not returned from execute(), test_stuck_calls.py:"),
        (Locks, "'bolt' task 1 has not returned from execute(), test_stuck_calls.py:"),
        (Emits, "'bolt' task 1 has not returned from execute(), test_stuck_calls.py:"),
        (Catches, "'bolt' task 1 has not returned from execute(), test_stuck_calls.py:"),
        (Blocks, "'bolt' task 1 has not returned from execute(), test_stuck_calls.py:"),
        (Prepares, "'bolt' task 1 has not returned from prepare(), test_stuck_calls.py:"),
    ],
)
def test_a_call_that_never_returns_is_named(kind: Callable[[], Bolt], said: str, raise_errors: bool) -> None:
    clock = SystemClock()
    began = clock.now()
    with pytest.raises(NotReached) as caught:
        complete_topology(topology(kind()), timeout_s=0.3, raise_errors=raise_errors)
    assert "'stands' is not complete: " in str(caught.value)
    assert said in str(caught.value)
    assert clock.now() - began < 5


def test_a_spout_and_a_single_bolt() -> None:
    with pytest.raises(NotReached, match=r"'spout' task \d has not returned from next_tuple\(\)"):
        complete_topology(topology(Pass(), Reads()), timeout_s=0.3)
    with pytest.raises(NotReached, match=r"'bolt' task \d has not returned from execute\(\)"):
        run_bolt(Spins(), [[1]], timeout_s=0.3)


def test_in_a_thread_that_is_not_the_main_one() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            complete_topology(topology(Spins()), timeout_s=0.3)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, NotReached)
    assert "execute()" in str(error)


def test_an_await_that_never_ends_is_named() -> None:
    class Waits(Bolt):
        outputs = ("n",)

        async def execute(self, tup: Tuple) -> None:
            await asyncio.get_running_loop().create_future()

    with pytest.raises(NotReached, match=r"3 calls of bolt 'bolt' task 1 have not returned"):
        complete_topology(topology(Waits()), timeout_s=5)


def test_many_calls_that_return_may_take_longer_together() -> None:
    class Slow(Bolt):
        outputs = ("n",)

        def execute(self, tup: Tuple) -> None:
            threading.Event().wait(0.05)

    result = complete_topology(topology(Slow(), Numbers(20)), timeout_s=0.4)
    assert len(result.executed("bolt")) == 20


def test_signals_are_left_as_they_were() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    complete_topology(topology(Pass()))
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
