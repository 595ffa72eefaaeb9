"""What the log of Nimbus says of each command."""

from __future__ import annotations

from kit.clusters import WALL, heartbeat, word_count
from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.nimbus import journal
from rainband.nimbus.core import Nimbus
from rainband.records import Activate, Deactivate, GetTopology, Kill, Rebalance, Request, Submit


class Told:
    """A Nimbus and its log."""

    def __init__(self) -> None:
        self.nimbus = Nimbus(MemoryStore(), MemoryBlobs(), {}, 0.0, require_bundle=False)

    def by(self, request: Submit | Kill | Rebalance | Activate | Deactivate) -> str:
        response = self.nimbus.handle(request, 0.0, WALL)
        return journal.line(request, response, self.nimbus.handle(GetTopology(request.name), 0.0, WALL))

    def submit(self, name: str, workers: int) -> str:
        return self.by(Submit(name, word_count(name, workers).encode()))


def test_each_command_is_one_line() -> None:
    told = Told()
    told.nimbus.handle(heartbeat(), 0.0, WALL)
    assert told.submit("wc", 2) == "wc-1-1700000000 submitted: 2 workers, 5 executors, ACTIVE"
    assert told.by(Deactivate("wc")) == "wc-1-1700000000 deactivated"
    assert told.by(Activate("wc")) == "wc-1-1700000000 activated"
    moved = "wc-1-1700000000 rebalanced to 1 worker, count=1: moves when nothing is pending, within 5.0 s"
    assert told.by(Rebalance("wc", 5.0, 1, {"count": 1})) == moved
    assert told.by(Kill("wc")) == "wc-1-1700000000 killed: ends when nothing is pending, within 30.0 s"


def test_what_waits_for_slots_says_so_and_is_gone_at_once() -> None:
    told = Told()
    assert told.submit("wc", 1) == "wc-1-1700000000 submitted: 1 worker, 5 executors, WAITING; needs 1 slot, 0 free"
    assert told.by(Kill("wc")) == "wc-1-1700000000 killed: ends when nothing is pending"


def test_questions_and_refusals_are_no_lines() -> None:
    told = Told()
    question: Request = GetTopology("wc")
    assert journal.line(question, *2 * (told.nimbus.handle(question, 0.0, WALL),)) == ""
    assert told.by(Kill("nobody")) == ""


def test_what_happens_without_a_command_is_told_too() -> None:
    nimbus = Nimbus(MemoryStore(), MemoryBlobs(), {}, 0.0, require_bundle=False)
    nimbus.handle(heartbeat("a", ports=(6700,)), 0.0, WALL)
    nimbus.handle(heartbeat("b", ports=(6700, 6701)), 20.0, WALL)
    nimbus.handle(Submit("wc", word_count("wc", 2).encode()), 20.0, WALL)
    assert nimbus.news.take() == [
        "supervisor a at 127.0.0.1 joins with 1 slot",
        "supervisor b at 127.0.0.1 joins with 2 slots",
    ]
    nimbus.handle(heartbeat("b", ports=(6700, 6701)), 29.0, WALL)
    nimbus.tick(31.0)
    assert nimbus.news.take() == [
        "supervisor a was silent for 30 s and counts as lost",
        "wc-1-1700000000 is placed anew: leaves a:6700, gets b:6701",
    ]
    assert nimbus.news.take() == []


def test_a_worker_that_does_not_come_up_is_told() -> None:
    nimbus = Nimbus(MemoryStore(), MemoryBlobs(), {"nimbus.task.launch.secs": 9}, 0.0, require_bundle=False)
    for name in "ab":
        nimbus.handle(heartbeat(name, ports=(6700,)), 0.0, WALL)
    nimbus.handle(Submit("wc", word_count("wc", 1).encode()), 0.0, WALL)
    nimbus.tick(2.0)
    nimbus.news.take()
    for second in range(3, 20):
        for name in "ab":
            nimbus.handle(heartbeat(name, ports=(6700,)), float(second), WALL)
        nimbus.tick(float(second))
    assert nimbus.news.take() == [
        "wc-1-1700000000: no worker came up on a:6700 within 9 s",
        "wc-1-1700000000 is placed anew: leaves a:6700, gets b:6700",
    ]
