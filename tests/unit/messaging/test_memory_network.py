"""The network in memory: at once by default, and as unkind as it is told to be."""

from __future__ import annotations

from rainband.messaging.network import MemoryHub


def test_frames_arrive_at_once_in_order() -> None:
    hub = MemoryHub()
    here, there = hub.network("a:1"), hub.network("b:2")
    assert here.send("b:2", b"1")
    assert here.send("b:2", b"2")
    assert not hub.idle
    assert there.receive(1) == [b"1"]
    assert there.receive() == [b"2"]
    assert there.receive() == []
    assert hub.idle


def test_nobody_takes_nothing() -> None:
    hub = MemoryHub()
    here = hub.network("a:1")
    assert not here.send("b:2", b"x")
    there = hub.network("b:2")
    assert here.send("b:2", b"x")
    there.close()
    there.close()
    assert not here.send("b:2", b"x")
    assert not there.send("a:1", b"x")


def test_a_successor_does_not_get_its_predecessors_frames() -> None:
    hub = MemoryHub()
    here, old = hub.network("a:1"), hub.network("b:2")
    here.send("b:2", b"for the old one")
    new = hub.network("b:2")
    old.close()
    here.send("b:2", b"for the new one")
    assert new.receive() == [b"for the new one"]


def test_fate_loses_repeats_and_delays() -> None:
    delays = {b"lost": (), b"twice": (0.0, 0.0), b"late": (2.0,), b"later": (3.0,)}
    hub = MemoryHub(lambda source, target, frame: delays[frame], now=10.0)
    here, there = hub.network("a:1"), hub.network("b:2")
    for frame in (b"later", b"late", b"lost", b"twice"):
        assert here.send("b:2", frame)
    assert there.receive() == [b"twice", b"twice"]
    assert hub.advance(11.0) == 12.0
    assert there.receive() == []
    assert hub.advance(12.5) == 13.0
    assert there.receive() == [b"late"]
    assert hub.advance(14.0) == float("inf")
    assert there.receive() == [b"later"]
    assert hub.idle


def test_wait_ends_at_once_when_there_is_something() -> None:
    hub = MemoryHub()
    here, there = hub.network("a:1"), hub.network("b:2")
    here.wake()
    here.wait(60.0)
    here.send("b:2", b"x")
    there.wait(60.0)
    assert there.receive() == [b"x"]
    there.wait(0.0)
