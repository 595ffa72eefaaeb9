"""An exclusive worker does not outlive its lease, also when nobody else is left to end it."""

from __future__ import annotations

from pathlib import Path

from rainband.topology.home import open_lease, write_lease
from rainband.worker.leash import LOOK_S, keep_on_leash


class Boot:
    """Time since boot, which goes on while somebody waits."""

    def __init__(self) -> None:
        self.at = 100.0

    def since_boot(self) -> float:
        return self.at


def test_the_end_comes_when_the_grace_is_over_and_not_before(tmp_path: Path) -> None:
    clock, ends = Boot(), list[float]()
    write_lease(tmp_path, 104.0)

    def pause(seconds: float) -> None:
        assert 0.0 < seconds <= LOOK_S
        clock.at += seconds

    keep_on_leash(open_lease(tmp_path), 0.5, clock.since_boot, lambda: ends.append(clock.at), pause)
    assert ends == [104.5]


def test_a_lease_that_is_renewed_is_waited_for_anew(tmp_path: Path) -> None:
    clock, ends = Boot(), list[float]()
    write_lease(tmp_path, 101.0)
    renewals = [103.0, 106.0]

    def pause(seconds: float) -> None:
        clock.at += seconds
        if clock.at > 101.0 and renewals:
            write_lease(tmp_path, renewals.pop(0))

    keep_on_leash(open_lease(tmp_path), 0.5, clock.since_boot, lambda: ends.append(clock.at), pause)
    assert ends == [106.5]


def test_a_machine_that_slept_past_the_lease_ends_it_at_once(tmp_path: Path) -> None:
    clock, ends = Boot(), list[float]()
    write_lease(tmp_path, 130.0)

    def pause(seconds: float) -> None:
        clock.at += 3600.0

    keep_on_leash(open_lease(tmp_path), 3.0, clock.since_boot, lambda: ends.append(clock.at), pause)
    assert ends == [3700.0]
