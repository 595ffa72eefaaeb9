"""A task's turn is short however slow its calls are: everything else of its worker waits for it."""

from __future__ import annotations

from random import Random

import pytest

from rainband.acker.ledger import Pending
from rainband.topology.tuples import Source, Tuple
from rainband.worker.emit import BoltEmitter, Output, SpoutEmitter
from rainband.worker.routes import Agenda, Gate
from rainband.worker.spouts import SpoutTask
from rainband.worker.tasks import PlainBoltTask

TURN = 256


class Calls:
    """A clock that goes on by `each` seconds with every call of user code."""

    def __init__(self, each: float) -> None:
        self.now = 0.0
        self.each = each
        self.count = 0

    def clock(self) -> float:
        return self.now

    def call(self, *given: object) -> None:
        self.now += self.each
        self.count += 1


def bolt_of(calls: Calls, queued: int) -> PlainBoltTask:
    agenda = Agenda(1, Random(0))
    outputs: dict[str, Output] = {}
    emitter = BoltEmitter("bolt", 1, outputs, Gate(), agenda, frozenset())
    task = PlainBoltTask(0, queued, agenda, calls.clock, emitter, calls.call)
    source = Source("spout", "default", 2, ("n",))
    task.inbox = [Tuple((number,), source) for number in range(queued)]
    return task


def spout_of(calls: Calls) -> SpoutTask:
    agenda = Agenda(1, Random(0))
    outputs: dict[str, Output] = {}
    emitter = SpoutEmitter("spout", 1, outputs, Gate(), agenda, frozenset(), Pending(0, 1, 0))

    def next_tuple() -> None:
        calls.call()
        emitter.begun += 1

    task = SpoutTask(1, calls.clock, emitter, next_tuple, calls.call, calls.call, 0.0)
    task.active = True
    return task


def test_slow_calls_are_noticed_after_the_first() -> None:
    calls = Calls(0.15)
    bolt, spout = bolt_of(calls, 500), spout_of(calls)
    for done in (1, 2, 3):
        bolt.run(calls.now)
        assert calls.count == done
    spout.run(TURN, calls.now)
    assert calls.count == 4


@pytest.mark.parametrize("each", [0.0001, 0.001, 0.003, 0.02])
def test_turns_come_down_to_a_few_milliseconds_at_once_when_calls_get_slow(each: float) -> None:
    calls = Calls(0.0)
    bolt, spout = bolt_of(calls, 10_000), spout_of(calls)
    for _ in range(8):
        bolt.run(calls.now)
        spout.run(TURN, calls.now)
    calls.each = each
    for turn in range(4):
        for run in (lambda: bolt.run(calls.now), lambda: spout.run(TURN, calls.now)):
            begin = calls.now
            run()
            assert calls.now - begin <= max(each, 0.040 if turn == 0 else 0.004) + 1e-9


def test_a_turn_of_fast_calls_has_as_many_as_it_may() -> None:
    calls = Calls(1e-6)
    bolt, spout = bolt_of(calls, 10_000), spout_of(calls)
    done = []
    for _ in range(4):
        before = calls.count
        assert bolt.run(calls.now) == calls.now
        done.append(calls.count - before)
    assert done == [64, 128, 256, 512]
    calls.count = 0
    for _ in range(4):
        spout.run(TURN, calls.now)
    assert calls.count == 64 + 128 + 256 + 256
