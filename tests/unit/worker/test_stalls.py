"""Time in which the loop stood still is known, and forgotten once it no longer matters."""

from __future__ import annotations

from rainband.worker.stalls import Stalls


def test_waiting_as_long_as_wanted_is_no_stall() -> None:
    stalls = Stalls(30.0)
    stalls.paused(1.0, 6.0)
    stalls.resumed(6.1)
    assert stalls.within(6.1) == 0.0


def test_waking_late_is_one() -> None:
    stalls = Stalls(30.0)
    stalls.paused(1.0, 1.05)
    stalls.resumed(21.05)
    assert stalls.within(21.05) == 20.0


def test_a_long_pass_is_one() -> None:
    stalls = Stalls(30.0)
    stalls.paused(1.0, 1.0)
    stalls.resumed(1.0)
    stalls.paused(11.0, 11.0)
    assert stalls.within(11.0) == 10.0


def test_it_is_forgotten_after_the_memory_of_running_time() -> None:
    stalls = Stalls(30.0)
    stalls.paused(0.0, 0.0)
    stalls.resumed(10.0)
    assert stalls.within(39.0) == 10.0
    assert stalls.within(41.0) == 0.0
